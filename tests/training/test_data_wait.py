"""The measured wait for data, against clocks of our own: slow data, slow devices, both."""

import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.training import data_wait
from elo_tf.training.data_wait import DataWait, Waited
from elo_tf.training.devices import distribute

STEPS, BATCH = 12, 4


class Slow:
    """A model and data that take known times, and when the model worked, by a clock of our own."""

    def __init__(self, strategy, *, data=0.0, compute=0.0, cached=False):
        self.worked = []
        with strategy.scope():
            self.model = Model(lambda: self._work(compute))
            self.model.compile(optimizer=tf.keras.optimizers.legacy.SGD(0.1))
        self.strategy = strategy

        def produce(number):
            tf.numpy_function(lambda: np.int64(time.sleep(data) or 0), [], tf.int64)
            return {"key": tf.fill([BATCH], number), "x": tf.ones([BATCH, 3])}

        dataset = tf.data.Dataset.range(STEPS + 1).map(produce)
        self.dataset = dataset.cache().repeat() if cached else dataset.repeat()

    def _work(self, seconds):
        begun = time.perf_counter()
        time.sleep(seconds)
        self.worked.append((begun, time.perf_counter()))
        return np.int64(0)

    def train(self, epochs=1, **options):
        """Trains one step, which is not counted, and then `STEPS`; the waits of each epoch."""
        wait = DataWait(self.model, **options)
        windows = []

        class Windows(tf.keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                windows.append(wait.take())

        self.worked.clear()
        self.model.fit(distribute(self.strategy, self.dataset), epochs=epochs, verbose=0,
                       steps_per_epoch=(STEPS + epochs) // epochs, callbacks=[Windows()])
        assert wait.traces == 1
        return windows

    def idle(self):
        """Seconds between one step's work, on all devices, and the next one's; and all of them."""
        devices = self.strategy.num_replicas_in_sync
        steps = [self.worked[i:i + devices] for i in range(0, len(self.worked), devices)]
        begun = [min(x for x, _ in step) for step in steps]
        ended = [max(x for _, x in step) for step in steps]
        gaps = sum(b - e for b, e in zip(begun[1:], ended[:-1], strict=True))
        return gaps, ended[-1] - ended[0]


class Model(tf.keras.Model):
    def __init__(self, sleep):
        super().__init__()
        self.w = tf.Variable(0.0)
        self._sleep = sleep

    def train_step(self, data):
        slept = tf.numpy_function(self._sleep, [], tf.int64)
        total = tf.reduce_sum(data["x"]) + tf.cast(slept, tf.float32)
        self.w.assign_add(0.0 * total)
        return {"total": total}


@pytest.fixture
def one_device(two_logical_devices):
    return tf.distribute.MirroredStrategy(["CPU:0"])


@pytest.mark.parametrize("devices", (1, 2))
@pytest.mark.parametrize("data, compute", ((0.08, 0.01), (0.06, 0.06), (0.03, 0.09)))
def test_the_wait_for_slow_data(data, compute, devices, one_device, two_replicas):
    slow = Slow(two_replicas if devices == 2 else one_device, data=data, compute=compute)
    waited, = slow.train()
    idle, wall = slow.idle()
    assert waited.wall == pytest.approx(wall, abs=0.05)
    assert waited.seconds == pytest.approx(idle, abs=0.15)  # 12 ms a step for all the rest
    assert 0 <= waited.share <= 1
    if devices == 1:  # nothing is fetched ahead: each step waits for the whole of the data
        assert waited.seconds >= STEPS * data
    elif data < compute:
        assert waited.share < 0.1


def test_cached_data_are_not_waited_for(one_device):
    slow = Slow(one_device, data=0.03, compute=0.03, cached=True)
    first, second = slow.train(epochs=2)
    assert first.share > 0.4 and second.share > 0.4
    # One step more than the cache holds, which is whole then.
    slow.dataset = slow.dataset.skip(STEPS + 1)
    for _ in slow.dataset.take(1):
        pass
    waited, = slow.train()
    assert waited.share < 0.1


def test_no_step_is_no_wait(one_device):
    slow = Slow(one_device)
    wait = DataWait(slow.model)
    assert wait.take() == Waited(0.0, 0.0) and wait.take().share == 0.0


class Device:
    """A queue of work that is done behind the program's back, as a GPU does it."""

    def __init__(self, compute):
        self.busy = 0.0
        self._compute = compute
        self._free_at = time.perf_counter()

    def run(self):
        """Takes work; what it returns is there once the work is done."""
        begin = max(time.perf_counter(), self._free_at)
        self._free_at = begin + self._compute
        return Pending(self._free_at)


class Pending:
    def __init__(self, at):
        self._at = at

    def numpy(self):
        time.sleep(max(0.0, self._at - time.perf_counter()))


@pytest.mark.parametrize("data, compute", ((0.02, 0.04), (0.035, 0.04), (0.06, 0.04), (0.08, 0.0)))
def test_devices_that_work_ahead_wait_only_where_they_idle(data, compute, one_device):
    slow = Slow(one_device)
    wait = DataWait(slow.model, ahead=True)
    device = Device(compute)
    wait._step = lambda batch: {"total": device.run()}

    def batches():
        while True:
            time.sleep(data)
            yield None

    iterator, launched = batches(), []
    for _ in range(STEPS + 1):
        begun = time.perf_counter()
        slow.model.train_function(iterator)
        launched.append(time.perf_counter() - begun)
    waited = wait.take()
    # Nothing but the data held the program up: it never waited for the device.
    assert sum(launched) < (STEPS + 1) * data + 0.15
    assert waited.seconds == pytest.approx(STEPS * max(data - compute, 0.0), abs=0.06)


def test_much_waiting_is_told_once(one_device, caplog, monkeypatch):
    monkeypatch.setattr(data_wait, "_WORTH_A_WARNING", 0.1)
    with caplog.at_level("WARNING", logger="absl"):
        Slow(one_device, compute=0.05).train()
        assert not caplog.records
        Slow(one_device, data=0.05).train(epochs=3)
    message, = (record.getMessage() for record in caplog.records)
    assert "of its time waiting for data" in message and "smaller frames" in message


def test_the_measuring_thread_is_only_there_for_devices_that_work_ahead(one_device):
    for options, started in (({}, 0), ({"ahead": True}, 1)):
        before = set(threading.enumerate())
        Slow(one_device).train(**options)
        new = [t for t in set(threading.enumerate()) - before if t.name.startswith("data_wait")]
        assert len(new) == started
