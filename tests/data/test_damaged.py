"""Damaged records: named where they are an error, counted where they are skipped."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data import pipeline, schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError
from elo_tf.training.devices import distribute

SPEC = ClipSpec(frames=2, next_frames=1, fps=5.0, size=16, crop=1.0, mel_bins=16)
SPLIT = "unlabelled"


def shard(folder, index):
    return folder / schema.shard_name(SPLIT, index, 3)


def rewrite(path, change):
    """Applies `change(number, SequenceExample)` -> bytes to the records of a shard."""
    examples = [x.numpy() for x in tf.data.TFRecordDataset(str(path))]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, example in enumerate(examples):
            writer.write(change(number, tf.train.SequenceExample.FromString(example)))


def without_picture(example):
    """The record with JPEGs that end after their header."""
    for image in example.feature_lists.feature_list[schema.IMAGE_ENCODED].feature:
        image.bytes_list.value[0] = image.bytes_list.value[0][:-200]
    return example.SerializeToString()


@pytest.fixture(scope="module")
def spoilt(folder, tmp_path_factory):
    """The 24 records, but: record 2 of shard 0 is not decodable, record 5 of shard 1 is no record,
    and shard 2 is cut in its record 3."""
    spoilt = shutil.copytree(folder, tmp_path_factory.mktemp("spoilt") / "sämtliche 'Clips'")
    rewrite(shard(spoilt, 0), lambda number, example:
            without_picture(example) if number == 2 else example.SerializeToString())
    rewrite(shard(spoilt, 1), lambda number, example:
            b"\x0a\xffno record" if number == 5 else example.SerializeToString())
    lengths = [len(x.numpy()) + 16 for x in tf.data.TFRecordDataset(str(shard(spoilt, 2)))]
    with open(shard(spoilt, 2), "r+b") as file:
        file.truncate(sum(lengths[:3]) + 50)
    return spoilt


GOOD = {f"v{i:02}" for i in range(24)} - {"v06", "v16"} - {f"v{i:02}" for i in range(11, 24, 3)}


def check_tally(records, folder):
    assert records.skipped.records == {(str(shard(folder, 0)), 2), (str(shard(folder, 1)), 5)}
    assert records.skipped.cut == {str(shard(folder, 2)): 3}
    assert len(records.skipped) == 3


@pytest.mark.parametrize("part", ["all", "fit"])
def test_testing_skips_and_counts(spoilt, folder, part):
    records = Records(str(spoilt), on_corrupt="skip", heldout_percent=1)
    for _ in range(2):  # what is found again is not counted again
        with pipeline.reading(records, SPLIT):
            batches = list(pipeline.testing_clips(records, SPLIT, SPEC, batch_size=5, part=part,
                                                  windows=2).as_numpy_iterator())
        ids = [x.decode() for batch in batches for x in batch["id"]]
        assert ids[::2] == ids[1::2]  # no view of a damaged record is left
        assert set(ids) <= GOOD and len(ids) >= 2 * (len(GOOD) - 2 if part == "fit" else len(GOOD))
        check_tally(records, spoilt)
    assert not Records(str(folder), on_corrupt="skip").skipped


def test_a_view_that_cannot_be_decoded_takes_the_others_along(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)

    def last_shown_frame_lost(number, example):
        if number == 1:
            images = example.feature_lists.feature_list[schema.IMAGE_ENCODED].feature
            images[-2].bytes_list.value[0] = b"no picture"
        return example.SerializeToString()

    rewrite(shard(tmp_path, 0), last_shown_frame_lost)
    records = Records(str(tmp_path), on_corrupt="skip")
    batches = list(pipeline.testing_clips(records, SPLIT, SPEC, batch_size=6, windows=3,
                                          modalities=("rgb",)).as_numpy_iterator())
    ids = [x.decode() for batch in batches for x in batch["id"]]
    assert "v03" not in ids and len(ids) == 3 * 23 and ids[::3] == ids[1::3] == ids[2::3]
    assert records.skipped.records == {(str(shard(tmp_path, 0)), 1)}


def read(records, batches, **options):
    clips = pipeline.training_clips(records, SPLIT, SPEC, batch_size=4, seed=1, device_only=False,
                                    modalities=("rgb",), other=False, **options)
    return list(clips.take(batches).as_numpy_iterator())


def test_training_skips_counts_and_resumes(spoilt):
    records = Records(str(spoilt), on_corrupt="skip")
    batches = read(records, 12)
    assert {x.decode() for batch in batches for x in batch["id"]} == GOOD
    check_tally(records, spoilt)
    # A position is that of the record, decodable or not.
    index = np.concatenate([batch["index"] for batch in batches])
    gaps = set(range(index.max())) - set(index.tolist())
    assert 3 <= len(gaps) <= 6  # two of the 18 records of an epoch that can be read, of 3 epochs
    # A resumed run reads what it would have read: no clip again, and none left out.
    for mine, other in zip(read(records, 4, start_step=5), batches[5:9], strict=True):
        for name in ("index", "rgb"):
            assert np.array_equal(mine[name], other[name])


def fails(records, match, read_all):
    with pytest.raises(UserError, match=match) as caught, pipeline.reading(records, SPLIT):
        read_all()
    assert "\n" not in caught.value.message and "'Clips'" in caught.value.message


def test_errors_name_the_record_and_the_mend(spoilt, tmp_path):
    def only(*shards):
        folder = tmp_path / f"{shards} 'Clips'"
        shutil.copytree(spoilt, folder)
        for index in {0, 1, 2} - set(shards):
            shard(folder, index).write_bytes(b"")
        return Records(str(folder))

    mend = ".*Records.on_corrupt = 'skip'"
    for shards, match in (((0,), "record number 2 of .*-00000-of-00003.tfrecord cannot be decoded"),
                          ((1,), "record number 5 of .*-00001-of-00003.tfrecord cannot be decoded"),
                          ((2,), "record number 3 of .*-00002-of-00003.tfrecord and what follows")):
        records = only(*shards)
        fails(records, match + mend, lambda records=records: read(records, 12))
    records = MixedRecords([only(0, 1), only(0, 2)])
    fails(records, "record number . of .*-of-00003.tfrecord", lambda: read(records, 12))


def test_training_by_keras_fails_in_one_sentence(spoilt):
    records = Records(str(spoilt))
    clips = pipeline.training_clips(records, SPLIT, SPEC, batch_size=4, seed=1,
                                    modalities=("rgb",), other=False)

    class Model(tf.keras.Model):
        def train_step(self, data):
            return {"mean": tf.reduce_mean(tf.cast(data["rgb"], tf.float32))}

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = Model()
        model.compile()
    fails(records, "record number . of .*sämtliche 'Clips'.*unlabelled-0000",
          lambda: model.fit(distribute(strategy, clips), steps_per_epoch=30, verbose=0))


def test_an_error_of_something_else_stays_what_it_is(folder):
    with (pytest.raises(tf.errors.InvalidArgumentError, match="Incompatible shapes|required"),
          pipeline.reading(Records(str(folder)), SPLIT)):
        tf.add(tf.zeros([2]), tf.zeros([3]))


def test_a_source_that_does_not_skip_fails_in_a_mixture_with_one_that_does(spoilt, folder):
    good = Records(str(folder), on_corrupt="skip")
    read(MixedRecords([good, Records(str(folder))]), 3)
    mixed = MixedRecords([good, Records(str(spoilt))])
    fails(mixed, "record number", lambda: read(mixed, 20))


def test_a_set_of_damaged_records_only_is_refused(spoilt, tmp_path):
    shutil.copytree(spoilt, tmp_path, dirs_exist_ok=True)
    for index in range(3):
        with open(shard(tmp_path, index), "r+b") as file:
            file.truncate(30)
    records = Records(str(tmp_path), on_corrupt="skip")
    with pytest.raises(UserError, match="has no clip that can be decoded in the 'all' part .*; "
                                        "convert the videos again$"):
        pipeline.require_clips(records, SPLIT, "all", SPEC)
    assert set(records.skipped.cut.values()) == {0}


def test_a_set_whose_pictures_are_all_damaged_is_refused(folder, tmp_path):
    """Training on it would look for a clip forever."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for index in range(3):
        rewrite(shard(tmp_path, index), lambda number, example, index=index: without_picture(
            example) if (index, number) != (1, 6) else example.SerializeToString())
    records = Records(str(tmp_path), on_corrupt="skip")
    with pytest.raises(UserError, match="has 1 clips .*, and k needs 2; convert"):
        pipeline.require_clips(records, SPLIT, "all", SPEC, least=2, why="k")
    assert len(records.skipped.records) == 23
    rewrite(shard(tmp_path, 1), lambda number, example: without_picture(example)
            if number == 6 else example.SerializeToString())
    records = Records(str(tmp_path), on_corrupt="skip")
    with pytest.raises(UserError, match="has no clip that can be decoded in the 'all' part"):
        pipeline.require_clips(records, SPLIT, "all", SPEC)
    assert len(records.skipped.records) == 24


def test_a_flipped_bit_is_found(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    with open(shard(tmp_path, 1), "r+b") as file:
        file.seek(2000)
        byte = file.read(1)[0]
        file.seek(2000)
        file.write(bytes([byte ^ 1]))
    records = Records(str(tmp_path), on_corrupt="skip")
    clips = pipeline.testing_clips(records, SPLIT, SPEC, batch_size=24, modalities=("rgb",))
    read_ids = {x.decode() for batch in clips.as_numpy_iterator() for x in batch["id"]}
    assert {f"v{i:02}" for i in range(24) if i % 3 != 1} <= read_ids
    (path, number), = records.skipped.cut.items()
    assert path == str(shard(tmp_path, 1)) and 0 <= number < 8
    assert len(read_ids) == 16 + number
