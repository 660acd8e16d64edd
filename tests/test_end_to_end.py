"""The main job on real mp4 files by the real binaries, at the smallest size; and real kills."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import stats

from elo_tf.data import parsing, pipeline, sampling
from elo_tf.data.record_set import Records
from elo_tf.features import FeatureExtractor
from elo_tf.search.journal import read_journal
from elo_tf.training import encoder_files

CANDIDATES = 8
LEADERS = 2


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
    assert len(journal.repeats) == LEADERS and {x.repeat for x in journal.repeats} == {1}
    assert journal.end["best"]["fitness"] == min(x.fitness for x in journal.repeats)
    assert journal.end["traces"] == 1
    assert len(journal.header["names"]) == 40
    forecast, best = done.stdout.splitlines()
    assert forecast.startswith(f"forecast: {CANDIDATES} candidates and {LEADERS} repeats, each 3 "
                               "steps of 4 clips") and "32 GPU-hours" in forecast
    assert best == f"best loss: {run_dir / 'best_loss.gin'}"
    assert f"{CANDIDATES + LEADERS}/{CANDIDATES + LEADERS}" in done.stderr
    active = {n for n, w in journal.candidates[0].weights.items() if w >= 0.02}
    assert set(journal.candidates[0].losses) == active
    assert set(journal.controls) == {0, 1} and journal.controls[0].seconds["step"] > 0
    for candidate in [*journal.candidates, *journal.repeats, *journal.controls.values()]:
        assert candidate.ok, candidate.status
        assert abs(sum(candidate.histogram) - 1) < 1e-5 and len(candidate.histogram) == 3
        # Both fitnesses are there, since the records have labels; KL is that of the histogram.
        assert 0 <= candidate.weak <= 1
        law = np.arange(1, 4) ** -0.5
        assert abs(stats.entropy(candidate.histogram, law) - candidate.zipf) < 1e-4
    clusters = json.loads((run_dir / "clusters.json").read_text())
    assert (clusters["generation"], clusters["index"]) == journal.best.place
    assert len(clusters["clips"]) == 3 and all(clusters["clips"])
    assert len({candidate.fitness for candidate in journal.candidates}) == CANDIDATES
    assert "Proxy.steps = 3" in (run_dir / "operative_config.gin").read_text()


def running(path):
    """Workers of a search that are in a candidate now: (generation, index, worker)."""
    journal = read_journal(path)
    return [(x["generation"], x["index"], x["worker"]) for x in journal.started
            if x["generation"] >= 0 and journal.find(
                x["generation"], x["index"], x["repeat"]) is None]


def test_a_killed_search_ends_with_the_same_loss(workshop, searched):
    path = workshop.root / "killed_search" / "journal.jsonl"
    command = workshop.command("search", "killed_search", f"--data={workshop.root}/records")
    whole = read_journal(searched[0] / "journal.jsonl")
    # A generation is told and the next one has begun: the kill comes in the middle of a candidate.
    workshop.kill_when(command, lambda: len(read_journal(path).candidates) >= 5 and running(path))
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
    assert [x.fitness for x in after.repeats] == [x.fitness for x in whole.repeats]
    # The kill fell inside a candidate: one was begun twice.
    begun = [(x["generation"], x["index"], x["repeat"]) for x in after.started]
    assert len(begun) == len(set(begun)) + 1
    assert (path.parent / "best_loss.gin").read_bytes() == (
        searched[0] / "best_loss.gin").read_bytes()


def test_local_workers_one_of_them_killed_find_the_same_loss(workshop, searched):
    path = workshop.root / "two_workers" / "journal.jsonl"
    command = workshop.command("search", "two_workers", f"--data={workshop.root}/records",
                               "--workers=2")
    with open(workshop.root / "two_workers.txt", "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        deadline = time.monotonic() + 400
        while not (victims := running(path)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        generation, index, worker = victims[0]
        os.kill(int(worker.rpartition(":")[2]), signal.SIGKILL)
        assert process.wait(300) == 0, (workshop.root / "two_workers.txt").read_text()[-3000:]
    journal = read_journal(path)
    survivor = journal.find(generation, index)
    assert survivor.ok and survivor.worker != worker
    assert [x["attempt"] for x in journal.started
            if (x["generation"], x["index"], x["repeat"]) == (generation, index, 0)] == [1, 2]
    whole = read_journal(searched[0] / "journal.jsonl")
    assert [x.fitness for x in journal.candidates] == [x.fitness for x in whole.candidates]
    assert (path.parent / "best_loss.gin").read_bytes() == (
        searched[0] / "best_loss.gin").read_bytes()
    assert len({x.worker for x in journal.candidates}) >= 2


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
    assert [(row["network"], row["protocol"]) for row in result["rows"]] == [
        (network, protocol) for network in ("trained", "untrained") for protocol in (
            "kmeans", "kmeans_majority", "kmeans_nmi", "kmeans_ari", "linear", "knn",
            "retrieval@1", "retrieval@5", "retrieval@20")]
    table = (run_dir / "evaluation.md").read_text()
    for row in result["rows"]:
        assert -1 <= row["mean"] <= 1
        assert re.search(rf"{row['protocol']} +{row['network']} +{row['mean']:.1%}", done.stdout)
        assert f"{100 * row['mean']:.1f}" in table
    # What the encoder was trained on is known, and is not what it is tested on.
    assert result["warnings"] == [] and result["scale"]["frames"] == 4


def test_images_are_evaluated_as_still_clips(workshop, pretrained):
    """A folder of image classes, in several crops; the colours are told apart by any network."""
    generator = np.random.default_rng(3)
    for split, count in (("train", 6), ("test", 3)):
        for label, colour in (("blue", (30, 60, 200)), ("red", (200, 60, 30))):
            folder = workshop.root / "images" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.normal(colour, 20, (40, 56, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{split}_{i}.JPEG")
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
        if row["protocol"] in ("kmeans", "linear", "knn"):
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
    assert again.stdout == searched[1].stdout.splitlines()[-1] + "\n"
    assert {path: path.stat().st_mtime_ns for path in before} == before
