"""Encoders that are not trained: where their weights and statistics come from."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data import schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.record_set import Records
from elo_tf.errors import UserError
from elo_tf.models.video_resnet import video_encoder
from elo_tf.training import encoder_files
from elo_tf.training.initial import initial

CLIP = ClipSpec(frames=2, next_frames=1, size=16, crop=1.0, fps=4.0)
make_tiny = functools.partial(video_encoder, depth=10, width=0.0625)
MEAN = "stem_spatial_norm"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Sixteen still pictures of noise, without rates of their own."""
    folder = tmp_path_factory.mktemp("initial") / "records"
    folder.mkdir()
    generator = np.random.Generator(np.random.PCG64(1))
    with tf.io.TFRecordWriter(str(folder / schema.shard_name("unlabelled", 0, 1))) as writer:
        for number in range(16):
            example = tf.train.SequenceExample()
            picture = generator.integers(0, 256, [16, 16, 3], dtype=np.uint8)
            for _ in range(4):
                example.feature_lists.feature_list[schema.IMAGE_ENCODED].feature.add(
                    ).bytes_list.value.append(tf.io.encode_jpeg(picture).numpy())
            example.context.feature[schema.EXAMPLE_ID].bytes_list.value.append(b"%d" % number)
            writer.write(example.SerializeToString())
    return Records(str(folder), frame_rate=4.0)


def load(run_dir):
    return [encoder_files.load_encoder(run_dir / "encoder", name)
            for name in (encoder_files.TRAINED, encoder_files.UNTRAINED)]


def values(variables):
    return [x.numpy() for x in variables]


def same(one, other):
    return [np.array_equal(a, b) for a, b in zip(one, other, strict=True)]


def test_a_drawn_encoder_is_that_of_a_training_before_its_first_step(
        make_tiny_model, records, tmp_path):
    initial(str(tmp_path), clip=CLIP, make_encoder=make_tiny, records=records, batch_size=4, seed=3)
    trained, untrained = load(tmp_path)
    expected = make_tiny_model(["rgb/shuffle"], seed=3).encoders["rgb"]
    assert all(same(values(trained.trainable_variables), values(expected.trainable_variables)))
    assert all(same(trained.get_weights(), untrained.get_weights()))
    mean, variance = trained.get_layer(MEAN).get_weights()[2:]
    assert np.any(mean != 0) and np.all(variance != 1)
    assert encoder_files.load_clip(tmp_path / "encoder") == CLIP
    assert encoder_files.load_data(tmp_path / "encoder") == [], "it was trained on nothing"

    saved = tmp_path / "encoder" / encoder_files.TRAINED
    before = saved.stat().st_mtime_ns
    initial(str(tmp_path), clip=CLIP, make_encoder=make_tiny, seed=4)
    assert saved.stat().st_mtime_ns == before  # a finished run


def test_an_encoder_trained_elsewhere_is_kept_and_has_an_untrained_one_beside_it(
        records, tmp_path):
    def make(channels, name):
        encoder = make_tiny(channels, name=name)
        encoder.set_weights([np.full_like(x, 0.25) for x in encoder.get_weights()])
        return encoder

    initial(str(tmp_path), clip=CLIP, make_encoder=make, make_untrained=make_tiny,
            records=records, batch_size=4)
    trained, untrained = load(tmp_path)
    assert all(np.all(x == 0.25) for x in trained.get_weights())
    tf.keras.utils.set_random_seed(1000)
    drawn = values(make_tiny(3).trainable_variables)
    assert all(same(values(untrained.trainable_variables), drawn))
    assert np.all(untrained.get_layer(MEAN).moving_variance != 1)


@pytest.mark.parametrize("name", ["batch_size", "statistics_steps"])
def test_numbers_that_cannot_be_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=f"initial.{name} is 0; it must be 1 or more"):
        initial(str(tmp_path), clip=CLIP, **{name: 0})
