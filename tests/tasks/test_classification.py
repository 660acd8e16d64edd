"""The supervised task against NumPy, alone and mixed with another."""

import gin
import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data import schema
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError
from elo_tf.losses import LossSpace, global_shares
from elo_tf.tasks.classification import Classify
from elo_tf.tasks.ordering import Shuffle
from elo_tf.training import final
from elo_tf.views.clip_views import ClipViews

LABELS = [2, -1, 0, 4, -1, 1, 3, 7]  # of five classes; the last is none of them
NAMES = ("rgb/shuffle", "rgb/classify")


@pytest.fixture(scope="module")
def found(make_tiny_model, make_tiny_batch, tiny_clip):
    """The model, the features of a batch, the task's output, and its gradients."""
    gin.bind_parameter("Classify.classes", 5)
    space = LossSpace((Shuffle, gin.get_configurable(Classify)))
    model = make_tiny_model(names=NAMES, space=space)
    batch = make_tiny_batch(3) | {"label": np.array(LABELS)}
    batch = {name: tf.constant(value) for name, value in batch.items()}
    with tf.GradientTape() as tape:
        encoded = model.encode(ClipViews(batch, tiny_clip, 1), training=True)
        features = encoded.activation("rgb", "intact")
        outputs = [task(encoded) for task in model.tasks]
        counts = tf.reduce_sum(tf.cast(tf.stack([o.mask for o in outputs]), tf.float32), axis=1)
        shares = global_shares(outputs, counts)
        own = shares[1]
    gradient = tape.gradient(own, features)
    return model, encoded, features.numpy(), outputs, shares.numpy(), gradient.numpy()


def test_loss_and_accuracy_are_those_of_numpy(found):
    model, encoded, features, outputs, shares, gradient = found
    assert model.names == NAMES
    task, output = model.tasks[1], outputs[1]
    kernel, bias = (x.numpy().astype(np.float64) for x in task.classifier.weights)
    assert kernel.shape == (features.shape[1], 5)
    logits = features.astype(np.float64) @ kernel + bias
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    labelled = np.array([0, 2, 3, 5, 6])
    assert np.flatnonzero(output.mask).tolist() == labelled.tolist()
    right = np.array(LABELS)[labelled]
    losses = -np.log(probabilities[labelled, right])
    np.testing.assert_allclose(output.loss.numpy()[labelled], losses, rtol=1e-5)
    assert np.all(np.isfinite(output.loss))
    np.testing.assert_allclose(output.trivial, np.log(5), rtol=1e-6)
    assert shares[1] == pytest.approx(losses.mean() / np.log(5), rel=1e-5)

    residual = probabilities.copy()
    residual[labelled, right] -= 1
    expected = np.zeros_like(features)
    expected[labelled] = (residual @ kernel.T)[labelled] / 5 / np.log(5)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)  # 0 for clips without a label

    guessed = probabilities.argmax(1)
    assert task.chance == 0.2
    assert task.accuracy(encoded).numpy()[labelled].tolist() == (
        guessed[labelled] == right).astype(float).tolist()


def test_the_other_task_counts_clips_without_labels_too(found):
    assert found[3][0].mask.numpy().all()


def test_a_class_that_the_task_lacks_is_found_before_training(tmp_path):
    def pretrain(records):
        space = LossSpace((gin.get_configurable(Classify),))
        final.pretrain(str(tmp_path / "run"), records=records, clip=None, space=space,
                       loss_weights={"rgb/classify": 1.0})

    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, names in zip(folders, ("abc", "acb"), strict=True):
        folder.mkdir()
        (folder / schema.LABELS_FILE).write_text("".join(f"{x}\n" for x in names))
    gin.bind_parameter("Classify.classes", 2)
    with pytest.raises(UserError, match="Classify.classes is 2, but the records' label map has 3"):
        pretrain(Records(str(folders[0])))
    gin.clear_config()
    with pytest.raises(UserError, match="no folder|has no records of split"):
        pretrain(Records(str(folders[0])))  # 400 classes: what is missed is the records
    with pytest.raises(UserError, match="rgb/classify needs labels, but .* maps differ"):
        pretrain(MixedRecords(tuple(Records(str(x)) for x in folders)))
    with pytest.raises(UserError, match="Classify.classes is 1; it must be 2 or more"):
        Classify(classes=1)
