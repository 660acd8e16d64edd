"""How right each of the 28 losses' tasks is, against NumPy, from activations and the heads."""

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data.clip_spec import MODALITIES
from tests.tasks.test_task_values import ALIGN, CONTRAST, TRANSFER, decoding, dense, has

FAMILIES = ("reconstruct", "predict", "transfer", "shuffle", "reverse", "contrast", "align")


class Measured:
    """The views and activations that were measured, as tasks see them."""

    def __init__(self, measured):
        self._measured = measured

    def activation(self, modality, view, site="embedding"):
        return tf.constant(self._measured.activations[modality, view, site])

    def view(self, modality, view):
        return tf.constant(self._measured.views[modality, view])

    def present(self, modality, view="intact"):
        return tf.constant(self._measured.present[modality, view])


def explained(measured, task, family):
    target = {"reconstruct": (task.modality, "intact"), "predict": (task.modality, "next"),
              "transfer": (TRANSFER[task.modality], "intact")}[family]
    stride = 4 if (family, task.modality) == ("transfer", "audio") else 2
    loss, trivial, mask = decoding(measured, task, task.modality, target, stride)
    return [max(0, 1 - loss[i] / trivial[i]) if mask[i] else 0 for i in range(len(loss))], mask


def ordered(measured, task, family):
    view = {"shuffle": "shuffled", "reverse": "reversed"}[family]
    right = [dense(task.classifier, measured.activations[task.modality, v, "embedding"])[:, 0] > 0
             for v in ("intact", view)]
    return np.mean([~right[0], right[1]], axis=0), has(measured, (task.modality, view))


def nearest(measured, task, family):
    partner = CONTRAST[task.modality]
    one, other = (dense(layer, measured.activations[m, "intact", "embedding"])
                  for layer, m in ((task.anchor_projection, task.modality),
                                   (task.partner_projection, partner)))
    cosine = (one @ other.T) / np.linalg.norm(one, axis=1)[:, None] / np.linalg.norm(other, axis=1)
    mask = has(measured, (task.modality, "intact"), (partner, "intact"))
    return [np.mean([cosine[i, j] < cosine[i, i] for j in np.flatnonzero(mask) if j != i])
            for i in range(len(mask))], mask


def aligned(measured, task, family):
    partner = ALIGN[task.modality]

    def says(i, feature):
        pair = np.concatenate([measured.activations[task.modality, "intact", "embedding"][i],
                               feature])
        return dense(task.classifier, np.maximum(dense(task.hidden, pair), 0))[0] > 0

    intact = measured.activations[partner, "intact", "embedding"]
    mask = has(measured, (task.modality, "intact"), (partner, "intact"))
    time = mask & has(measured, (partner, "other_time"))
    found = []
    for i in range(len(mask)):
        following = [j for j in np.roll(np.arange(len(mask)), -i)[1:] if mask[j]]
        negatives = [intact[following[0]]]
        negatives += [measured.activations[partner, "other_time", "embedding"][i]] * int(time[i])
        found.append((says(i, intact[i]) + np.mean([not says(i, n) for n in negatives])) / 2)
    return found, mask


@pytest.mark.parametrize("family", FAMILIES)
def test_accuracy(family, model, measured):
    compute = {"shuffle": ordered, "reverse": ordered, "contrast": nearest, "align": aligned}
    for modality in MODALITIES:
        task = model.tasks[model.names.index(f"{modality}/{family}")]
        wanted, mask = compute.get(family, explained)(measured, task, family)
        accuracy = task.accuracy(Measured(measured)).numpy()
        assert accuracy.shape == mask.shape and mask.any()
        np.testing.assert_allclose(accuracy[mask], np.array(wanted)[mask], atol=1e-4)
        assert task.chance == (0.5 if family in compute else 0.0)
