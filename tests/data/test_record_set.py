"""Which files make a record set, and what is said where they do not."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data import pipeline, record_set, records, schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError

SPEC = ClipSpec(frames=4, next_frames=2, fps=5.0, size=16, crop=1.0, mel_bins=16)


def test_what_cannot_be_read_is_named(folder, tmp_path, write_split):
    def fails(match, records_=None, split="unlabelled", part="all", **options):
        with pytest.raises(UserError, match=match):
            pipeline.require_clips(records_ or Records(str(tmp_path)), split, part, SPEC, **options)

    fails("no folder .*nowhere.*convert_videos", Records(str(tmp_path / "nowhere")))
    fails("no records of split 'unlabelled' .*no records at all")
    fails(r"no records of split 'train' \(it has: unlabelled\)", Records(str(folder)), "train")
    fails("no clip in the 'heldout' part of split 'unlabelled'.*heldout_percent .now 0",
          Records(str(folder), heldout_percent=0), part="heldout")
    fails("no clip in the 'fit' part", Records(str(folder), heldout_percent=100), part="fit")
    fails("has 24 clips in the 'all' part .*ZipfFitness.k = 30 needs 30; convert more videos$",
          Records(str(folder)),
          least=30, why="ZipfFitness.k = 30")
    names = [schema.shard_name("unlabelled", i, 3) for i in range(3)]
    for name in names[:2]:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    fails(r"lacks unlabelled-00002-of-00003.tfrecord \(1 of 3")
    (tmp_path / names[2]).write_bytes(b"\x05" * 100)
    (tmp_path / names[0]).write_bytes(b"\x05" * 100)
    fails("record number 0 of .*unlabelled-00000-of-00003.tfrecord and what follows it cannot be "
          "read; set Records.on_corrupt = 'skip'")
    write_split(tmp_path, "unlabelled", [], shards=2)
    fails("mixes the shard sets of unlabelled-00000-of-00002.* and unlabelled-00000-of-00003")
    assert Records(str(tmp_path)).splits() == ["unlabelled"]


def test_an_empty_split_is_named(tmp_path, write_split):
    write_split(tmp_path, "unlabelled", [], shards=2)
    with pytest.raises(UserError, match="no clip in the 'all' part of split 'unlabelled'"):
        pipeline.require_clips(Records(str(tmp_path)), "unlabelled", "all", SPEC)


@pytest.mark.parametrize("suffix", ["", ".tfrecords", ".tfrecord"])
def test_shards_may_have_any_usual_suffix(folder, tmp_path, suffix):
    for i in range(3):
        shutil.copy(folder / schema.shard_name("unlabelled", i, 3),
                    tmp_path / f"hmdb51_train-{i:05d}-of-00003{suffix}")
    (tmp_path / f"hmdb51_train-00000-of-00003{suffix}.part").write_bytes(b"")
    (tmp_path / "hmdb51_train_extra-00000-of-00001").write_bytes(b"")
    found = Records(str(tmp_path))
    assert found.splits() == ["hmdb51_train", "hmdb51_train_extra"]
    assert found.shards("hmdb51_train") == [
        str(tmp_path / f"hmdb51_train-{i:05d}-of-00003{suffix}") for i in range(3)]
    (tmp_path / f"hmdb51_train-00001-of-00003{suffix}").unlink()
    with pytest.raises(UserError, match=f"lacks hmdb51_train-00001-of-00003{suffix} .1 of 3"):
        found.shards("hmdb51_train")


def test_two_sets_of_one_split_are_refused(folder, tmp_path):
    for suffix in ("", ".tfrecord"):
        for i in range(3):
            shutil.copy(folder / schema.shard_name("unlabelled", i, 3),
                        tmp_path / f"unlabelled-{i:05d}-of-00003{suffix}")
    with pytest.raises(UserError, match="mixes the shard sets of unlabelled-00000-of-00003 and "
                                        "unlabelled-00000-of-00003.tfrecord; keep one"):
        Records(str(tmp_path)).shards("unlabelled")


def test_the_shuffle_buffer_is_bounded_in_megabytes(tmp_path):
    sizes = np.random.default_rng(0).integers(1, 3000, 700)
    for shard in range(2):
        records.write_shard(tmp_path / schema.shard_name("train", shard, 2),
                            [bytes(int(size)) for size in sizes[shard::2]])
    mean = record_set.mean_record_bytes(Records(str(tmp_path)).shards("train"))
    first = np.concatenate([sizes[shard::2][:256] for shard in range(2)])
    assert mean == first.mean()
    held = Records(str(tmp_path), shuffle_megabytes=0.1).shuffle_records("train")
    assert held == int(100_000 / first.mean())
    assert Records(str(tmp_path), shuffle_megabytes=1e-9).shuffle_records("train") == 1
    with open(tmp_path / schema.shard_name("train", 0, 2), "r+b") as file:
        file.truncate(5000)  # in the middle of a record
    left = [x for x in tf.data.TFRecordDataset(
        str(tmp_path / schema.shard_name("train", 0, 2))).ignore_errors()]
    assert record_set.mean_record_bytes([str(tmp_path / schema.shard_name("train", 0, 2))]) == (
        np.mean([len(x.numpy()) for x in left]))
    (tmp_path / schema.shard_name("train", 1, 2)).write_bytes(b"no records at all")
    assert record_set.mean_record_bytes([str(tmp_path / schema.shard_name("train", 1, 2))]) == 0


@pytest.mark.parametrize(("values", "match"), [
    ({"heldout_percent": 101}, "Records.heldout_percent is 101"),
    ({"on_corrupt": "ignore"}, "Records.on_corrupt is 'ignore'.*'error' or 'skip'"),
    ({"shuffle_megabytes": 0}, "Records.shuffle_megabytes is 0"),
    ({"frame_rate": -1.0}, "Records.frame_rate is -1.0"),
    ({"shuffle_megabytes": float("inf")}, "Records.shuffle_megabytes is inf"),
    ({"frame_rate": float("nan")}, "Records.frame_rate is nan; it must be positive, or 0"),
    ({"sample_rate": float("nan")}, "Records.sample_rate is nan"),
    ({"sample_rate": -1.0}, "Records.sample_rate is -1.0")])
def test_impossible_settings_are_refused(values, match):
    with pytest.raises(UserError, match=match):
        Records("somewhere", **values)


@pytest.mark.parametrize(("count", "weights", "match"), [
    (0, None, "MixedRecords.sources is empty"), (2, [1.0], "weights has 1 numbers for 2 sources"),
    (2, [1.0, -1.0], "weights are 0 or more"), (2, [0.0, 0.0], "one at least is positive"),
    (2, [1.0, float("nan")], "weights are 0 or more")])
def test_impossible_weights_are_refused(count, weights, match):
    with pytest.raises(UserError, match=match):
        MixedRecords([Records("somewhere")] * count, weights)
