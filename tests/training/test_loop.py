"""The training loop: what it names where numbers break, and that it stops when asked to."""

import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.errors import Stopped
from elo_tf.training.loop import Schedule, fetch, learning_rate, train
from elo_tf.training.optimization import create_slots, make_optimizer
from elo_tf.training.run_log import RunLog
from elo_tf.training.stopping import StopRequests

NAMES = ("rgb/shuffle", "rgb/reconstruct")
WEIGHTS = dict.fromkeys(NAMES, 0.5)


def reports(**broken):
    """Reports of steps 1 to 4; `broken` is (step, place, value) by key."""
    result = []
    for step in range(1, 5):
        report = {"losses": np.ones(2, "f"), "gradient_norms": np.ones(2, "f"),
                  "gradient_norm": np.float32(step)}
        for key, (first, place, value) in broken.items():
            if step >= first:
                report[key] = np.array(report[key])
                report[key][place] = value
        result.append((step, {k: tf.constant(v) for k, v in report.items()}))
    return result


def test_the_last_report_is_fetched():
    assert fetch(reports(), NAMES)["gradient_norm"] == 4


@pytest.mark.parametrize("broken, message", (
    ({"losses": (3, 1, np.nan)}, "the loss rgb/reconstruct is nan at step 3"),
    ({"gradient_norms": (2, 0, np.inf), "losses": (3, 1, np.nan)},
     "the gradient of the loss rgb/shuffle is inf at step 2"),
    ({"gradient_norm": (4, (), np.inf)}, "the gradient in the encoders is inf at step 4"),
))
def test_the_first_number_that_is_not_finite_is_named(broken, message):
    with pytest.raises(FloatingPointError, match=message):
        fetch(reports(**broken), NAMES)


@pytest.fixture(scope="module")
def trained(make_tiny_model, make_tiny_batch):
    """A tiny model and endless batches of noise; compiled once for all tests."""
    model = make_tiny_model(names=NAMES)
    model.set_weights_by_name(WEIGHTS)
    model.compile(optimizer=make_optimizer(20, learning_rate=1e-4))
    create_slots(model.optimizer, model.trainable_variables)
    wanted = {"rgb", "key", "index"}
    batch = {k: v for k, v in make_tiny_batch(1).items() if k in wanted}
    return model, tf.data.Dataset.from_tensors(batch).repeat()


class Run:
    """One call of `train`, and what it saved."""

    def __init__(self, trained, folder, batches=None, *, start=0, steps=12, log_every=4,
                 checkpoint_every=6, stop=None):
        self.saved = []
        self.model, endless = trained
        self.stop = stop or StopRequests()
        self.log = RunLog(folder, WEIGHTS, start=start)
        self.folder = folder
        self.go = lambda: train(
            self.model, batches or endless,
            Schedule(start=start, steps=steps, batch_size=8, log_every=log_every,
                     checkpoint_every=checkpoint_every),
            log=self.log, save=lambda *what: self.saved.append(what), stop=self.stop)


def test_what_is_due_is_logged_and_saved(trained, tmp_path):
    run = Run(trained, tmp_path, steps=14)
    waited = run.go()
    assert run.saved == [(6, True), (12, True), (14, True)]
    assert waited.steps == 13 and waited.wall > 0
    text = (tmp_path / "losses.jsonl").read_text()
    assert [f'"step": {step},' in text for step in range(1, 15)] == [
        step in (4, 8, 12, 14) for step in range(1, 15)]


def test_a_nan_ends_the_training_with_its_step_and_nothing_saved(trained, tmp_path):
    model, endless = trained
    kernel = model.tasks[1].trainable_variables[0]
    value = kernel.numpy()

    def batches():
        for step, batch in enumerate(endless, start=1):
            if step == 6:  # as an update that overflowed would leave it
                kernel.assign(np.full_like(value, np.nan))
            yield batch

    run = Run(trained, tmp_path, batches(), checkpoint_every=8)
    try:
        with pytest.raises(FloatingPointError, match="rgb/reconstruct is nan at step 6"):
            run.go()
    finally:
        for variable in [*model.variables, *model.optimizer.variables()]:
            if variable.dtype.is_floating:
                variable.assign(tf.where(tf.math.is_finite(variable), variable, 0.0))
        kernel.assign(value)
    assert run.saved == []


@pytest.mark.parametrize("number, code", ((signal.SIGTERM, 143), (signal.SIGINT, 130)))
def test_a_signal_saves_and_stops(number, code, trained, tmp_path):
    _, endless = trained
    before = signal.getsignal(number)

    def batches():
        for step, batch in enumerate(endless, start=1):
            if step == 5:
                os.kill(os.getpid(), number)
            yield batch

    with StopRequests() as stop:
        run = Run(trained, tmp_path, batches(), stop=stop)
        with pytest.raises(Stopped) as stopped:
            run.go()
        assert signal.getsignal(number) == before  # a second one ends the program
    assert run.saved == [(5, False)]
    assert stopped.value.exit_code == code
    assert stopped.value.message == (
        f"stopped by {signal.Signals(number).name} after step 5, which is saved; the same command "
        "goes on from there")


def test_a_signal_before_the_first_step_stops_there(trained, tmp_path):
    with StopRequests() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        run = Run(trained, tmp_path, start=8, stop=stop)
        with pytest.raises(Stopped, match="after step 8"):
            run.go()
    assert run.saved == []


def test_the_logged_learning_rate_is_that_of_the_step(trained):
    model, _ = trained
    schedule = model.optimizer.learning_rate
    assert learning_rate(model.optimizer, 1) == float(schedule(0)) > 0
    assert learning_rate(model.optimizer, 7) == float(schedule(6))
