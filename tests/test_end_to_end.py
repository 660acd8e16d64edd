"""The main job on real mp4 files by the real binaries, at the smallest size; and real kills."""

import json
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from elo_tf.data import parsing, pipeline, sampling
from elo_tf.data.record_set import Records
from elo_tf.features import FeatureExtractor
from elo_tf.search.journal import read_journal
from elo_tf.training import encoder_files

CANDIDATES = 8


@pytest.fixture(scope="module")
def searched(workshop):
    """The run directory of an undisturbed search, and what it printed."""
    done = workshop.run(workshop.command("search", "search", f"--data={workshop.root}/records"))
    return workshop.root / "search", done


@pytest.fixture(scope="module")
def pretrained(workshop, searched):
    """The run directory of an undisturbed final training, and what it printed."""
    done = workshop.run(pretrain_command(workshop, searched, "pretrain"))
    return workshop.root / "pretrain", done


def pretrain_command(workshop, searched, run_dir):
    return workshop.command("pretrain", run_dir, f"--data={workshop.root}/records",
                            f"--gin_file={searched[0]}/best_loss.gin")


@pytest.fixture(scope="module")
def evaluated(workshop, pretrained):
    done = workshop.run(workshop.command(
        "evaluate", "evaluate", f"--data={workshop.root}/records",
        f"--encoder={pretrained[0]}/encoder"))
    return workshop.root / "evaluate", done


@pytest.fixture(scope="module")
def exported(workshop, pretrained):
    done = workshop.run(workshop.command(
        "export", "export", f"--encoder={pretrained[0]}/encoder"))
    return re.search(r"SavedModel: (\S+)", done.stdout)[1]


def test_a_search_compiles_its_step_once(searched):
    run_dir, done = searched
    journal = read_journal(run_dir / "journal.jsonl")
    assert len(journal.candidates) == CANDIDATES and len(journal.generations) == 2
    assert journal.end["best"]["fitness"] == journal.best.fitness
    assert len(journal.header["names"]) == 40
    assert (run_dir / "traces.txt").read_text() == "1 trace(s) of the train step\n"
    assert done.stdout == f"best loss: {run_dir / 'best_loss.gin'}\n"
    assert f"{CANDIDATES}/{CANDIDATES}" in done.stderr
    for candidate in journal.candidates:
        assert candidate.ok, candidate.status
        assert len(candidate.losses) == 40 and None not in candidate.losses.values()
        assert abs(sum(candidate.histogram) - 1) < 1e-6 and len(candidate.histogram) == 3
    assert len({candidate.fitness for candidate in journal.candidates}) == CANDIDATES
    assert "Proxy.steps = 3" in (run_dir / "operative_config.gin").read_text()


def test_a_killed_search_ends_with_the_same_loss(workshop, searched):
    path = workshop.root / "killed_search" / "journal.jsonl"
    command = workshop.command("search", "killed_search", f"--data={workshop.root}/records")
    whole = read_journal(searched[0] / "journal.jsonl")
    # A generation is told and the next one has begun: the kill comes in the middle of a candidate.
    workshop.kill_when(command, lambda: len(read_journal(path).candidates) >= 5)
    before = read_journal(path)
    assert 5 <= len(before.candidates) < CANDIDATES and before.end is None
    assert not (path.parent / "best_loss.gin").exists()
    with open(path, "ab") as file:
        file.write(b'{"type": "candidate", "gener')  # as a kill in the middle of a write leaves it
    workshop.run(command)
    after = read_journal(path)
    for mine, other in zip(after.candidates, whole.candidates, strict=True):
        assert (mine.weights, mine.fitness, mine.losses, mine.histogram) == (
            other.weights, other.fitness, other.losses, other.histogram)
    assert after.generations == whole.generations
    assert (path.parent / "best_loss.gin").read_bytes() == (
        searched[0] / "best_loss.gin").read_bytes()


def test_the_final_training_needs_only_the_best_loss(pretrained, searched):
    run_dir, done = pretrained
    result = json.loads((run_dir / "heldout.json").read_text())
    best = read_journal(searched[0] / "journal.jsonl").best
    wanted = {name: weight for name, weight in best.weights.items() if weight >= 0.02}
    assert result["weights"] == wanted
    assert set(result["before"]) == set(result["after"]) == set(wanted)
    for name, weight in wanted.items():
        assert re.search(rf"^{name} +{weight:.3f} +{result['before'][name]:.3f} +"
                         rf"{result['after'][name]:.3f}", done.stdout, re.M)
    log = [json.loads(line) for line in (run_dir / "losses.jsonl").read_text().splitlines()]
    heldout = [entry for entry in log if "heldout" in entry]
    assert [entry["step"] for entry in heldout] == [4, 8, 12]
    log = [entry for entry in log if "losses" in entry]
    assert [entry["step"] for entry in log] == [2, 4, 6, 8, 10, 12]
    for entry in log:
        total = sum(wanted[name] * loss for name, loss in entry["losses"].items())
        assert abs(entry["total"] - total) < 1e-4 * abs(total)
    assert "12/12" in done.stderr
    assert re.search(r"trained 12 steps in \d+ s, of which [\d.]+% waiting for data", done.stderr)
    journal = read_journal(searched[0] / "journal.jsonl")
    assert all(0 <= x.seconds["wait"] <= x.seconds["train"] for x in journal.candidates)


def test_evaluation_scores_both_networks(evaluated):
    run_dir, done = evaluated
    result = json.loads((run_dir / "evaluation.json").read_text())
    assert (result["split"], result["train_clips"], result["test_clips"]) == ("test", 12, 12)
    assert len(result["classes"]) == 3 and abs(result["chance"] - 1 / 3) < 1e-9
    assert [(row["protocol"], row["network"]) for row in result["rows"]] == [
        ("kmeans", "trained"), ("linear", "trained"), ("kmeans", "untrained"),
        ("linear", "untrained")]
    for row in result["rows"]:
        assert 0 <= row["mean"] <= 1
        assert re.search(rf"{row['protocol']} +{row['network']} +{row['mean']:.1%}", done.stdout)


def test_images_are_evaluated_as_still_clips(workshop, pretrained):
    """A folder of image classes, in several crops; the colours are told apart by any network."""
    generator = np.random.default_rng(3)
    for split, count in (("train", 6), ("test", 3)):
        for label, colour in (("blue", (30, 60, 200)), ("red", (200, 60, 30))):
            folder = workshop.root / "images" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.normal(colour, 20, (40, 56, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.JPEG")
        workshop.run([sys.executable, "-m", "tools.convert_videos", "--images", "--labels=folders",
                      f"--input={workshop.root}/images/{split}", f"--split={split}",
                      f"--output={workshop.root}/image_records", "--min_side=32", "--workers=0"])
    done = workshop.run(workshop.command(
        "evaluate", "evaluate_images", f"--data={workshop.root}/image_records",
        f"--encoder={pretrained[0]}/encoder", "--gin_bindings=evaluate.crops = 3"))
    result = json.loads((workshop.root / "evaluate_images" / "evaluation.json").read_text())
    assert (result["train_clips"], result["test_clips"], result["crops"]) == (12, 6, 3)
    assert result["classes"] == ["blue", "red"] and "linear" in done.stdout
    assert all(row["mean"] == 1 for row in result["rows"] if row["protocol"] == "linear")


def test_the_export_embeds_like_the_features(workshop, pretrained, exported):
    encoder_dir = pretrained[0] / "encoder"
    clip = encoder_files.load_clip(encoder_dir)
    records = Records(str(workshop.root / "records"))
    clips = pipeline.testing_clips(records, "test", clip, batch_size=12)
    features = FeatureExtractor(encoder_files.load_encoder(encoder_dir), clip)(clips)
    # The stored frames that the evaluation saw, whole, as a user would send them.
    examples = tf.data.TFRecordDataset(records.shards("test"))
    parsed = [parsing.parse(example, clip) for example in examples]
    frames, jpegs = [], []
    for record in parsed:
        places = sampling.spread_windows(record["track"], 1, clip.frames)
        stored = sampling.window_of(record["track"], places[0, 0], clip.frames).numpy()
        jpegs.append(record["images"].numpy()[stored])
        frames.append([tf.io.decode_jpeg(x, dct_method="INTEGER_ACCURATE") for x in jpegs[-1]])
    model = tf.saved_model.load(exported)
    embedded = model.signatures["embed"](frames=tf.constant(np.array(frames)))["embedding"]
    assert [x["id"].numpy().decode() for x in parsed] == features.ids
    np.testing.assert_allclose(embedded, features.embedding, rtol=1e-4, atol=1e-4)
    embedded = model.signatures["embed_jpeg"](frames=tf.constant(np.array(jpegs)))["embedding"]
    np.testing.assert_allclose(embedded, features.embedding, rtol=1e-4, atol=1e-4)
    assert np.ptp(features.embedding, axis=0).max() > 1e-3


def test_the_report_holds_the_numbers(workshop, searched, pretrained, evaluated):
    workshop.run(workshop.command(
        "report", "report", f"--search={searched[0]}", f"--pretrain={pretrained[0]}",
        f"--evaluation={evaluated[0]}", f"--data={workshop.root}/records"))
    page = (workshop.root / "report" / "report.html").read_text()
    best = read_journal(searched[0] / "journal.jsonl").best
    assert f"{best.fitness:.4f}" in page or f"{best.fitness:.3f}" in page
    for row in json.loads((evaluated[0] / "evaluation.json").read_text())["rows"]:
        assert re.search(rf"{100 * row['mean']:.1f}", page)
    for name in best.weights:
        assert name in page
    assert not re.search(r"""(src|href)=["']https?:""", page)  # self-contained


def test_a_finished_run_started_again_does_nothing(workshop, searched, pretrained):
    before = {path: path.stat().st_mtime_ns for run_dir in (searched[0], pretrained[0])
              for path in run_dir.rglob("*") if path.is_file()}
    again = workshop.run(pretrain_command(workshop, searched, "pretrain"))
    assert again.stdout == pretrained[1].stdout
    again = workshop.run(workshop.command(
        "search", "search", f"--data={workshop.root}/records"))
    assert again.stdout == searched[1].stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
