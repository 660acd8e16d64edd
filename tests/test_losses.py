import numpy as np
import pytest
import tensorflow as tf

from elo_tf.errors import UserError
from elo_tf.losses import FAMILIES, LossSpace, global_shares
from elo_tf.tasks.task import Shapes, Task, TaskOutput

NAMES = (
    "rgb/reconstruct", "rgb/predict", "rgb/transfer", "rgb/shuffle", "rgb/reverse",
    "rgb/contrast", "rgb/align",
    "flow/reconstruct", "flow/predict", "flow/transfer", "flow/shuffle", "flow/reverse",
    "flow/contrast", "flow/align",
    "gray/reconstruct", "gray/predict", "gray/transfer", "gray/shuffle", "gray/reverse",
    "gray/contrast", "gray/align",
    "audio/reconstruct", "audio/predict", "audio/transfer", "audio/shuffle", "audio/reverse",
    "audio/contrast", "audio/align",
    "distill/flow/block1", "distill/flow/block2", "distill/flow/block3", "distill/flow/embedding",
    "distill/gray/block1", "distill/gray/block2", "distill/gray/block3", "distill/gray/embedding",
    "distill/audio/block1", "distill/audio/block2", "distill/audio/block3",
    "distill/audio/embedding",
)


def test_the_forty_names_in_order():
    assert LossSpace().names == NAMES
    assert len(set(NAMES)) == 40


def test_vector_and_dict_are_two_writings_of_the_same():
    space = LossSpace()
    weights = {name: i / 40 for i, name in enumerate(NAMES)}
    backwards = dict(reversed(weights.items()))
    vector = space.to_vector(backwards)
    assert vector.dtype == np.float64
    np.testing.assert_array_equal(vector, np.arange(40) / 40)
    assert space.to_dict(vector) == weights
    assert list(space.to_dict(vector)) == list(NAMES)
    assert all(type(value) is float for value in space.to_dict(vector).values())


def test_bounds_are_in_the_space():
    space = LossSpace()
    for value in (0.0, 1.0):
        np.testing.assert_array_equal(space.to_vector(dict.fromkeys(NAMES, value)), [value] * 40)


@pytest.mark.parametrize("change, message", (
    ({"rgb/colour": 0.5}, "unknown loss 'rgb/colour'"),
    ({"rgb/align": 1.0001}, "rgb/align is 1.0001"),
    ({"rgb/align": -1e-9}, "rgb/align is -1e-09"),
    ({"rgb/align": float("nan")}, "rgb/align is nan"),
))
def test_weights_that_are_refused(change, message):
    weights = {**dict.fromkeys(NAMES, 0.5), **change}
    for method in ("to_vector", "effective", "active"):
        with pytest.raises(UserError, match=message):
            getattr(LossSpace(), method)(weights)


def test_missing_weights_are_named():
    weights = dict.fromkeys(NAMES[2:], 0.5)
    with pytest.raises(UserError, match="lack rgb/reconstruct, rgb/predict$"):
        LossSpace().to_vector(weights)


@pytest.mark.parametrize("length", (0, 39, 41))
def test_vectors_of_another_length_are_refused(length):
    with pytest.raises(UserError, match=f"{length} loss weights were given for 40 losses"):
        LossSpace().to_dict([0.5] * length)


def test_the_dead_zone_ends_at_its_bound():
    space = LossSpace(dead_zone=0.1)
    weights = {"rgb/predict": 0.1, "rgb/align": 0.0999, "flow/shuffle": 0.0, "gray/align": 1.0}
    assert space.effective(weights) == {
        "rgb/predict": 0.1, "rgb/align": 0.0, "flow/shuffle": 0.0, "gray/align": 1.0}
    assert space.active(weights) == ("rgb/predict", "gray/align")
    assert LossSpace().active({"distill/audio/block1": 0.02, "rgb/predict": 0.3}) == (
        "rgb/predict", "distill/audio/block1")


def test_a_loss_without_weight_is_refused():
    with pytest.raises(UserError, match=r"no loss weight reaches 0\.02"):
        LossSpace().active(dict.fromkeys(NAMES, 0.01))


class Brightness(Task):
    """A newcomer's task: the square of a feature's sum."""

    family = "brightness"

    @property
    def encodes(self):
        return ((self.modality, "intact"),)

    def build_heads(self, shapes: Shapes) -> None:
        self.head = tf.keras.layers.Dense(1)
        self.head.build((None, shapes.widths[self.modality]["embedding"]))

    def call(self, encoded):
        value = self.head(encoded.activation(self.modality, "intact"))[:, 0]
        return TaskOutput(loss=value**2, mask=encoded.present(self.modality),
                          trivial=tf.ones_like(value))


def test_a_new_task_is_one_class_and_one_argument(make_tiny_model, make_tiny_batch):
    space = LossSpace(families=(*FAMILIES, Brightness))
    assert len(space.names) == 44
    assert set(space.names) - set(NAMES) == {
        f"{m}/brightness" for m in ("rgb", "flow", "gray", "audio")}
    assert space.names[7] == "rgb/brightness"
    assert tuple(n for n in space.names if n in NAMES) == NAMES

    model = make_tiny_model(names=("rgb/brightness",), space=space)
    report = model.test_step({k: tf.constant(v) for k, v in make_tiny_batch().items()})
    assert report["losses"].shape == (1,) and report["losses"][0] > 0 and report["counts"][0] == 8


def test_a_family_named_twice_is_refused():
    with pytest.raises(UserError, match="names a family twice"):
        LossSpace(families=(*FAMILIES, Brightness, Brightness))


def output(loss, mask, trivial):
    return TaskOutput(*(tf.constant(x) for x in (loss, mask, trivial)))


@pytest.mark.parametrize("normalise, floor, expected", (
    (False, 1e-3, [2.0, 0.0, 0.5]),
    (True, 1e-3, [0.5, 0.0, 500.0]),
    (True, 0.25, [0.5, 0.0, 2.0]),
))
def test_shares_are_means_over_valid_examples_divided_by_the_trivial_mean(
        normalise, floor, expected):
    outputs = [
        output([1.0, 3.0, 1e9], [True, True, False], [6.0, 2.0, 1e9]),
        output([1.0, 2.0, 3.0], [False] * 3, [1.0, 1.0, 1.0]),
        output([0.5, 0.5, 0.5], [True] * 3, [0.0, 0.0, 0.0]),
    ]
    counts = tf.constant([2.0, 0.0, 3.0])
    shares = global_shares(outputs, counts, normalise=normalise, floor=floor)
    np.testing.assert_allclose(shares, expected, rtol=1e-6)
    # A part of a batch that has twice as many.
    shares = global_shares(outputs, 2 * counts, normalise=normalise, floor=floor)
    np.testing.assert_allclose(shares, np.array(expected) / 2, rtol=1e-6)


def test_the_divisor_has_no_gradient():
    value = tf.constant([2.0, 4.0])
    with tf.GradientTape() as tape:
        tape.watch(value)
        output = TaskOutput(value, tf.constant([True, True]), 2 * value)
        share = global_shares([output], tf.constant([2.0]))[0]
    np.testing.assert_allclose(tape.gradient(share, value), [0.5 / 6, 0.5 / 6], rtol=1e-6)
