import csv
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data import conversion, encoding, manifest, schema
from elo_tf.data.conversion import run
from elo_tf.data.conversion import state as conversion_state
from elo_tf.errors import UserError

OPTIONS = encoding.VideoOptions(fps=10, min_side=16)
NAMES = ["bend/1.mp4", "bend/2.mp4", "run/1.mp4", "run/2.mp4", "wave/1.mp4", "wave/2.mp4"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory, make_video, texture):
    """Six videos of three classes, the last one with sound, and three files that are none."""
    root = tmp_path_factory.mktemp("videos")
    for index, name in enumerate(NAMES):
        (root / name).parent.mkdir(exist_ok=True)
        frames = np.stack([texture(32, index)] * (4 + index))
        audio = np.sin(np.arange(44100) / 9) if name == NAMES[-1] else None
        make_video(root / name, frames, audio=audio)
    (root / "bend" / "text.mp4").write_text("no, video\n" * 9)
    (root / "empty.mp4").touch()
    (root / "list.txt").touch()
    return root


def convert(source, output, **options):
    return conversion.convert(conversion.Conversion(
        **{"source": str(source), "output": str(output), "split": "train", "shards": 2,
           "labels": "folders", "options": OPTIONS, "workers": 0} | options))


def contents(folder):
    """All files by name; of those that say how long it took, only the names."""
    return {path.name: b"" if path.suffix == ".json" else path.read_bytes()
            for path in sorted(folder.iterdir())}


def raw(folder, split="train"):
    return [record.numpy() for path in sorted(folder.glob(f"{split}-*.tfrecord"))
            for record in tf.data.TFRecordDataset(str(path))]


def examples(folder, split="train"):
    return [tf.io.parse_single_sequence_example(
        record, schema.context_spec(), schema.sequence_spec()) for record in raw(folder, split)]


def rejects(folder):
    with open(folder / "rejects.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def converted(videos, tmp_path_factory):
    output = tmp_path_factory.mktemp("records")
    return output, convert(videos, output)


def test_what_is_written(converted):
    output, summary = converted
    assert set(contents(output)) == {"labels.txt", "rejects.csv", "train.json", "summary.json",
                                     "train-00000-of-00002.tfrecord",
                                     "train-00001-of-00002.tfrecord"}
    assert (output / "labels.txt").read_text() == "bend\nrun\nwave\n"
    found = {context[schema.EXAMPLE_ID].numpy().decode(): (context, lists)
             for context, lists in examples(output)}
    assert sorted(found) == NAMES
    for index, name in enumerate(NAMES):
        context, lists = found[name]
        assert context[schema.LABEL_INDEX].values.numpy().tolist() == [index // 2]
        assert len(lists[schema.IMAGE_ENCODED]) == len(lists[schema.FLOW_ENCODED]) == 4 + index
        samples = 1600 * (4 + index) if name == NAMES[-1] else 0
        assert len(lists[schema.WAVEFORM].values) == samples
    saved = json.loads((output / "train.json").read_text())
    assert summary == saved | {"unchanged": False}
    shards = [output / f"train-0000{i}-of-00002.tfrecord" for i in range(2)]
    expected = {"complete": True, "videos": 8, "converted": 6, "rejected": 2, "clips": 6,
                "with_audio": 1, "silent": 0, "with_flow": 6, "labelled": 6, "frames": 39,
                "seconds": 3.9, "damaged": 0, "cut": 0, "fps": 10, "min_side": 16, "flow": "dis",
                "reasons": {"undecodable": 1, "empty_file": 1}, "incomplete": {},
                "source_fps": {"10": 6}, "sizes": {"16x16": 6},
                "bytes": sum(path.stat().st_size for path in shards) - 16 * 6,
                "largest_record": max(map(len, raw(output)))}
    assert expected.items() <= saved.items()
    assert sum(shard["bytes"] for shard in saved["shards"]) == saved["bytes"]
    assert [shard["clips"] for shard in saved["shards"]] == [
        len(list(tf.data.TFRecordDataset(str(path)))) for path in shards]


def test_rejects_give_path_split_reason_and_detail(converted):
    rows = rejects(converted[0])
    assert [(row["path"], row["split"], row["reason"]) for row in rows] == [
        ("bend/text.mp4", "train", "undecodable"), ("empty.mp4", "train", "empty_file")]
    assert all(row["detail"] for row in rows)


def test_workers_do_not_change_the_bytes(videos, converted, tmp_path):
    for workers in (1, 2, 3):
        convert(videos, tmp_path / str(workers), workers=workers)
        assert contents(tmp_path / str(workers)) == contents(converted[0])


def test_the_same_command_does_nothing(videos, converted):
    before = contents(converted[0])
    summary = convert(videos, converted[0])
    assert summary["unchanged"]
    assert summary["converted"] == 6
    assert contents(converted[0]) == before


def test_other_settings_are_refused_by_name(videos, converted):
    before = contents(converted[0])
    other = encoding.VideoOptions(fps=5, min_side=16, flow="none")
    with pytest.raises(UserError) as error:
        convert(videos, converted[0], options=other, shards=3)
    for words in ("fps: 10 there, 5 asked", "flow: dis there, none", "shards: 2 there, 3"):
        assert words in str(error.value)
    assert "min_side" not in str(error.value)
    with pytest.raises(UserError, match="videos: 8"):
        convert(videos / "run", converted[0], labels="none")
    assert contents(converted[0]) == before


def test_an_interrupted_conversion_goes_on(videos, converted, tmp_path, monkeypatch):
    original = conversion_state.SplitState.add

    def interrupted(*arguments):
        original(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion_state.SplitState, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(videos, tmp_path, workers=1)
    monkeypatch.undo()
    assert not json.loads((tmp_path / "train.json").read_text())["complete"]
    first = tmp_path / "train-00000-of-00002.tfrecord"
    assert [path.name for path in tmp_path.glob("*.tfrecord")] == [first.name]
    time = first.stat().st_mtime_ns
    convert(videos, tmp_path)
    assert first.stat().st_mtime_ns == time
    assert contents(tmp_path) == contents(converted[0])
    first.unlink()  # A lost shard is made again, and one that lost its end.
    assert not convert(videos, tmp_path)["unchanged"]
    assert contents(tmp_path) == contents(converted[0])
    first.write_bytes(first.read_bytes()[:-1])
    assert not convert(videos, tmp_path)["unchanged"]
    assert contents(tmp_path) == contents(converted[0])


def test_what_a_killed_conversion_left_is_removed_and_nothing_else(videos, tmp_path):
    ours = [".train-00000-of-00002.77.tmp.tfrecord", ".train.77.tmp.json"]
    others = [".train-2-00000-of-00002.77.tmp.tfrecord", ".test-00001-of-00002.8.tmp.tfrecord",
              ".notes.tmp.txt"]
    for name in ours + others:
        (tmp_path / name).write_bytes(b"half")
    convert(videos, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names.isdisjoint(ours) and names.issuperset(others)


def test_splits_share_labels_and_keep_their_rejects(videos, converted, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(converted[0], output)
    other = tmp_path / "other"
    (other / "wave").mkdir(parents=True)
    shutil.copy(videos / "wave/1.mp4", other / "wave")
    (other / "wave" / "bad.mp4").touch()
    convert(other, output, split="test", shards=1)
    context, _ = examples(output, "test")[0]
    assert context[schema.LABEL_INDEX].values.numpy().tolist() == [2]
    assert [(row["path"], row["split"]) for row in rejects(output)] == [
        ("bend/text.mp4", "train"), ("empty.mp4", "train"), ("wave/bad.mp4", "test")]
    (other / "wave").rename(other / "jump")
    with pytest.raises(UserError, match="'jump'"):
        convert(other, output, split="more", shards=1)


def test_a_csv_chooses_parts(videos, tmp_path):
    (tmp_path / "list.csv").write_text(
        f"video_path,start,end,label\n{videos}/wave/2.mp4,0.2,0.6,b\n{videos}/wave/1.mp4,,,a\n"
        "gone.mp4,,,b\n")
    summary = convert(tmp_path / "list.csv", tmp_path / "out", labels="none", shards=1)
    assert summary["reasons"] == {"missing_file": 1}
    lengths = {context[schema.EXAMPLE_ID].numpy().decode(): len(lists[schema.IMAGE_ENCODED])
               for context, lists in examples(tmp_path / "out")}
    assert lengths == {f"{videos}/wave/1.mp4": 8, f"{videos}/wave/2.mp4:0.2-0.6": 4}


def test_no_usable_video(tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(3):
        (tmp_path / "in" / f"{index}.mp4").touch()
    (tmp_path / "in" / "x.mp4").write_text("text")
    with pytest.raises(UserError) as error:
        convert(tmp_path / "in", tmp_path / "out", labels="none")
    assert str(tmp_path / "in") in str(error.value)
    assert "empty_file (3)" in str(error.value)
    assert set(contents(tmp_path / "out")) == {"rejects.csv"}
    assert len(rejects(tmp_path / "out")) == 4


def test_shards_mix_the_videos():
    entries = [manifest.Entry(id=f"{i:03d}", path="", relative="") for i in range(100)]
    parts = run._partition(entries, conversion.Conversion("", "", "train", shards=7))
    assert sorted(len(part) for part in parts) == [14] * 5 + [15] * 2
    assert sorted(entry.id for part in parts for entry in part) == [e.id for e in entries]
    for part in parts:
        assert 25 < np.mean([int(entry.id) for entry in part]) < 75
    again = run._partition(entries[::-1], conversion.Conversion("x", "y", "t", shards=7))
    assert again == parts
    other = run._partition(entries, conversion.Conversion("", "", "t", shards=7, seed=1))
    assert other != parts
    assert len(run._partition(entries, conversion.Conversion("", "", "t"))) == 10
    with pytest.raises(UserError, match="--shards=9, but there are only 3 videos.*--shards=3"):
        run._partition(entries[:3], conversion.Conversion("", "", "t", 9))


def test_strays_are_not_overwritten(videos, tmp_path):
    stray = tmp_path / "train-00000-of-00002.tfrecord"
    stray.touch()
    with pytest.raises(UserError, match=r"train\.json"):
        convert(videos, tmp_path)
    (tmp_path / "train.json").write_text("{}")
    with pytest.raises(UserError, match="not the summary"):
        convert(videos, tmp_path)
    with pytest.raises(UserError, match="is a file"):
        convert(videos, stray)


def test_real_and_hostile_files(shared_videos, tmp_path):
    summary = convert(shared_videos / "hostile", tmp_path, labels="none",
                      options=encoding.VideoOptions(fps=12, min_side=32), workers=2)
    assert {row["path"]: row["reason"] for row in rejects(tmp_path)} == {
        "one_frame.mp4": "too_short", "two_frames.mp4": "too_short",
        "text_named.mp4": "undecodable", "truncated_moov_at_end.mp4": "undecodable",
        "zero_length.mp4": "empty_file"}
    assert (summary["converted"], summary["with_audio"], summary["damaged"]) == (11, 10, 2)
