"""The loop over training steps: what is fetched, logged, checked and saved, and when it stops."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from elo_tf import cli
from elo_tf.errors import Stopped
from elo_tf.pretraining import PretrainingModel
from elo_tf.training import workers
from elo_tf.training.data_wait import DataWait, Waited
from elo_tf.training.run_log import RunLog
from elo_tf.training.stopping import StopRequests


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When things are due.

    Attributes:
      start: steps done before.
      steps: at the end.
      batch_size: of the global batch, to tell clips a second.
      log_every: steps between entries of the log, and between waits for the device.
      checkpoint_every: steps between checkpoints.
    """

    start: int
    steps: int
    batch_size: int
    log_every: int
    checkpoint_every: int


def train(model: PretrainingModel, batches: Iterable, schedule: Schedule, *, log: RunLog,
          save: Callable[[int, bool], None], stop: StopRequests) -> Waited:
    """Trains to the end, or until it is asked to stop.

    Nothing is fetched from the device between entries of the log. The reports of all steps are,
    then: the first number that is not finite names its step and its loss.

    Args:
      model: compiled.
      batches: distributed, from step `schedule.start` on.
      schedule: when to do what.
      log: of the run.
      save: called with the step, and whether the checkpoint is a planned one.
      stop: requests; on several hosts they are looked at with every entry of the log only.

    Returns:
      What the training took.

    Raises:
      FloatingPointError: naming the step and the loss; nothing is saved of it.
      Stopped: when it was asked to, after saving.
    """
    strategy = model.distribute_strategy
    alone = workers.share(strategy)[1] == 1
    wait, all_waited = DataWait(model), Waited(0.0, 0.0)
    bar = cli.progress(total=schedule.steps, desc="pretraining", unit="step")
    bar.update(schedule.start)
    iterator = iter(batches)
    reports: list[tuple[int, Mapping[str, tf.Tensor]]] = []
    for step in range(schedule.start + 1, schedule.steps + 1):
        if step == schedule.start + 1 and workers.any_worker(strategy, stop.received is not None):
            raise stopped(stop, schedule.start)
        reports.append((step, model.train_function(iterator)))
        bar.update()
        last = step == schedule.steps
        logs = last or step % schedule.log_every == 0
        saves = last or step % schedule.checkpoint_every == 0
        stops = stop.received is not None if alone else logs and workers.any_worker(
            strategy, stop.received is not None)
        if not (logs or saves or stops):
            continue
        report = fetch(reports, model.names)
        reports = []
        if logs:
            waited = wait.take()
            all_waited += waited
            speed = waited.steps * schedule.batch_size / waited.wall if waited.wall else 0.0
            entry = log.write(step, report, learning_rate=learning_rate(model.optimizer, step),
                              clips_per_second=speed, waited=waited)
            bar.set_postfix_str(f"loss {entry['total']:.3f}, {speed:.1f} clips/s, "
                                f"waiting for data {waited.share:.0%}", refresh=False)
        if saves or stops:
            save(step, saves)
        if stops and not last:
            bar.close()
            raise stopped(stop, step)
    bar.close()
    return all_waited


def stopped(stop: StopRequests, step: int) -> Stopped:
    """The exception that ends a run on request."""
    name, code = "another worker", 143
    if stop.received is not None:
        name, code = stop.received.name, 128 + int(stop.received)
    return Stopped(f"stopped by {name} after step {step}, which is saved; the same command goes "
                   "on from there", code)


def fetch(reports: Sequence[tuple[int, Mapping[str, tf.Tensor]]],
          names: Sequence[str]) -> dict[str, np.ndarray]:
    """Fetches the reports of some steps.

    Args:
      reports: steps and what `train_step` returned, in order.
      names: of the losses.

    Returns:
      The last step's report.

    Raises:
      FloatingPointError: naming the first step and loss that are not finite.
    """
    for step, report in reports:
        fetched = {key: value.numpy() for key, value in report.items()}
        for key, what in (("losses", "the loss"), ("gradient_norms", "the gradient of the loss")):
            for name, value in zip(names, fetched[key], strict=True):
                if not np.isfinite(value):
                    raise FloatingPointError(f"{what} {name} is {value} at step {step}")
        if not np.isfinite(fetched["gradient_norm"]):
            raise FloatingPointError("the gradient in the encoders is "
                                     f"{fetched['gradient_norm']} at step {step}, while that of "
                                     "every loss in their activations is finite")
    return fetched


def learning_rate(optimizer: tf.keras.optimizers.legacy.Optimizer, step: int) -> float:
    """The learning rate of a step, from 1."""
    rate = optimizer.learning_rate
    return float(rate(step - 1) if callable(rate) else rate)
