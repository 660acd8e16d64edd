"""The optimisers against NumPy: schedule, clipping, decay, exclusions, devices and resuming."""

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.errors import UserError
from elo_tf.training.optimization import create_slots, make_optimizer

METHODS = ("adam", "adamw", "sgd", "lars")
# Decayed, and where LARS sets the rate: the first two, though the second has "bias" in its name.
SHAPES = {"block1_conv/kernel": (2, 3), "unbiased_norm_head/kernel": (3, 1), "head/bias": (3,),
          "stem_norm/gamma": (2,), "stem_norm/beta": (2,)}
STEPS = 4
# To the end of the warm-up and beyond, with every second gradient longer than the clipping's 1.
TOTAL, WARMUP = 6, 2
GRADIENT_SCALES = (3.0, 0.1, 2.0, 0.05)
# That of LARS is still times 0.001.
LEARNING_RATES = {"adam": 0.02, "adamw": 0.02, "sgd": 0.02, "lars": 4.0}
BATCH, REFERENCE_BATCH = 24, 8
MOMENTUM, WEIGHT_DECAY = 0.8, 0.3


def closed_form(peak, steps, rising):
    """The learning rates of all steps: linear for `rising` steps, then the cosine."""
    cosine = peak * 0.5 * (1 + np.cos(np.pi * np.arange(steps + 1) / steps))
    least = peak / (rising + 1)
    line = least + np.arange(rising) / rising * (cosine[rising] - least)
    return np.concatenate([line, cosine[rising:]])


def rates_of(optimizer, steps):
    return np.array([float(optimizer.learning_rate(step)) for step in range(steps + 1)])


@pytest.mark.parametrize(("steps", "warmup"), [(20, 0.05), (100, 0.1), (1000, 0.05), (3, 0.0)])
def test_learning_rate_rises_linearly_then_falls_like_a_cosine(steps, warmup):
    peak = 2e-3
    rates = rates_of(make_optimizer(steps, learning_rate=peak, warmup=warmup), steps)
    rising = max(round(steps * warmup), 1)
    np.testing.assert_allclose(rates, closed_form(peak, steps, rising), rtol=1e-5, atol=1e-9)
    assert rates[0] > 0  # no step is wasted
    assert (np.diff(rates[:rising + 1]) > 0).all() and (np.diff(rates[rising:]) < 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_the_learning_rate_grows_in_proportion_to_the_batch(name):
    optimizer = make_optimizer(20, 1024, name=name, learning_rate=0.1, reference_batch=256)
    np.testing.assert_allclose(rates_of(optimizer, 20), closed_form(0.4, 20, 1), rtol=1e-5,
                               atol=1e-8)
    smaller = make_optimizer(20, 64, name=name, learning_rate=0.1, reference_batch=256)
    np.testing.assert_allclose(rates_of(smaller, 20), closed_form(0.025, 20, 1), rtol=1e-5,
                               atol=1e-8)


@pytest.mark.parametrize(("settings", "message"), [
    ({"reference_batch": 256}, "reference_batch is 256, but this training says no batch size"),
    ({"reference_batch": -1}, "reference_batch is -1; it must be 0 or more"),
    ({"name": "adamax"}, "name is 'adamax'; it must be 'adam', 'adamw', 'sgd' or 'lars'"),
    ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be more than 0"),
    ({"warmup": 5}, "warmup is 5; it must be 0 to 1"),
    ({"clip_norm": -1.0}, "clip_norm is -1.0; it must be 0"),
    ({"name": "sgd", "momentum": 1.0}, "momentum is 1.0; it must be 0 or more, and less than 1"),
    ({"name": "sgd", "weight_decay": -0.1}, "weight_decay is -0.1; it must be 0 or more"),
    ({"weight_decay": 0.1}, "weight_decay is 0.1; it must be 0 for 'adam'; .*'adamw'")])
def test_settings_that_cannot_be_used_are_named(settings, message):
    with pytest.raises(UserError, match=f"make_optimizer.{message}"):
        make_optimizer(10, **settings)


def make(strategy, name):
    """The variables, filled from a fixed seed, and their optimiser, with its slots."""
    generator = np.random.Generator(np.random.PCG64(0))
    with strategy.scope():
        variables = [tf.Variable(generator.uniform(0.5, 2, shape).astype(np.float32), name=variable)
                     for variable, shape in SHAPES.items()]
        optimizer = make_optimizer(
            TOTAL, BATCH, name=name, learning_rate=LEARNING_RATES[name],
            reference_batch=REFERENCE_BATCH, warmup=WARMUP / TOTAL, momentum=MOMENTUM,
            weight_decay=0.0 if name == "adam" else WEIGHT_DECAY)
        create_slots(optimizer, variables)
    return variables, optimizer


def one_step(strategy, variables, optimizer):
    """The compiled step, called with the gradients of all replicas, each [replicas, ...]."""
    @tf.function
    def step(gradients):
        def replica():
            own = tf.distribute.get_replica_context().replica_id_in_sync_group
            optimizer.apply_gradients(
                zip([tf.gather(g, own) for g in gradients], variables, strict=True))

        strategy.run(replica)

    return step


def gradients_of_two():
    """The gradients of every step, each [2, ...], for two replicas."""
    generator = np.random.Generator(np.random.PCG64(1))
    return [[(scale * generator.normal(size=(2, *shape))).astype(np.float32)
             for shape in SHAPES.values()] for scale in GRADIENT_SCALES]


def expected(name, weights, summed):
    """The weights after every step, in float64, from the papers' update rules."""
    weights = [w.astype(np.float64) for w in weights]
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    decayed = [True, True, False, False, False]
    rates = closed_form(LEARNING_RATES[name] * BATCH / REFERENCE_BATCH, TOTAL, WARMUP)
    history = []
    for step, gradients in enumerate(summed):
        gradients = [g.astype(np.float64) for g in gradients]
        norm = np.sqrt(sum(np.sum(g ** 2) for g in gradients))
        assert (norm > 1) == (GRADIENT_SCALES[step] > 1)
        rate = rates[step]
        for i, gradient in enumerate(gradients):
            g = gradient / max(norm, 1.0)
            decay = WEIGHT_DECAY if decayed[i] else 0.0
            if name in ("adam", "adamw"):
                first[i] = 0.9 * first[i] + 0.1 * g
                second[i] = 0.999 * second[i] + 0.001 * g ** 2
                # Kingma and Ba, the last lines before section 2.1.
                unbiased = rate * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
                change = unbiased * first[i] / (np.sqrt(second[i]) + 1e-7)
                if name == "adamw":
                    change += rate * decay * weights[i]
            elif name == "sgd":
                first[i] = MOMENTUM * first[i] + rate * g
                change = first[i] + rate * decay * weights[i]
            else:
                g = g + decay * weights[i]
                trust = (0.001 * np.linalg.norm(weights[i]) / np.linalg.norm(g)
                         if decayed[i] else 1.0)
                first[i] = MOMENTUM * first[i] + rate * trust * g
                change = first[i]
            weights[i] = weights[i] - change
        history.append(list(weights))
    return history


@pytest.mark.parametrize("name", METHODS)
def test_the_updates_are_those_of_the_papers_on_one_device_and_on_two(name, two_replicas):
    both = gradients_of_two()
    summed = [[g.sum(axis=0) for g in gradients] for gradients in both]
    one_device = tf.distribute.OneDeviceStrategy("CPU:0")
    alone, optimizer_alone = make(one_device, name)
    together, optimizer = make(two_replicas, name)
    initial = [v.numpy() for v in alone]
    step_alone = one_step(one_device, alone, optimizer_alone)
    step_together = one_step(two_replicas, together, optimizer)
    for done, after in enumerate(expected(name, initial, summed)):
        step_alone([tf.constant(g[np.newaxis]) for g in summed[done]])
        step_together([tf.constant(g) for g in both[done]])
        for one, two, right, start in zip(alone, together, after, initial, strict=True):
            assert abs(right - start).max() > 1e-3
            np.testing.assert_allclose(one.numpy(), right, rtol=3e-6, atol=1e-6)
            np.testing.assert_allclose(two.numpy(), one.numpy(), rtol=1e-6, atol=1e-6)
            np.testing.assert_array_equal(two.values[0].numpy(), two.values[1].numpy())


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_optimiser_goes_on_to_the_bit(name, devices, two_replicas, tmp_path):
    strategy = two_replicas if devices == 2 else tf.distribute.OneDeviceStrategy("CPU:0")
    gradients = [[tf.constant(g[:devices]) for g in step] for step in gradients_of_two()]
    variables, optimizer = make(strategy, name)
    step = one_step(strategy, variables, optimizer)
    for i in (0, 1):
        step(gradients[i])
    path = tf.train.Checkpoint(variables=variables, optimizer=optimizer).write(
        str(tmp_path / "step"))
    for i in (2, 3):
        step(gradients[i])

    resumed, optimizer = make(strategy, name)
    status = tf.train.Checkpoint(variables=resumed, optimizer=optimizer).read(path)
    status.assert_consumed()
    assert optimizer.iterations.numpy() == 2
    step = one_step(strategy, resumed, optimizer)
    for i in (2, 3):
        step(gradients[i])
    for mine, undisturbed in zip(resumed, variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), undisturbed.numpy())


def test_the_model_decays_its_kernels_alone(make_tiny_model, two_replicas):
    with two_replicas.scope():
        model = make_tiny_model()
        optimizer = make_optimizer(10, name="adamw", weight_decay=0.1)
    kinds = set()
    for variable in model.trainable_variables:
        for copy in variable.values:
            kernel = len(copy.shape) > 1
            assert optimizer._do_use_weight_decay(copy) == kernel, copy.name
            kinds.add((copy.name.split("/")[-1], kernel))
    assert len(kinds) > 4  # copies on the second device among them


def first_moments(strategy, gradients, **settings):
    """Adam's first moments / 0.1 after one step: the gradients as the optimiser used them."""
    with strategy.scope():
        variables = [tf.Variable(tf.zeros(2)), tf.Variable(0.0)]
        optimizer = make_optimizer(100, **settings)
        create_slots(optimizer, variables)
    one_step(strategy, variables, optimizer)([tf.constant(g) for g in gradients])
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


def test_a_clip_norm_of_0_clips_nothing():
    used = first_moments(tf.distribute.OneDeviceStrategy("CPU:0"), [[[30.0, 40.0]], [0.0]],
                         clip_norm=0)
    np.testing.assert_allclose(used[0], [30.0, 40.0], rtol=1e-5)


def test_slots_exist_before_the_first_step():
    variables = [tf.Variable([1.0, 2.0])]
    optimizer = make_optimizer(10)
    create_slots(optimizer, variables)
    assert len(optimizer.variables()) == 3  # iterations and two moments
