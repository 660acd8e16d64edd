"""A step that skips losses of weight 0 is that of a model which was built without them."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.losses import LossSpace
from elo_tf.models.normalization import batch_norm
from elo_tf.pretraining import PretrainingModel
from elo_tf.tasks.ordering import Shuffle
from elo_tf.tasks.prediction import Predict
from elo_tf.tasks.reconstruction import Reconstruct
from elo_tf.training.optimization import create_slots
from elo_tf.views.augmentation import Augmentation

NAMES = LossSpace().names
SOME = (True, False, True, True, False, True, True, False)
NO = (False,) * 8


def small_encoder(channels, name, audio=False):
    """Four convolutions with batch normalisation."""
    convolution = tf.keras.layers.Conv2D if audio else tf.keras.layers.Conv3D
    inputs = tf.keras.Input((None, channels, 1) if audio else (None, None, None, channels))
    x, outputs = inputs, {}
    for block, width in enumerate((4, 6, 6, 8), start=1):
        x = convolution(width, 3, 2, padding="same", use_bias=False, name=f"conv{block}")(x)
        x = outputs[f"block{block}"] = tf.nn.relu(batch_norm(f"norm{block}")(x))
    outputs["embedding"] = tf.reduce_mean(x, list(range(1, x.shape.rank - 1)))
    return tf.keras.Model(inputs, outputs, name=name)


class Trainer:
    """A model, its compiled step, and its variables by the part that they belong to."""

    def __init__(self, clip, space, names=None, **options):
        self.model = PretrainingModel(
            clip, space, names=names, make_video_encoder=small_encoder,
            make_audio_encoder=functools.partial(small_encoder, audio=True), **options)
        # An epsilon as large as the gradients: the step then grows with them, as well as SGD's.
        self.model.compile(optimizer=tf.keras.optimizers.legacy.Adam(
            0.05, epsilon=0.1, global_clipnorm=1.0))
        create_slots(self.model.optimizer, self.model.trainable_variables)
        self.variables = {
            f"{part.name} {i}": v for part in (*self.model.encoders.values(), *self.model.tasks)
            for i, v in enumerate(part.variables)}
        self.initial = self.values()
        self.slots = [(v, v.numpy()) for v in self.model.optimizer.variables()]
        self.step = tf.function(self.model.train_step)

    def values(self):
        return {name: v.numpy() for name, v in self.variables.items()}

    def train(self, weights, batches, start=None):
        """Reports of steps from the initial variables, or from those of another model."""
        for variable, value in self.slots:
            variable.assign(value)
        for name, variable in self.variables.items():
            variable.assign((start or self.initial)[name])
        self.model.set_weights_by_name(weights)
        reports = [self.step({k: tf.constant(v) for k, v in batch.items()}) for batch in batches]
        return [{k: v.numpy() for k, v in report.items()} for report in reports]


@pytest.fixture(scope="module")
def whole(tiny_clip):
    return Trainer(tiny_clip, LossSpace())


def assert_equals_pruned(trainer, clip, space, active, batches, **options):
    """Reports and all variables, after two steps, of a model of all and of one of some losses."""
    names = tuple(name for name in space.names if name in active)
    generator = np.random.Generator(np.random.PCG64(len(names)))
    weights = {name: generator.uniform(0.1, 1) for name in names}
    pruned = Trainer(clip, space, names, skip_zero=False, **options)
    dead = dict.fromkeys(space.names, 0.01)  # in the dead zone
    reports = trainer.train(dead | weights, batches)
    expected = pruned.train(weights, batches, start=trainer.initial)

    mine = np.array([name in active for name in space.names])
    for report, wanted in zip(reports, expected, strict=True):
        for key in ("losses", "counts", "gradient_norms"):
            np.testing.assert_allclose(report[key][mine], wanted[key], rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(report[key][~mine], 0)
        for key in ("total", "gradient_norm"):
            np.testing.assert_allclose(report[key], wanted[key], rtol=1e-4)
    values, others = trainer.values(), pruned.values()
    for name, value in values.items():
        if name in others:
            change = np.abs(others[name] - trainer.initial[name]).max()
            np.testing.assert_allclose(value, others[name], rtol=0, atol=1e-3 * change + 1e-7,
                                       err_msg=name)
        else:
            np.testing.assert_array_equal(value, trainer.initial[name], err_msg=name)
    assert any((others[name] != trainer.initial[name]).any() for name in others)


HALF = tuple(np.random.Generator(np.random.PCG64(3)).permutation(NAMES)[:20])


@pytest.mark.parametrize("active, missing", (
    (HALF, {"has_flow": SOME, "has_audio": SOME[::-1], "has_other": SOME}),
    (tuple(name for name in NAMES if name.startswith("rgb/")), {}),
    (("gray/predict",), {}),  # RGB is there to make gray from, and is not encoded
    (("flow/transfer",), {"has_flow": SOME}),  # RGB is a target, and is not encoded
    (("audio/shuffle", "distill/audio/block2"), {"has_audio": NO}),  # one clip stands in
), ids=("half", "rgb", "one", "target", "none present"))
def test_a_step_is_that_of_the_model_of_the_active_losses(
        active, missing, whole, tiny_clip, make_tiny_batch):
    batches = [make_tiny_batch(31, **missing), make_tiny_batch(32, **missing)]
    assert_equals_pruned(whole, tiny_clip, LossSpace(), active, batches)
    assert whole.step.experimental_get_tracing_count() == 1


def test_without_any_weight_nothing_is_made(whole, make_tiny_batch):
    report, = whole.train(dict.fromkeys(NAMES, 0.0), [make_tiny_batch(33)])
    for value in report.values():
        np.testing.assert_array_equal(value, 0)
    for name, value in whole.values().items():
        np.testing.assert_array_equal(value, whole.initial[name])


def test_augmented_views_are_those_of_the_active_losses(tiny_clip, make_tiny_batch):
    """Blurred and masked views are made of others, in branches of their own."""
    space = LossSpace((Predict, Reconstruct, Shuffle))
    options = {"make_augmentation": functools.partial(
        Augmentation, crop_area=(0.3, 1.0), flip=0.5, contrast=0.4, blur=0.5, time_masks=1)}
    trainer = Trainer(tiny_clip, space, **options)
    for active in (("gray/shuffle", "audio/shuffle"), ("audio/predict", "flow/reconstruct")):
        assert_equals_pruned(trainer, tiny_clip, space, active,
                             [make_tiny_batch(34), make_tiny_batch(35)], **options)


@pytest.mark.parametrize("options, branches", (
    ({}, True), ({"skip_zero": False}, False), ({"names": ("rgb/shuffle",)}, True),
    ({"accumulate": 2}, False), ({"recompute": "views"}, False)))
def test_only_weights_that_change_are_branched_on(options, branches, tiny_clip, make_tiny_batch):
    trainer = Trainer(tiny_clip, LossSpace((Shuffle,)), **options)
    batch = {k: tf.TensorSpec(v.shape, v.dtype) for k, v in make_tiny_batch(36).items()}
    kinds = {op.type for op in trainer.step.get_concrete_function(batch).graph.get_operations()}
    assert bool(kinds & {"If", "StatelessIf"}) == branches
