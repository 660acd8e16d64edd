"""Learned weights: their gradient is that of the written formula, and they survive a restart."""

import functools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from elo_tf import uncertainty
from elo_tf.errors import UserError
from elo_tf.losses import LossSpace
from elo_tf.models.normalization import batch_norm
from elo_tf.pretraining import PretrainingModel

NAMES = ("rgb/shuffle", "gray/predict", "audio/reverse", "audio/contrast")
START = (0.0, 0.7, 0.3, 1.2)
RATE = 0.1


def test_the_gradient_is_that_of_the_formula():
    losses = tf.constant([0.3, 1.0, 2.5, 0.0, 0.7])
    counts = tf.constant([8.0, 3.0, 1.0, 0.0, 5.0])
    takes_part = tf.constant([True, True, True, True, False])
    s = tf.Variable([0.2, 0.0, -0.9, 1.0, 0.5])
    with tf.GradientTape() as tape:
        here = tf.cast(takes_part & (counts > 0), tf.float32)
        total = tf.reduce_sum(here * (tf.exp(-s) * losses + s))
    weights = uncertainty.learned_weights(s, takes_part)
    np.testing.assert_allclose(
        weights, np.exp(-s.numpy()) * takes_part.numpy(), rtol=1e-6)
    np.testing.assert_allclose(uncertainty.log_variance_gradient(weights, losses, counts),
                               tape.gradient(total, s), rtol=1e-6)


def test_where_losses_stand_still_the_weights_become_their_inverses():
    losses = np.array([0.05, 0.4, 1.0, 3.0], np.float32)
    s = tf.Variable(tf.zeros(4))
    optimizer = tf.keras.optimizers.legacy.Adam(0.05)
    for _ in range(400):
        weights = uncertainty.learned_weights(s, tf.ones(4, tf.bool))
        gradient = uncertainty.log_variance_gradient(weights, losses, tf.ones(4))
        optimizer.apply_gradients([(gradient, s)])
    np.testing.assert_allclose(s, np.log(losses), atol=0.01)


def small_encoder(channels, name, audio=False):
    """Two convolutions, of which blocks share one."""
    convolution = tf.keras.layers.Conv2D if audio else tf.keras.layers.Conv3D
    inputs = tf.keras.Input((None, channels, 1) if audio else (None, None, None, channels))
    x = tf.nn.relu(batch_norm()(convolution(4, 3, 2, use_bias=False, padding="same")(inputs)))
    y = tf.nn.relu(batch_norm()(convolution(6, 3, 2, use_bias=False, padding="same")(x)))
    outputs = {"block1": x, "block2": y, "block3": y, "block4": y,
               "embedding": tf.reduce_mean(y, list(range(1, y.shape.rank - 1)))}
    return tf.keras.Model(inputs, outputs, name=name)


@pytest.fixture(scope="module")
def step_of(tiny_clip, make_tiny_batch, two_replicas):
    """The report of one step of SGD, and all variables after it; of a model of all or of some."""
    def run(weights, weighting="uncertainty", names=NAMES, start=START, devices=1):
        strategy = two_replicas if devices == 2 else tf.distribute.MirroredStrategy(["CPU:0"])
        with strategy.scope():
            model = PretrainingModel(
                tiny_clip, LossSpace(), names=names, weighting=weighting,
                make_video_encoder=small_encoder,
                make_audio_encoder=functools.partial(small_encoder, audio=True))
            model.compile(optimizer=tf.keras.optimizers.legacy.SGD(RATE))
        model.set_weights_by_name(dict(zip(model.names, weights, strict=True)))
        if model.log_variances is not None:
            model.log_variances.assign(start)
        batch = make_tiny_batch(41, has_audio=(True, False) * 4)
        data = tf.data.Dataset.from_tensors(batch)
        report = model.make_train_function()(iter(
            strategy.experimental_distribute_dataset(data)))
        return model, {k: v.numpy() for k, v in report.items()}

    return run


def test_a_step_is_that_of_the_weights_and_moves_them_down_the_formula(step_of):
    model, report = step_of([0.5, 0.1, 0.0, 1.0])  # only whether they are 0 counts
    weights = np.exp(-np.array(START)) * [1, 1, 0, 1]
    np.testing.assert_allclose(report["weights"], weights, rtol=1e-6)
    np.testing.assert_allclose(report["total"], weights @ report["losses"], rtol=1e-5)
    moved = model.log_variances.numpy() - START
    np.testing.assert_allclose(
        moved, -RATE * (1 - weights * report["losses"]) * [1, 1, 0, 1], atol=1e-6)
    assert model.weights_by_name()["audio/reverse"] == 0
    np.testing.assert_allclose(list(model.weights_by_name().values()),
                               np.exp(-model.log_variances.numpy()) * [1, 1, 0, 1], rtol=1e-6)

    fixed, other = step_of(list(weights), "fixed")
    assert "weights" not in other and fixed.log_variances is None
    np.testing.assert_allclose(report["losses"], other["losses"], rtol=1e-6)
    np.testing.assert_allclose(report["gradient_norms"], other["gradient_norms"], rtol=1e-5)
    assert len(model.network_variables) == len(fixed.trainable_variables)
    for mine, theirs in zip(model.network_variables, fixed.trainable_variables, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)
    # The gradient that is clipped is that of everything that is learned.
    np.testing.assert_allclose(
        report["gradient_norm"], np.hypot(other["gradient_norm"], np.linalg.norm(moved / RATE)),
        rtol=1e-5)


def test_two_devices_learn_the_weights_of_one(step_of):
    weights = [1.0] * len(NAMES)
    (one, report), (two, double) = step_of(weights), step_of(weights, devices=2)
    np.testing.assert_allclose(double["losses"], report["losses"], rtol=1e-3)
    np.testing.assert_allclose(two.log_variances.numpy(), one.log_variances.numpy(), atol=1e-4)
    np.testing.assert_allclose(double["gradient_norm"], report["gradient_norm"], rtol=1e-3)


def test_another_way_of_weighing_is_refused(step_of):
    with pytest.raises(UserError, match="weighting is 'learned'; it must be 'fixed' or"):
        step_of([1.0] * len(NAMES), weighting="learned")


def test_a_restarted_training_learns_the_same_weights(workshop):
    command = workshop.pretrain("uncertainty", """
pretrain.loss_weights = {'rgb/shuffle': 0.5, 'audio/reconstruct': 0.1}
PretrainingModel.weighting = 'uncertainty'
pretrain.intra_op_threads = 1
""")
    run_dir = workshop.root / "learned"
    workshop.run(command("learned"))

    def lines():
        entries = map(json.loads, (run_dir / "losses.jsonl").read_text().splitlines())
        return [{k: v for k, v in entry.items() if k != "measured"} for entry in entries]

    steps = [entry for entry in lines() if "weights" in entry]
    assert [entry["step"] for entry in steps] == [2, 4, 6, 8, 10, 12]
    for entry in steps:
        total = sum(entry["weights"][n] * x for n, x in entry["losses"].items())
        np.testing.assert_allclose(entry["total"], total)
        np.testing.assert_allclose(
            list(entry["share"].values()),
            [entry["weights"][n] * x / total for n, x in entry["losses"].items()])
    assert all(w > 0 and w != 1 for w in steps[-1]["weights"].values())
    result = json.loads((run_dir / "heldout.json").read_text())
    assert result["weights"].keys() == {"rgb/shuffle", "audio/reconstruct"}
    assert all(w not in (1, steps[-1]["weights"][n]) for n, w in result["weights"].items())

    before = lines()
    last, = (path for path in (run_dir / "checkpoints").iterdir() if path.name.endswith("12"))
    shutil.rmtree(last)
    shutil.rmtree(run_dir / "encoder")
    workshop.run(command("learned"))
    assert lines() == before
    assert json.loads((run_dir / "heldout.json").read_text())["weights"] == result["weights"]
