"""The learning rate in closed form, and what the clipping clips."""

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.training.optimization import create_slots, make_optimizer


@pytest.mark.parametrize(("steps", "warmup"), [(20, 0.05), (100, 0.1), (1000, 0.05), (3, 0.0)])
def test_learning_rate_rises_linearly_then_falls_like_a_cosine(steps, warmup):
    peak = 2e-3
    schedule = make_optimizer(steps, learning_rate=peak, warmup=warmup).learning_rate
    rates = np.array([float(schedule(step)) for step in range(steps + 1)])
    cosine = peak * 0.5 * (1 + np.cos(np.pi * np.arange(steps + 1) / steps))
    rising = max(round(steps * warmup), 1)
    least = peak / (rising + 1)
    line = least + np.arange(rising) / rising * (cosine[rising] - least)
    np.testing.assert_allclose(rates, np.concatenate([line, cosine[rising:]]), rtol=1e-5, atol=1e-9)
    assert rates[0] > 0  # no step is wasted
    assert (np.diff(rates[:rising + 1]) > 0).all() and (np.diff(rates[rising:]) < 0).all()


def first_moments(strategy, gradients):
    """Adam's first moments / 0.1 after one step: the gradients as the optimiser used them."""
    with strategy.scope():
        variables = [tf.Variable(tf.zeros(2)), tf.Variable(0.0)]
        optimizer = make_optimizer(100, clip_norm=1.0)
        create_slots(optimizer, variables)

    @tf.function
    def step():
        def replica():
            context = tf.distribute.get_replica_context()
            own = [tf.gather(tf.constant(g), context.replica_id_in_sync_group) for g in gradients]
            optimizer.apply_gradients(zip(own, variables, strict=True))

        strategy.run(replica)

    step()
    return [optimizer.get_slot(v, "m").numpy() * 10 for v in variables]


@pytest.mark.parametrize(("gradients", "norm"), [
    # Large on each device, but the devices nearly cancel: the sum is what is clipped.
    (([[30.0, 0.0], [-29.7, 0.4]], [0.0, 0.0]), 0.5),
    (([[2.0, 0.0], [1.0, 4.0]], [6.0, 6.0]), 13.0),
    (([[0.3, 0.0], [0.3, 0.0]], [0.4, 0.4]), 1.0)])
def test_the_norm_of_the_whole_gradient_is_clipped_once_it_is_summed(
        two_replicas, gradients, norm):
    summed = [np.sum(g, axis=0) for g in gradients]
    assert np.isclose(np.sqrt(sum(np.sum(g ** 2) for g in summed)), norm)
    used = first_moments(two_replicas, gradients)
    for mine, whole in zip(used, summed, strict=True):
        np.testing.assert_allclose(mine, whole / max(norm, 1.0), rtol=1e-4, atol=1e-6)
    alone = first_moments(
        tf.distribute.OneDeviceStrategy("CPU:0"), [np.array([g], np.float32) for g in summed])
    for mine, other in zip(used, alone, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)


def test_slots_exist_before_the_first_step():
    variables = [tf.Variable([1.0, 2.0])]
    optimizer = make_optimizer(10)
    create_slots(optimizer, variables)
    assert len(optimizer.variables()) == 3  # iterations and two moments
