"""Whole sets: damaged files, what only several records show, and the figures of the table."""

import gzip
import io
import json
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from elo_tf.data import flow, inspection, records, schema
from elo_tf.data.encoding import EncodedClip
from elo_tf.data.inspection import inspector
from elo_tf.data.inspection import summary as inspection_summary
from elo_tf.errors import UserError

RNG = np.random.default_rng(3)
FRAMING = 16
SIZES = [(4, 32, 32), (6, 32, 40), (9, 32, 40), (12, 32, 40), (20, 32, 40)]


def png(pixels):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def jpeg(pixels):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def make_clip(frames, height, width, *, level=0.1, flows=True):
    """(the clip, its flow in pixels as stored)."""
    moves = RNG.normal(0, 8, (frames, height, width, 2)).astype(np.float32)
    coded = [flow.quantise(move) for move in moves]
    audio = None if level is None else (
        level * np.sign(RNG.normal(size=1600 * frames))).astype(np.float32)
    clip = EncodedClip(
        images=[jpeg(RNG.integers(0, 256, (height, width, 3), np.uint8)) for _ in range(frames)],
        flows=[png(x) for x in coded] if flows else None, audio=audio, fps=10.0, start=0.0,
        height=height, width=width)
    return clip, np.stack([flow.dequantise(x) for x in coded])


def write(folder, split, shards, **settings):
    """Shards of records with ids 0.mp4, 1.mp4, ...; gives the flow of each."""
    stored, number = [], 0
    folder.mkdir(exist_ok=True)
    for index, sizes in enumerate(shards):
        examples = []
        for size in sizes:
            label = number % 2
            clip, moves = make_clip(*size, **settings)
            examples.append(records.encode_example(
                clip, example_id=f"{number}.mp4", label=label, label_name=["run", "walk"][label]))
            stored.append(moves)
            number += 1
        records.write_shard(folder / schema.shard_name(split, index, len(shards)), examples)
    (folder / schema.LABELS_FILE).write_text("run\nwalk\n")
    return stored


def run(folder, split="", limit=0, workers=0):
    sets = inspection.find_sets([folder], split)
    inspection.inspect(sets, limit=limit, workers=workers)
    return sets


def problems(sets, level=None):
    return [x for found in sets for x in found.all_problems() if level in (None, x.level)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records") / "set"
    return folder, write(folder, "train", [SIZES[:2], SIZES[2:]])


@pytest.fixture
def folder(made, tmp_path):
    """A copy to break."""
    return shutil.copytree(made[0], tmp_path / "set")


def test_a_good_set_has_no_problems(made):
    seen = []
    sets = inspection.find_sets([made[0]])
    inspection.inspect(sets, on_shard=lambda report: seen.append(report.name))
    assert sorted(seen) == [f"train-0000{i}-of-00002.tfrecord" for i in (0, 1)]
    assert problems(sets) == []
    assert [report.name for report in sets[0].reports] == sorted(seen)
    report = sets[0].reports[1]
    originals = list(tf.data.TFRecordDataset(report.path).as_numpy_iterator())
    assert [inspection.read_record(report, i) for i in range(3)] == originals


def test_the_figures_are_those_of_numpy(made):
    folder, stored = made
    found, = run(folder)
    figures = inspection_summary.summarise(found)
    frames = [4, 6, 9, 12, 20]
    assert (figures["shards"], figures["clips"], figures["classes"]) == (2, 5, 2)
    assert figures["frames"] == [4, 9.0, 20]
    assert figures["hours"] == pytest.approx(sum(frames) / 10 / 3600)
    assert figures["sizes"] == {"40 x 32": 4, "32 x 32": 1}
    assert (figures["fps"], figures["sample_rates"]) == ({"10": 5}, {"16000": 5})
    assert (figures["sound"], figures["flow"], figures["labels"], figures["silent"]) == (1, 1, 1, 0)
    size = sum(path.stat().st_size for path in folder.glob("*.tfrecord"))
    assert figures["megabytes"] == pytest.approx(size / 1e6)
    lengths = np.concatenate([np.hypot(x[..., 0], x[..., 1]).ravel() for x in stored])
    np.testing.assert_allclose(
        figures["flow_pixels"],
        np.percentile(lengths, [50, 95, 99, 100], method="inverted_cdf"), rtol=1e-5)
    moves = np.concatenate([x.reshape(-1, 2) for x in stored])
    assert figures["flow_clipped"] == pytest.approx((np.abs(moves) > 19.999).any(1).mean())
    assert figures["flow_still"] == pytest.approx((np.abs(moves) < 0.1).all(1).mean())
    assert 0 < figures["flow_still"] < figures["flow_clipped"]
    np.testing.assert_allclose(figures["loudness"], [-20, -20, -20], atol=1e-4)
    images = [x.bytes_list.value[0] for path in folder.glob("*.tfrecord")
              for data in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
              for x in tf.train.SequenceExample.FromString(data).feature_lists.feature_list[
                  schema.IMAGE_ENCODED].feature]
    assert figures["image_bytes"] == pytest.approx(np.mean([len(x) for x in images]))
    text = inspection_summary.table([found])
    assert [x.split()[-1] for x in text.splitlines() if x.startswith(("clips", "errors"))] == [
        "5", "0"]
    assert "4 / 9 / 20" in text
    assert max(map(len, text.splitlines())) < 100


def test_percentiles_of_loudness_and_the_silent(tmp_path):
    for i, level in enumerate((1e-4, 0.01, 0.1, 1.0, 0.0)):
        clip, _ = make_clip(4, 32, 32, level=level, flows=False)
        records.write_shard(tmp_path / schema.shard_name("train", i, 5),
                            [records.encode_example(clip, example_id=f"{i}")])
    found, = run(tmp_path)
    figures = inspection_summary.summarise(found)
    np.testing.assert_allclose(
        figures["loudness"], np.percentile([-80, -40, -20, 0], [5, 50, 95]), atol=1e-3)
    assert figures["silent"] == 0.4
    assert (figures["flow"], figures["flow_pixels"], figures["labels"]) == (0, [], 0)
    assert [(x.check, x.id) for x in problems([found])] == [("silent", "0"), ("silent", "4")]


def test_processes_find_the_same(made, monkeypatch):
    monkeypatch.setattr(inspector, "WORKER_BYTES", 1)
    here, there = (inspection_summary.report(run(made[0], workers=n)) for n in (0, 2))
    assert here == there
    assert here["splits"]["train"]["clips"] == 5


def offsets(path):
    sizes = [len(x) for x in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    return [0, *np.cumsum([size + FRAMING for size in sizes]).tolist()]


def damage(name, data, starts):
    if name == "data":
        data[starts[1] + 500] ^= 1
    elif name == "length":
        data[starts[1]] ^= 1
    elif name == "cut":
        del data[starts[1] + 500:]
    elif name == "cut header":
        del data[starts[1] + 5:]
    return bytes(data)


@pytest.mark.parametrize(("name", "words"), [
    ("data", "fails its checksum"), ("length", "fails its checksum"), ("cut", "is cut off"),
    ("cut header", "is cut off")])
def test_a_damaged_file_names_the_record_and_the_byte(folder, name, words):
    path = folder / "train-00001-of-00002.tfrecord"
    starts = offsets(path)
    path.write_bytes(damage(name, bytearray(path.read_bytes()), starts))
    sets = run(folder)
    problem, = problems(sets)
    assert (problem.level, problem.check, problem.shard, problem.record, problem.offset) == (
        "error", "framing", path.name, 1, starts[1])
    assert words in problem.message
    assert f"at byte {starts[1]} of {path.stat().st_size}" in problem.message
    assert problem.where == "train-00001-of-00002.tfrecord record 1"
    # What comes before it, and the other shard, are inspected.
    assert [len(report.facts) for report in sets[0].reports] == [2, 1]


def test_a_wrong_record_is_named_and_the_rest_is_inspected(folder):
    path = folder / "train-00000-of-00002.tfrecord"
    data = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    example = tf.train.SequenceExample.FromString(data[1])
    example.context.feature[schema.IMAGE_HEIGHT].int64_list.value[0] = 7
    records.write_shard(path, [data[0], example.SerializeToString()])
    sets = run(folder)
    problem, = problems(sets)
    assert problem.where == "train-00000-of-00002.tfrecord record 1 (id '1.mp4')"
    assert problem.offset == len(data[0]) + FRAMING
    assert inspection_summary.summarise(sets[0])["clips"] == 5
    assert problems(run(folder, limit=1)) == []
    written = json.loads(json.dumps(inspection_summary.report(sets)))
    assert written["splits"]["train"]["errors"] == 1
    assert written["problems"] == [{
        "level": "error", "check": "frame size", "message": problem.message, "split": "train",
        "shard": path.name, "record": 1, "id": "1.mp4", "offset": problem.offset,
        "where": problem.where}]


def test_compressed_shards_and_other_files(folder):
    path = folder / "train-00001-of-00002.tfrecord"
    path.write_bytes(gzip.compress(path.read_bytes()))
    problem, = problems(run(folder))
    assert "the file is compressed" in problem.message
    path.write_bytes(b"not a TFRecord at all, but some text")
    problem, = problems(run(folder))
    assert (problem.check, problem.record) == ("framing", 0)
    path.write_bytes(b"")
    problem, = problems(run(folder))
    assert (problem.level, problem.check, problem.where) == ("warning", "empty", path.name)


def test_missing_and_mixed_shards(folder):
    (folder / "train-00000-of-00002.tfrecord").unlink()
    (folder / ".train-00000-of-00002.1234.tmp.tfrecord").write_bytes(b"left by a crash")
    problem, = problems(run(folder))
    assert (problem.level, problem.check, problem.where) == ("error", "shards", "split 'train'")
    assert problem.message.startswith("train-00000-of-00002.tfrecord is missing (1 of 2 shards")
    # A shard that is named by itself is looked at by itself.
    assert problems(run(folder / "train-00001-of-00002.tfrecord")) == []
    shutil.copy(folder / "train-00001-of-00002.tfrecord", folder / "train-00000-of-00003.tfrecord")
    found = problems(run(folder))
    assert "shard sets of 2 .tfrecord and 3 .tfrecord files" in found[0].message


def test_ids_are_unique_in_a_split(folder):
    first, second = sorted(folder.glob("*.tfrecord"))
    shutil.copy(first, second)
    found = problems(run(folder))
    assert [(x.level, x.check, x.where) for x in found] == [
        ("error", "id", f"{second.name} record {i} (id '{i}.mp4')") for i in (0, 1)]
    assert f"has the id of {first.name} record 1" in found[1].message


def test_a_clip_in_two_splits_is_a_warning(folder):
    shutil.copy(folder / "train-00000-of-00002.tfrecord", folder / "test-00000-of-00001.tfrecord")
    problem, = problems(run(folder))
    assert (problem.level, problem.check) == ("warning", "id")
    assert problem.message.startswith("2 ids are in the split 'test' too")
    assert problems(run(folder, split="test")) == []


def test_a_split_without_labels_may_hold_the_clips_of_one_with_labels(folder):
    clip, _ = make_clip(4, 32, 32)

    def add(split):
        records.write_shard(folder / f"{split}-00000-of-00001.tfrecord", [
            records.encode_example(clip, example_id=f"{i}.mp4") for i in (0, 1)])

    add("before")  # By name before and after the labelled split.
    assert problems(run(folder)) == []
    add("unlabelled")
    problem, = problems(run(folder))
    assert problem.split == "unlabelled"
    assert problem.message.startswith("2 ids are in the split 'before' too")
    (folder / "before-00000-of-00001.tfrecord").unlink()
    shutil.copy(folder / "train-00000-of-00002.tfrecord", folder / "test-00000-of-00001.tfrecord")
    problem, = problems(run(folder))
    assert (problem.split, problem.message[:33]) == ("train", "2 ids are in the split 'test' too")


def test_labels_mean_the_same_in_all_splits(folder):
    clip, _ = make_clip(4, 32, 32)
    records.write_shard(folder / "test-00000-of-00001.tfrecord", [records.encode_example(
        clip, example_id="other", label=0, label_name="walk")])
    problem, = problems(run(folder))
    assert problem.where == "test-00000-of-00001.tfrecord record 0 (id 'other')"
    assert "label 0 is 'walk' here, and 'run' in labels.txt" in problem.message
    (folder / schema.LABELS_FILE).unlink()
    found = problems(run(folder), "error")
    assert len(found) == 1
    assert found[0].check == "label"
    assert {x.check for x in problems(run(folder), "warning")} == {"labels"}
    (folder / schema.LABELS_FILE).write_text("run\nrun\n")
    assert "repeated line" in problems(run(folder))[0].message


def test_the_summary_counts_the_same(folder):
    shards = [{"name": f"train-0000{i}-of-00002.tfrecord", "clips": n}
              for i, n in enumerate((2, 3))]
    summary = {"complete": True, "converted": 4, "clips": 5, "frames": 51, "with_audio": 5,
               "with_flow": 5, "labelled": 5, "shards": shards}
    path = folder / schema.summary_name("train")
    path.write_text(json.dumps(summary))
    assert problems(run(folder)) == []
    path.write_text(json.dumps(summary | {"with_audio": 4}))
    problem, = problems(run(folder))
    assert (problem.level, problem.check) == ("error", "summary")
    assert "with_audio 4 there, 5 here" in problem.message
    path.write_text(json.dumps(summary | {"complete": False}))
    assert "not finished" in problems(run(folder))[0].message
    shards[1]["clips"] = 4
    path.write_text(json.dumps(summary))
    problem, = problems(run(folder))
    assert problem.where == "train-00001-of-00002.tfrecord"
    assert problems(run(folder, limit=1)) == []


def test_mostly_silent_sound_is_said_once_more(tmp_path):
    write(tmp_path, "train", [SIZES[:2]], level=0.0)
    found = problems(run(tmp_path))
    assert [(x.level, x.check) for x in found] == [
        ("warning", "mostly silent"), ("warning", "silent"), ("warning", "silent")]
    assert found[0].message.startswith("2 of 2 sounds are silent")


def test_shards_without_suffix_are_found(tmp_path):
    write(tmp_path, "hmdb", [SIZES[:1], SIZES[1:2]])
    for path in tmp_path.glob("*.tfrecord"):
        path.rename(path.with_suffix(""))
    found, = run(tmp_path)
    assert found.split == "hmdb"
    assert problems([found]) == []
    assert inspection_summary.summarise(found)["clips"] == 2
    (tmp_path / "hmdb-00001-of-00002").unlink()
    assert problems(run(tmp_path))[0].message.startswith("hmdb-00001-of-00002 is missing")


def test_nothing_to_inspect(folder, tmp_path):
    for source, split, words in ((tmp_path / "no", "", "does not exist"),
                                 (tmp_path, "", "holds no record shards"),
                                 (folder, "test", "no split 'test', only train")):
        with pytest.raises(UserError, match=words):
            inspection.find_sets([source], split)
