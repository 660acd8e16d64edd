import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from elo_tf import errors
from elo_tf.models import video_resnet
from elo_tf.training import encoder_files


def middle(inputs, outputs):
    return 27 * inputs * outputs // (9 * inputs + 3 * outputs)


def parameters_18_layers(once_a_block, classes=400):
    """Closed form for R(2+1)D-18 with a dense head: trainable parameters, batch norm included.

    `once_a_block` is torchvision's rule, where both convolutions of a block take the middle width
    of the first; otherwise each convolution has its own, as in the paper.
    """
    stem = 3 * 45 * 49 + 2 * 45 + 45 * 64 * 3 + 2 * 64
    total, inputs = stem + 512 * classes + classes, 64
    for outputs in (64, 128, 256, 512):
        for _ in range(2):
            first = middle(inputs, outputs)
            second = first if once_a_block else middle(outputs, outputs)
            total += 9 * inputs * first + 2 * first + 3 * first * outputs + 2 * outputs
            total += 9 * outputs * second + 2 * second + 3 * second * outputs + 2 * outputs
            if inputs != outputs:
                total += inputs * outputs + 2 * outputs
            inputs = outputs
    return total


def trainable(model):
    return sum(int(np.prod(x.shape)) for x in model.trainable_variables)


def test_parameters_of_the_18_layer_net_are_the_published_ones():
    """Ours is the paper's rule, 33.3 M; torchvision's 31,505,325 proves the closed form right."""
    assert parameters_18_layers(once_a_block=True) == 31_505_325
    model = video_resnet.video_encoder(3)
    classified = tf.keras.Model(model.input, tf.keras.layers.Dense(400)(model.output["embedding"]))
    assert trainable(classified) == parameters_18_layers(once_a_block=False) == 33_370_839
    norms = [x for x in model.layers if isinstance(x, tf.keras.layers.BatchNormalization)]
    assert trainable(classified) - sum(map(trainable, norms)) == 33_344_679


@pytest.mark.parametrize(
    "inputs, outputs, t, d, expected",
    [(64, 64, 3, 3, 144), (64, 128, 3, 3, 230), (512, 512, 3, 3, 1152), (3, 64, 3, 7, 83)],
)
def test_middle_width_keeps_the_parameters_of_the_3d_convolution(inputs, outputs, t, d, expected):
    width = video_resnet.middle_width(inputs, outputs, t, d)
    assert width == expected
    one_channel = d * d * inputs + t * outputs
    full = t * d * d * inputs * outputs
    assert full - one_channel < width * one_channel <= full


@pytest.mark.parametrize("depth", [10, 18, 34])
def test_depths_of_basic_units(depth):
    model = video_resnet.video_encoder(3, depth=depth, width=0.125)
    kernels = [x for x in model.layers if isinstance(x, tf.keras.layers.Conv3D)]
    # Stem and units: a spatial and a temporal half each; three projections at the strides.
    assert len([x for x in kernels if "shortcut" not in x.name]) == 2 * (depth - 1)
    assert len([x for x in kernels if "shortcut" in x.name]) == 3
    assert model.output["embedding"].shape[-1] == 64


def test_depth_50_has_bottlenecks():
    model = video_resnet.video_encoder(3, depth=50, width=0.125)
    kernels = [x for x in model.layers if isinstance(x, tf.keras.layers.Conv3D)]
    # 16 units of three convolutions, the middle one and the stem split in two; four projections.
    assert len(kernels) == 16 * 4 + 2 + 4
    assert model.output["embedding"].shape[-1] == 256
    assert [model.output[f"block{i}"].shape[-1] for i in range(1, 5)] == [32, 64, 128, 256]


def test_an_unknown_depth_is_refused():
    with pytest.raises(errors.UserError, match="depth = 19: choose one of 10, 18, 34, 50"):
        video_resnet.video_encoder(3, depth=19)


@pytest.mark.parametrize(
    "width, expected", [(1.0, 64), (0.125, 8), (0.01, 4), (0.1, 8), (1.5, 96), (0.09, 4)]
)
def test_scaled_width(width, expected):
    assert video_resnet.scaled_width(64, width) == expected


@pytest.fixture(scope="module")
def small():
    tf.keras.utils.set_random_seed(1)
    return video_resnet.video_encoder(2, depth=10, width=0.0625, name="flow")


@pytest.mark.parametrize("t, h, w", [(1, 1, 1), (2, 7, 5), (8, 32, 32), (9, 33, 20), (16, 40, 64)])
def test_any_length_and_size(small, t, h, w):
    outputs = small(tf.random.stateless_normal([2, t, h, w, 2], [1, 2]))
    assert list(outputs) == ["block1", "block2", "block3", "block4", "embedding"]

    def halved(size, times):
        return -(-size // 2**times)

    for stage in range(1, 5):
        width = max(4, 4 * 2 ** (stage - 1))
        assert outputs[f"block{stage}"].shape == (
            2, halved(t, stage - 1), halved(h, stage), halved(w, stage), width
        )
    pooled = outputs["block4"].numpy().mean(axis=(1, 2, 3))
    np.testing.assert_allclose(outputs["embedding"], pooled, atol=1e-5)


def test_gradients_are_finite_and_reach_every_variable(small):
    frames = tf.random.stateless_normal([4, 8, 32, 32, 2], [3, 4])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(small(frames, training=True)["embedding"] ** 2)
    for variable, gradient in zip(
        small.trainable_variables, tape.gradient(loss, small.trainable_variables), strict=True
    ):
        assert gradient is not None, variable.name
        assert np.isfinite(gradient).all(), variable.name


def test_the_same_seed_gives_the_same_network():
    weights = []
    for _ in range(2):
        tf.keras.utils.set_random_seed(7)
        weights.append(video_resnet.video_encoder(1, depth=10, width=0.0625).get_weights())
    for first, second in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, second)


def test_embedding_is_float32_in_mixed_precision():
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = video_resnet.video_encoder(3, depth=10, width=0.0625)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    assert model.output["block4"].dtype == tf.bfloat16
    assert model.output["embedding"].dtype == tf.float32


LOAD = """
import sys
import numpy as np
import tensorflow as tf
assert not any("elo_tf" in x for x in sys.modules)
model = tf.keras.models.load_model(sys.argv[1])
frames = np.load(sys.argv[2])
outputs = model(frames)
np.savez(sys.argv[3], **{name: value.numpy() for name, value in outputs.items()})
try:
    import elo_tf
except ImportError:
    print("without our code")
"""


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_saved_encoder_loads_without_this_package(tmp_path, replicas):
    devices = [f"CPU:{i}" for i in range(replicas)]
    with tf.distribute.MirroredStrategy(devices).scope():
        model = video_resnet.video_encoder(3, depth=10, width=0.0625)
    frames = np.random.Generator(np.random.PCG64(5)).normal(size=(2, 5, 21, 18, 3))
    frames = frames.astype(np.float32)
    expected = {name: value.numpy() for name, value in model(frames).items()}
    encoder_files.save_encoder(model, tmp_path)
    np.save(tmp_path / "frames.npy", frames)
    files = [str(tmp_path / x) for x in ("rgb.keras", "frames.npy", "outputs.npz")]
    # -I leaves out the current folder, the user's packages and PYTHONPATH.
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, *files],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("without our code")
    with np.load(files[2]) as loaded:
        assert sorted(loaded) == sorted(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(loaded[name], value, atol=1e-5)
