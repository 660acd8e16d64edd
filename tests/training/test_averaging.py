"""The averages of weights against NumPy, on one device and on two; swapping and resuming."""

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.errors import UserError
from elo_tf.training.averaging import WeightAverages
from elo_tf.training.optimization import create_slots, make_optimizer

DECAY = 0.3  # more than (1 + n) / (10 + n) in the first two steps, less in the next


@pytest.fixture(params=[1, 2])
def strategy(request, two_replicas):
    return two_replicas if request.param == 2 else tf.distribute.OneDeviceStrategy("CPU:0")


class Training:
    """Two weights, one as mixed precision keeps it, under steps that end with the averages'."""

    def __init__(self, strategy):
        with strategy.scope():
            layer = tf.keras.layers.Dense(3, use_bias=False, dtype="mixed_bfloat16",
                                          kernel_initializer=tf.keras.initializers.Constant(0.5))
            layer.build((None, 2))
            self.weights = [layer.kernel, tf.Variable([1.0, -2.0])]
            self.optimizer = make_optimizer(10, name="sgd", learning_rate=0.5)
            create_slots(self.optimizer, self.weights)
            self.averages = WeightAverages(self.weights, DECAY)
        self.checkpoint = tf.train.Checkpoint(
            weights=self.weights, optimizer=self.optimizer, averages=self.averages)

        @tf.function
        def step():
            def replica():
                self.optimizer.apply_gradients([(0.1 * w + 0.2, w) for w in self.weights])
                self.averages.update(self.optimizer.iterations)

            strategy.run(replica)

        self.step = step


def values(variables):
    return [v.numpy() for v in variables]


def assert_same(ours, others):
    for mine, other in zip(ours, others, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_the_averages_follow_the_weights(strategy):
    training = Training(strategy)
    right = [w.astype(np.float64) for w in values(training.weights)]
    assert_same(values(training.averages.averages), right)
    decays = []
    for step in range(1, 5):
        training.step()
        decays.append(min(DECAY, (1 + step) / (10 + step)))
        right = [decays[-1] * average + (1 - decays[-1]) * weight
                 for average, weight in zip(right, values(training.weights), strict=True)]
        for mine, other in zip(training.averages.averages, right, strict=True):
            np.testing.assert_allclose(mine.numpy(), other, rtol=1e-6)
            copies = strategy.experimental_local_results(mine)
            assert len(copies) == strategy.num_replicas_in_sync
            assert_same(values(copies), [mine.numpy()] * len(copies))
    assert decays[0] < decays[1] < DECAY == decays[2] == decays[3]


def test_the_averages_stand_in_for_the_weights_also_where_that_fails(strategy):
    training = Training(strategy)
    training.step()
    weights, averages = values(training.weights), values(training.averages.averages)
    assert all((w != a).any() for w, a in zip(weights, averages, strict=True))
    with training.averages.swapped():
        for variable, average in zip(training.weights, averages, strict=True):
            copies = strategy.experimental_local_results(variable)
            assert_same(values(copies), [average] * len(copies))
    assert_same(values(training.weights), weights)
    with pytest.raises(KeyError), training.averages.swapped():
        raise KeyError
    for variable, weight in zip(training.weights, weights, strict=True):
        copies = strategy.experimental_local_results(variable)
        assert_same(values(copies), [weight] * len(copies))
    assert_same(values(training.averages.averages), averages)


def test_restored_averages_go_on_to_the_bit(strategy, tmp_path):
    training = Training(strategy)
    for _ in range(2):
        training.step()
    path = training.checkpoint.write(str(tmp_path / "step"))
    saved = values(training.averages.averages)
    for _ in range(2):
        training.step()

    resumed = Training(strategy)
    resumed.checkpoint.read(path).assert_consumed()
    assert_same(values(resumed.averages.averages), saved)
    for _ in range(2):
        resumed.step()
    assert_same(values(resumed.averages.averages), values(training.averages.averages))


def test_the_averages_are_a_part_of_their_own(tmp_path):
    training = Training(tf.distribute.OneDeviceStrategy("CPU:0"))
    path = tf.train.Checkpoint(averages=training.averages).write(str(tmp_path / "part"))
    saved = [name for name, _ in tf.train.list_variables(path) if name.startswith("averages/")]
    assert len(saved) == len(training.averages.averages)  # and no weight
    assert list(training.averages.variables) == list(training.averages.averages)
    assert not training.averages.trainable_variables


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(UserError, match=f"is {decay}; it must be 0 or more, and less than 1"):
        WeightAverages([], decay)
