"""Whether tasks are learned, and by the encoders: what they reach on clips of their own."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.losses import FAMILIES, LossSpace
from elo_tf.models.audio_resnet import audio_encoder
from elo_tf.models.normalization import frozen_averages
from elo_tf.models.video_resnet import video_encoder
from elo_tf.pretraining import PretrainingModel
from elo_tf.tasks.task import Task
from elo_tf.training.optimization import make_optimizer

HELD_OUT = 10**6  # seeds of batches from here on are not trained on


class World(Protocol):
    """What clips are drawn from."""

    clip: ClipSpec

    def batch(self, seed: int, size: int) -> dict[str, np.ndarray]:
        """A batch as `training_clips` gives it."""


class HeadsOnly(PretrainingModel):
    """The same model, whose encoders stay as they were drawn."""

    @property
    def network_variables(self) -> list[tf.Variable]:
        """The heads'."""
        return [v for task in self.tasks for v in task.trainable_variables]


@dataclasses.dataclass(frozen=True)
class Lesson:
    """Losses that are learned from one world.

    Their heads on frozen encoders are trained in one model: what one learns does not change what
    another does. Encoders are trained in a model of their own for each of `together`.

    Attributes:
      world: what clips are drawn from.
      together: losses that are trained together.
      families: of these losses.
      steps: of a training.
      batch_size: clips of a step.
    """

    world: World
    together: tuple[tuple[str, ...], ...]
    families: tuple[type[Task], ...] = FAMILIES
    steps: int = 100
    batch_size: int = 32

    def check(self, names: Sequence[str]) -> "Learned":
        """Trains, prints a table, and asserts that all is learned, by the encoders.

        Args:
          names: one of `together`.

        Returns:
          The trained model's results.
        """
        frozen = heads_alone(self)
        learned = learn(self, names)
        print(f"\n{'loss':24}{'chance':>8}{'frozen':>8}{'trained':>9}{'steps':>7}{'seconds':>9}")
        for name in names:
            print(f"{name:24}{learned.chance[name]:8.2f}{frozen.accuracy[name]:8.2f}"
                  f"{learned.accuracy[name]:9.2f}{self.steps:7}{learned.seconds:9.0f}", flush=True)
        for name in names:
            halfway = (1 + learned.chance[name]) / 2
            assert learned.accuracy[name] >= halfway, f"{name} is not learned"
            assert frozen.accuracy[name] < halfway, f"{name} is learned by its head alone"
        return learned


@dataclasses.dataclass(frozen=True)
class Learned:
    """What came out of a training.

    Attributes:
      accuracy: by loss, on clips that were not trained on, with the statistics of their batch.
      chance: by loss.
      seconds: what it took.
      measure: the accuracies by loss in another world.
    """

    accuracy: dict[str, float]
    chance: dict[str, float]
    seconds: float
    measure: "functools.partial[dict[str, float]]"


def learn(lesson: Lesson, names: Sequence[str], *, frozen: bool = False) -> Learned:
    """Trains a tiny model on some losses of equal weight."""
    start = time.monotonic()
    world, size = lesson.world, lesson.batch_size
    model = (HeadsOnly if frozen else PretrainingModel)(
        world.clip, LossSpace(lesson.families), names=names,
        make_video_encoder=functools.partial(video_encoder, depth=10, width=0.0625),
        make_audio_encoder=functools.partial(
            audio_encoder, filters=(64, 8, 8, 8), blocks=(1, 1, 1, 1)))
    model.set_weights_by_name(dict.fromkeys(names, 1.0))
    model.compile(optimizer=make_optimizer(lesson.steps, learning_rate=3e-3))
    step = tf.function(model.train_step)

    @tf.function
    def right(data):
        with frozen_averages():
            encoded = model.encode(model._clip_views(data, augmented=False), training=True)
            found = tf.stack([task.accuracy(encoded) for task in model.tasks])
            counted = tf.cast(tf.stack([task.mask(encoded) for task in model.tasks]), tf.float32)
        return tf.stack([tf.reduce_sum(counted * found, 1), tf.reduce_sum(counted, 1)])

    def measure(other: World, batches: int = 8) -> dict[str, float]:
        found, count = sum(right(tensors(other, HELD_OUT + i, size)).numpy()
                           for i in range(batches))
        return dict(zip(model.names, map(float, found / count), strict=True))

    for number in range(lesson.steps):
        step(tensors(world, number, size))
    return Learned(accuracy=measure(world),
                   chance={task.name: task.chance for task in model.tasks},
                   seconds=time.monotonic() - start, measure=measure)


@functools.lru_cache
def heads_alone(lesson: Lesson) -> Learned:
    """The same for the heads of all of a lesson's losses, on encoders as they were drawn."""
    return learn(lesson, [name for names in lesson.together for name in names], frozen=True)


def tensors(world: World, seed: int, size: int) -> dict[str, tf.Tensor]:
    """A batch of a world, on the device."""
    return {name: tf.constant(value) for name, value in world.batch(seed, size).items()}
