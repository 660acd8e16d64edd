"""How long training waits for its batches.

A step waits where its batch comes after the devices have finished the step before: only then do
they idle for want of data. On a CPU that is the time spent in asking for the batch. GPUs are given
work ahead, and the program may wait for a batch while they are still busy, which costs nothing; a
thread beside the training therefore notes when they finish each step, and the training itself
never waits for them.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from concurrent import futures

import tensorflow as tf
from absl import logging

MUCH = 0.2  # our choice
_WORTH_A_WARNING = 1.0  # seconds


@dataclasses.dataclass(frozen=True)
class Waited:
    """What a stretch of training took.

    Attributes:
      seconds: for which the devices waited for data.
      wall: seconds of the whole stretch.
      steps: in the stretch.
    """

    seconds: float
    wall: float
    steps: int = 0

    @property
    def share(self) -> float:
        """Of the wall time, in [0, 1]."""
        return self.seconds / self.wall if self.wall > 0 else 0.0

    def __add__(self, other: "Waited") -> "Waited":
        return Waited(self.seconds + other.seconds, self.wall + other.wall,
                      self.steps + other.steps)


class DataWait:
    """Measures the waits of a model's train function, whose place it takes.

    The first step of all is left out of both the waits and the wall time: it compiles, and the
    readers fill their buffers meanwhile.
    """

    def __init__(self, model: tf.keras.Model, *, ahead: bool | None = None):
        """Takes the place of the model's train function.

        Args:
          model: compiled, with one step for each call of its train function.
          ahead: whether devices work behind the program's back; by default, if there are GPUs.
        """
        one_step = model.make_train_function(force=True).python_function

        def step(data: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return one_step(iter((data,)))

        self._step = tf.function(step, reduce_retracing=True)
        model.train_function = self._train
        if ahead is None:
            ahead = bool(tf.config.list_logical_devices("GPU"))
        self._watcher = futures.ThreadPoolExecutor(1, "data_wait") if ahead else None
        self._since: futures.Future[float] | float | None = None
        self._free: futures.Future[float] | float = 0.0
        self._steps: list[tuple[float, float, futures.Future[float] | float]] = []
        self._warned = False

    @property
    def traces(self) -> int:
        """How often the train step was traced."""
        return self._step.experimental_get_tracing_count()

    def take(self) -> Waited:
        """What the time since the last call took; call it where the devices have nothing to do."""
        if self._since is None:
            return Waited(0.0, 0.0)
        now = time.perf_counter()
        waited = sum(max(0.0, came - max(asked, _time(free)))
                     for asked, came, free in self._steps)
        result = Waited(waited, max(now - _time(self._since), 0.0), len(self._steps))
        self._steps.clear()
        self._since = now
        if result.share > MUCH and result.seconds > _WORTH_A_WARNING and not self._warned:
            self._warned = True
            logging.warning(
                "training spends %.0f%% of its time waiting for data: give it more cores, or store "
                "smaller frames (tools/convert_videos --min_side)", 100 * result.share)
        return result

    def _train(self, iterator: Iterator[Mapping[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
        asked = time.perf_counter()
        data = next(iterator)
        came = time.perf_counter()
        outputs = self._step(data)
        before, self._free = self._free, self._finish(outputs)
        if self._since is None:
            self._since = self._free
        else:
            self._steps.append((asked, came, before))
        return outputs

    def _finish(self, outputs: Mapping[str, tf.Tensor]) -> "futures.Future[float] | float":
        """When the step ends, as soon as that is known."""
        if self._watcher is None:
            return time.perf_counter()
        return self._watcher.submit(_when_there, outputs["total"])


def _when_there(tensor: tf.Tensor) -> float:
    """Waits for a tensor.

    A copy from a GPU follows all work that was given to it before the copy: a step's end may be
    noted as that of a later one. By then its devices did not wait for the later one's batch.
    """
    tensor.numpy()
    return time.perf_counter()


def _time(moment: "futures.Future[float] | float") -> float:
    return moment if isinstance(moment, float) else moment.result()
