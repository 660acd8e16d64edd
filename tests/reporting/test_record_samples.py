"""Frames of given clips, read in one pass, against what the pipeline gives."""

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data import pipeline, records, schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.encoding import EncodedClip
from elo_tf.data.record_set import Records
from elo_tf.reporting import record_samples

SPEC = ClipSpec(frames=4, next_frames=2, fps=5.0, size=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two shards of three clips of noise at 40 x 48 pixels, one of which cannot be decoded."""
    folder = tmp_path_factory.mktemp("records")
    draw = np.random.Generator(np.random.PCG64(0))
    for shard in range(2):
        written = []
        for number in range(3):
            pixels = draw.integers(0, 256, [8, 40, 48, 3], np.uint8)
            images = [tf.io.encode_jpeg(x).numpy() for x in pixels]
            if (shard, number) == (1, 1):
                images = [x[:-200] for x in images]
            written.append(records.encode_example(
                EncodedClip(images=images, flows=None, audio=None, fps=5.0, start=0.0, height=40,
                            width=48), example_id=f"clip {shard}.{number}"))
        records.write_shard(folder / schema.shard_name("unlabelled", shard, 2), written)
    return folder


def test_frames_are_those_of_the_pipeline(folder):
    good = Records(str(folder), on_corrupt="skip")
    expected = {}
    for batch in pipeline.testing_clips(good, "unlabelled", SPEC, batch_size=1,
                                        modalities=("rgb",)):
        expected[batch["id"][0].numpy().decode()] = batch["rgb"][0].numpy()
    assert len(expected) == 5
    # One that is not there and one that cannot be decoded are left out.
    wanted = ["clip 1.2", "clip 0.1", "clip 1.1", "clip 7.7", "clip 0.1"]
    found = record_samples.read_frames(Records(str(folder)), "unlabelled",
                                       ClipSpec(frames=4, next_frames=2, fps=5.0, size=16),
                                       wanted, size=32)
    assert sorted(found) == ["clip 0.1", "clip 1.2"]
    for name, frames in found.items():
        np.testing.assert_array_equal(frames, expected[name])


def test_nothing_is_read_where_nothing_is_asked_for():
    assert record_samples.read_frames(Records("/no/such/folder"), "unlabelled", SPEC, []) == {}
