"""The ids of a split without its frames, against those that reading the frames gives."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data import parsing, schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError
from elo_tf.evaluation.record_index import read_index

# Noise, and so several kilobytes.
FRAME = cv2.imencode(".jpg", np.random.default_rng(0).integers(
    0, 255, (64, 64, 3), dtype=np.uint8))[1].tobytes()


def record(label=None, *, frames=2, **names):
    example = tf.train.SequenceExample()
    for _ in range(frames):
        example.feature_lists.feature_list[schema.IMAGE_ENCODED].feature.add(
            ).bytes_list.value.append(FRAME)
    context = example.context.feature
    context[schema.IMAGE_FRAME_RATE].float_list.value.append(2.0)
    for key, value in names.items():
        if isinstance(value, int):
            context[key].int64_list.value.append(value)
        else:
            context[key].bytes_list.value.append(value)
    if label is not None:
        context[schema.LABEL_INDEX].int64_list.value.append(label)
    return example


def write(folder, shards):
    folder.mkdir(exist_ok=True)
    for number, examples in enumerate(shards):
        path = folder / schema.shard_name("test", number, len(shards))
        with tf.io.TFRecordWriter(str(path)) as writer:
            for example in examples:
                writer.write(example)
    return Records(str(folder))


def odd_records():
    """Records of other writers: without names, with a long context, with lists before it."""
    named = record(2, **{schema.EXAMPLE_ID: b"a.mp4", schema.MEDIA_ID: b"film"})
    alone = tf.train.SequenceExample(context=record(1, frames=0, **{
        schema.EXAMPLE_ID: "ü/b.mp4".encode()}).context)
    lists = tf.train.SequenceExample(feature_lists=named.feature_lists)
    return [named.SerializeToString(),
            lists.SerializeToString() + alone.SerializeToString(),
            record(0, **{schema.FILENAME: b"c.mp4",
                         schema.START_TIMESTAMP: 1_250_000}).SerializeToString(),
            record(**{"caption/string": b"x" * 9000}).SerializeToString(),
            record(3, **{"caption/string": b"y" * 200,
                         schema.EXAMPLE_ID: b"d.mp4"}).SerializeToString()]


def test_ids_and_labels_are_those_of_whole_records(tmp_path):
    first, second = odd_records()[:3], odd_records()[3:]
    records = write(tmp_path / "r", [first, second])
    index = read_index(records, "test")
    parsed = [parsing.parse(tf.constant(x), ClipSpec(), modalities=()) for x in first + second]
    assert list(index.ids) == [x["id"].numpy().decode() for x in parsed]
    assert list(index.labels) == [int(x["label"]) for x in parsed] == [2, 1, 0, -1, 3]
    assert index.ids[:3] == ("a.mp4", "ü/b.mp4", "c.mp4:1.250")
    assert index.ids[3].startswith("record ")
    assert index.videos == ("film", *index.ids[1:])
    both = MixedRecords((records, write(tmp_path / "s", [first])))
    assert read_index(both, "test").ids == index.ids + index.ids[:3]
    with pytest.raises(UserError, match="no records of split 'train'"):
        read_index(records, "train")


def test_of_a_large_record_one_block_is_read(tmp_path, monkeypatch):
    large = [record(0, frames=200, **{schema.EXAMPLE_ID: f"{i}".encode()}).SerializeToString()
             for i in range(5)]
    records = write(tmp_path / "r", [large])
    assert sum(map(len, large)) > 4e6
    read = []
    original = tf.train.SequenceExample.FromString
    monkeypatch.setattr(tf.train.SequenceExample, "FromString",
                        lambda content: read.append(len(content)) or original(content))
    assert read_index(records, "test").ids == ("0", "1", "2", "3", "4")
    assert sum(read) < 1000


def test_a_fingerprint_is_of_ids_labels_and_files_and_of_no_place(tmp_path):
    def fingerprint(name, shards):
        return read_index(write(tmp_path / name, shards), "test").fingerprint

    def named(label, name=b"a"):
        return record(label, **{schema.EXAMPLE_ID: name}).SerializeToString()

    first = fingerprint("a", [[named(0), named(1, b"b")]])
    assert fingerprint("b", [[named(0), named(1, b"b")]]) == first
    others = [[[named(1), named(1, b"b")]], [[named(0), named(1, b"c")]],
              [[named(0)], [named(1, b"b")]], [[named(0)]]]
    found = {fingerprint(f"c{number}", shards) for number, shards in enumerate(others)}
    assert len(found | {first}) == 5


@pytest.mark.parametrize("left", [7, 400, 30_000])
def test_of_a_truncated_shard_whole_records_are_left(tmp_path, left):
    records = write(tmp_path / "r", [[record(i, **{
        schema.EXAMPLE_ID: f"{i}".encode()}).SerializeToString() for i in range(4)]])
    path, = (tmp_path / "r").iterdir()
    content = path.read_bytes()
    size = len(content) // 4
    path.write_bytes(content[:left])
    assert read_index(records, "test").ids == tuple(map(str, range(left // size)))
    assert left // size in (0, 2)
