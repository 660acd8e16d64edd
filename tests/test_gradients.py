"""Saving memory changes no gradient: recomputed, view by view, part by part, in half precision."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.errors import UserError
from elo_tf.losses import LossSpace
from elo_tf.models.normalization import batch_norm
from elo_tf.pretraining import PretrainingModel

NAMES = ("rgb/shuffle", "rgb/predict", "flow/contrast", "gray/align", "audio/reverse",
         "flow/transfer", "distill/audio/block1", "distill/flow/embedding")
WEIGHTS = dict(zip((*NAMES, "flow/reconstruct"), (0.3, 1.0, 0.7, 0.4, 0.9, 0.2, 0.8, 0.6, 0.5),
                   strict=True))
# What depends on the other clips of the batch.
NEGATIVES = ("flow/contrast", "gray/align")
SOME = {"has_flow": (True, False, True, True, False, True, True, False),
        "has_audio": (False, True, True, False, True, True, True, True),
        "has_other": (True, True, False, True, False, True, True, True)}


def small_encoder(channels, name, audio=False, norm=True):
    """Four convolutions, a residual one among them."""
    convolution = tf.keras.layers.Conv2D if audio else tf.keras.layers.Conv3D
    normalise = batch_norm if norm else lambda name: tf.keras.layers.Activation("linear")
    inputs = tf.keras.Input((None, channels, 1) if audio else (None, None, None, channels))
    x, outputs = inputs, {}
    for block, width in enumerate((4, 6, 6, 8), start=1):
        stride = 1 if block == 3 else 2
        y = convolution(width, 3, stride, padding="same", use_bias=False, name=f"conv{block}")(x)
        y = normalise(f"norm{block}")(y)
        x = outputs[f"block{block}"] = tf.keras.layers.ReLU()(y + x if block == 3 else y)
    pool = tf.keras.layers.GlobalAveragePooling2D if audio else (
        tf.keras.layers.GlobalAveragePooling3D)
    outputs["embedding"] = pool(dtype="float32")(x)
    return tf.keras.Model(inputs, outputs, name=name)


@pytest.fixture(scope="module")
def step_of(tiny_clip, make_tiny_batch, two_replicas):
    """One step of SGD: the report, and all variables before and after it by name."""
    def run(*, norm, names=NAMES, only=None, devices=1, normalise=True, **options):
        strategy = two_replicas if devices == 2 else tf.distribute.MirroredStrategy(["CPU:0"])
        with strategy.scope():
            model = PretrainingModel(
                tiny_clip, LossSpace(normalise=normalise), names=names, skip_zero=False, seed=1,
                make_video_encoder=functools.partial(small_encoder, norm=norm),
                make_audio_encoder=functools.partial(small_encoder, audio=True, norm=norm),
                **options)
            model.check_batch_size(8)
            model.set_weights_by_name({
                name: WEIGHTS[name] * (only in (None, name)) for name in names})
            model.compile(optimizer=tf.keras.optimizers.legacy.SGD(0.1))
        def values():
            return {f"{i} {v.name}": v.numpy() for i, v in enumerate(model.variables)}
        before = values()
        batch = make_tiny_batch(21, **SOME)
        data = tf.data.Dataset.from_tensors(batch).map(lambda x: {
            k: tf.ensure_shape(v, [8, *v.shape[1:]]) for k, v in x.items()})
        iterator = iter(strategy.experimental_distribute_dataset(data.repeat()))
        report = model.make_train_function()(iterator)
        return {k: v.numpy() for k, v in report.items()}, before, values()

    return functools.lru_cache(None)(lambda **options: run(**options))


def plain(step_of, **options):
    return step_of(norm=options.pop("norm", False), **options)


def assert_same_step(one, other, tolerance=1e-4):
    """Reports, and every variable's change, within `tolerance` of the largest change."""
    (report, before, after), (other_report, _, other_after) = one, other
    for key in ("losses", "counts", "total", "gradient_norm"):
        np.testing.assert_allclose(other_report[key], report[key], rtol=tolerance, atol=1e-6,
                                   err_msg=key)
    for name, value in after.items():
        change = np.abs(value - before[name]).max()
        np.testing.assert_allclose(other_after[name], value, rtol=0,
                                   atol=tolerance * change + 1e-7, err_msg=name)


@pytest.mark.parametrize("recompute", ("units", "views", "both"))
def test_recomputing_changes_no_step(recompute, step_of):
    one = plain(step_of)
    other = step_of(norm=False, recompute=recompute)
    assert_same_step(one, other)
    np.testing.assert_allclose(other[0]["gradient_norms"], one[0]["gradient_norms"], rtol=1e-4)


def test_recomputing_moves_the_averages_of_batch_norm_once(step_of):
    one = step_of(norm=True)
    other = step_of(norm=True, recompute="units")
    assert_same_step(one, other)
    moved = [name for name in one[1] if "moving" in name and "variance" in name]
    assert len(moved) == 16
    for name in moved:  # From 1 by a tenth of the way, once.
        assert (other[2][name] != one[1][name]).all()
        np.testing.assert_allclose(other[2][name], one[2][name], rtol=1e-5)


def test_views_in_turn_move_the_averages_once_a_view(step_of, tiny_clip, make_tiny_batch):
    _, before, after = step_of(norm=True, recompute="views", names=("rgb/shuffle",))
    kernel = next(v for k, v in before.items() if "conv1/kernel" in k)
    mean = next(v for k, v in before.items() if "norm1/moving_mean" in k)
    from elo_tf.views.clip_views import ClipViews
    batch = {k: tf.constant(v) for k, v in make_tiny_batch(21, **SOME).items()}
    views = ClipViews(batch, tiny_clip, 1)
    for view in ("intact", "shuffled"):
        x = tf.nn.conv3d(views.view("rgb", view), kernel, [1, 2, 2, 2, 1], "SAME").numpy()
        mean = 0.9 * mean + 0.1 * x.mean((0, 1, 2, 3))
    np.testing.assert_allclose(
        next(v for k, v in after.items() if "norm1/moving_mean" in k), mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("devices", (1, 2))
def test_parts_of_a_batch_add_up(devices, step_of):
    names = tuple(name for name in NAMES if name not in NEGATIVES)
    one = step_of(norm=False, names=names, normalise=False)
    other = step_of(norm=False, names=names, normalise=False, devices=devices, accumulate=2)
    assert_same_step(one, other)


def test_parts_and_views_together_add_up(step_of):
    names = tuple(name for name in NAMES if name not in NEGATIVES)
    one = step_of(norm=False, names=names, normalise=False)
    other = step_of(norm=False, names=names, normalise=False, accumulate=4, recompute="both")
    assert_same_step(one, other)


@pytest.mark.parametrize("recompute", ("units", "views"))
def test_two_devices_recompute_as_one(recompute, step_of):
    names = ("rgb/shuffle", "flow/reconstruct")
    one = step_of(norm=True, names=names, recompute=recompute)
    other = step_of(norm=True, names=names, recompute=recompute, devices=2)
    _, before, after = one
    for name in [x for x in after if "moving_variance" in x]:
        del after[name]  # with Bessel's correction on one device, without it on two
    assert_same_step((one[0], before, after), other, tolerance=5e-3)


def test_a_tasks_gradient_is_that_of_its_loss_alone(step_of):
    """The norm in a sum of losses is the one that the loss has by itself."""
    together, _, _ = plain(step_of)
    assert (together["gradient_norms"] > 0).all()
    for name in ("rgb/predict", "flow/contrast"):
        alone, _, _ = step_of(norm=False, only=name)
        expected = np.where(np.array(NAMES) == name, together["gradient_norms"], 0)
        np.testing.assert_allclose(alone["gradient_norms"], expected, rtol=1e-4)


def test_the_norms_scale_with_the_weights_and_the_gradient_is_what_moves(step_of):
    report, before, after = plain(step_of)
    change = np.sqrt(sum(((after[k] - before[k]) ** 2).sum() for k in after))
    np.testing.assert_allclose(change, 0.1 * report["gradient_norm"], rtol=1e-3)


def test_two_devices_report_the_norms_of_one(step_of):
    one, _, _ = plain(step_of)
    other, _, _ = step_of(norm=False, devices=2)
    for key in ("gradient_norm", "gradient_norms"):
        np.testing.assert_allclose(other[key], one[key], rtol=1e-3, err_msg=key)


def test_half_precision_is_near_and_its_losses_are_whole(step_of):
    one = step_of(norm=True)
    other = step_of(norm=True, precision="mixed_bfloat16")
    assert tf.keras.mixed_precision.global_policy().name == "float32"
    for report, _, after in (one, other):
        assert all(v.dtype == np.float32 for v in after.values() if v.dtype.kind == "f")
        assert report["losses"].dtype == np.float32
    # Eight bits of mantissa: 2^-8 an operation.
    np.testing.assert_allclose(other[0]["losses"], one[0]["losses"], rtol=0.03)
    changes = [np.concatenate([(after[k] - before[k]).ravel() for k in after if "moving" not in k])
               for _, before, after in (one, other)]
    cosine = changes[0] @ changes[1] / np.linalg.norm(changes[0]) / np.linalg.norm(changes[1])
    assert cosine > 0.99
    assert (changes[0] != changes[1]).any()


def test_xla_makes_the_same_step(step_of):
    one = step_of(norm=True, names=NAMES[:2])
    other = step_of(norm=True, names=NAMES[:2], xla=True)
    assert_same_step(one, other, tolerance=1e-3)


@pytest.mark.parametrize("options, message", (
    ({"accumulate": 0}, "PretrainingModel.accumulate is 0; it must be 1 or more"),
    ({"accumulate": 3}, "batch_size of 8 cannot be split evenly over 1 device.*accumulate = 3"),
    ({"xla": True, "devices": 2}, "XLA cannot compile batch normalisation over 2 devices"),
))
def test_options_that_cannot_be_are_refused(options, message, step_of):
    with pytest.raises(UserError, match=message):
        step_of(norm=False, names=NAMES[:1], **options)
