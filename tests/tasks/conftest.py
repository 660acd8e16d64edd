"""One tiny model with all forty losses, compiled once for all tests of tasks."""

import types

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.losses import global_shares
from elo_tf.views.clip_views import ClipViews

FLOW = (True, True, True, False, True, True, True, True)
AUDIO = (True, False, True, True, False, True, True, True)
OTHER = (False, True, False, True, True, True, True, True)


@pytest.fixture(scope="session")
def model(make_tiny_model):
    return make_tiny_model()


@pytest.fixture(scope="session")
def measure(model, tiny_clip):
    """Calls the tasks on a batch, under weights: all that goes in, comes out, and flows back.

    Returns an object with NumPy values: views, present and activations by key, outputs by loss
    name, shares and counts by loss name, and the norm of the gradient of the weighted sum of
    shares by encoder (`rgb`) and by loss name for the heads of a task.
    """
    groups = {m: encoder.trainable_variables for m, encoder in model.encoders.items()}
    groups.update((task.name, task.trainable_variables) for task in model.tasks
                  if task.trainable_variables)
    variables = [v for group in groups.values() for v in group]
    keys = [(m, v) for m, views in model._views.items() for v in views]
    targets = [(m, v) for m in model.encoders for v in ("intact", "next")]

    @tf.function
    def call(batch, weights):
        with tf.GradientTape() as tape:
            encoded = model.encode(ClipViews(batch, tiny_clip, 1), training=True)
            outputs = [task(encoded) for task in model.tasks]
            masks = [task.mask(encoded) for task in model.tasks]
            counts = tf.reduce_sum(tf.cast(tf.stack(masks), tf.float32), axis=1)
            shares = global_shares(outputs, counts)
            total = tf.tensordot(weights, shares, 1)
        gradients = iter(tape.gradient(total, variables, unconnected_gradients="zero"))
        norms = {name: tf.linalg.global_norm([next(gradients) for _ in group])
                 for name, group in groups.items()}
        sites = ("block1", "block2", "block3", "embedding")
        return {
            "views": {key: encoded.view(*key) for key in {*keys, *targets}},
            "present": {key: encoded.present(*key) for key in {*keys, *targets}},
            "activations": {(*key, s): encoded.activation(*key, s) for key in keys for s in sites},
            "outputs": dict(zip(model.names, outputs, strict=True)),
            "masks": dict(zip(model.names, masks, strict=True)),
            "shares": dict(zip(model.names, tf.unstack(shares), strict=True)),
            "counts": dict(zip(model.names, tf.unstack(counts), strict=True)),
            "norms": norms,
        }

    def run(batch, weights):
        vector = np.array([weights.get(name, 0.0) for name in model.names], np.float32)
        result = call({k: tf.constant(v) for k, v in batch.items()}, tf.constant(vector))
        return types.SimpleNamespace(**tf.nest.map_structure(lambda x: x.numpy(), result))

    run.traces = call.experimental_get_tracing_count
    return run


@pytest.fixture(scope="session")
def batch(make_tiny_batch):
    """Eight clips; some lack flow, sound, or another time."""
    return make_tiny_batch(3, has_flow=FLOW, has_audio=AUDIO, has_other=OTHER)


@pytest.fixture(scope="session")
def measured(measure, model, batch):
    """The batch under weights of one."""
    return measure(batch, dict.fromkeys(model.names, 1.0))
