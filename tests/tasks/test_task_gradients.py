"""Which networks each loss trains: exactly those of the design's table."""

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.losses import LossSpace
from elo_tf.tasks.distillation import Distill

CONTRAST = {"rgb": "flow", "flow": "audio", "gray": "audio", "audio": "rgb"}
ALIGN = {"rgb": "audio", "flow": "rgb", "gray": "flow", "audio": "flow"}


def trained_by(name):
    first, kind, *_ = name.split("/")
    if first == "distill":
        return {"rgb"}
    partner = {"contrast": CONTRAST, "align": ALIGN}.get(kind, {}).get(first)
    return {first, partner} - {None}


@pytest.mark.parametrize("name", LossSpace().names)
def test_gradient_reaches_these_encoders_and_heads_only(name, measure, batch):
    norms = measure(batch, {name: 1.0}).norms
    assert all(np.isfinite(norm) for norm in norms.values())
    heads = {name} & set(norms)  # distillation has a projection only where widths differ
    reached = {group for group, norm in norms.items() if norm > 1e-5}
    assert reached == trained_by(name) | heads
    assert all(norm == 0 for group, norm in norms.items() if group not in reached)


def test_distillation_projects_where_widths_differ(measured):
    projected = {name for name in measured.norms if name.startswith("distill")}
    # In the tiny model RGB is 4, 8, 16, 32 wide and sound 64, 8, 8, 8.
    assert projected == {f"distill/audio/{site}" for site in ("block1", "block3", "embedding")}


class OneClip:
    """Activations given as tensors; all present."""

    def __init__(self, **activations):
        self._activations = activations

    def activation(self, modality, view, site="embedding"):
        return self._activations[modality]

    def present(self, modality, view="intact"):
        return tf.ones([2], tf.bool)


@pytest.mark.parametrize("stop", (True, False))
def test_the_teacher_learns_only_if_asked_to(stop):
    rgb, flow = tf.constant([[1.0, 2.0], [3.0, 4.0]]), tf.constant([[0.0, 2.0], [0.0, 0.0]])
    task = Distill("flow", "embedding", stop_gradient=stop)
    with tf.GradientTape() as tape:
        tape.watch([rgb, flow])
        loss = task.call(OneClip(rgb=rgb, flow=flow)).loss
    to_rgb, to_flow = tape.gradient(loss, [rgb, flow])
    np.testing.assert_allclose(loss, [1, 5], atol=1e-5)
    np.testing.assert_allclose(to_rgb, [[1, 0], [0.6, 0.8]], atol=1e-5)
    if stop:
        assert to_flow is None
    else:
        np.testing.assert_allclose(to_flow, -to_rgb)
