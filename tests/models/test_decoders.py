import numpy as np
import pytest
import tensorflow as tf

from elo_tf.models import decoders


@pytest.mark.parametrize("size", [4, 5, 7, 8, 20, 32, 33, 100])
@pytest.mark.parametrize("frames", [1, 2, 4, 5, 9])
def test_video_shapes(frames, size):
    model = decoders.video_decoder(frames, size, 3, width=8)
    model.build((None, 6))
    assert model.output_shape == (None, frames, size, size, 3)


def test_video_decoder_runs():
    model = decoders.video_decoder(5, 18, 2, width=8, name="flow_decoder")
    clip = model(tf.ones([2, 6]))
    assert clip.shape == (2, 5, 18, 18, 2)
    assert clip.dtype == tf.float32
    assert model.name == "flow_decoder"


@pytest.mark.parametrize("frames, mel_bins", [(1, 1), (3, 64), (50, 40), (100, 64), (201, 80)])
def test_audio_shapes(frames, mel_bins):
    model = decoders.audio_decoder(frames, mel_bins, width=8)
    assert model(tf.ones([2, 6])).shape == (2, frames, mel_bins)


def test_the_seed_is_the_smallest_that_doubles_to_the_size():
    assert decoders._seed_and_doublings(32, 4) == (4, 3)
    assert decoders._seed_and_doublings(20, 4) == (5, 2)
    assert decoders._seed_and_doublings(100, 4) == (7, 4)
    assert decoders._seed_and_doublings(3, 4) == (3, 0)
    for size in range(1, 300):
        seed, doublings = decoders._seed_and_doublings(size, 4)
        assert size <= seed * 2**doublings < size + 2**doublings
        assert min(size, 4) <= seed <= 8


def test_every_embedding_dimension_and_every_cell_is_connected():
    tf.keras.utils.set_random_seed(3)
    model = decoders.video_decoder(3, 9, 1, width=16)
    embedding = tf.random.stateless_normal([1, 4], [1, 2])
    with tf.GradientTape() as tape:
        tape.watch(embedding)
        clip = model(embedding)
    assert np.count_nonzero(clip) == clip.numpy().size
    gradient = tape.gradient(clip, embedding).numpy()
    assert np.isfinite(gradient).all() and (gradient != 0).all()


def test_a_few_clips_can_be_memorised():
    """An affine target of a two-dimensional embedding is learned: nothing is cut off."""
    tf.keras.utils.set_random_seed(4)
    codes = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    clips = tf.random.stateless_normal([2, 2, 8, 8, 1], [5, 6])
    model = decoders.video_decoder(2, 8, 1, width=32)
    model.compile(tf.keras.optimizers.Adam(0.01), "mse")
    history = model.fit(codes, clips, epochs=150, verbose=0).history["loss"]
    assert history[-1] < 0.05 * history[0]


def test_an_empty_grid_is_refused():
    with pytest.raises(ValueError, match="cannot decode"):
        decoders.video_decoder(0, 32, 3)


def test_classifier_is_one_float32_layer():
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = decoders.classifier(5, "motion")
        logits = layer(tf.ones([3, 7]))
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    assert logits.dtype == tf.float32 and logits.shape == (3, 5)
    assert [x.shape.as_list() for x in layer.variables] == [[7, 5], [5]]
