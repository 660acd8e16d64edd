"""What every self-supervised task is: named, unweighted, masked, one value an example.

To add a task, write one class in one file of this folder: a subclass of `Task` with a `family`
name, the views it wants encoded, its heads and its `call`; then name it in `LossSpace.families`
(gin/defaults.gin). A task never sees its weight.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import tensorflow as tf

from elo_tf.data.clip_spec import MODALITIES, ClipSpec
from elo_tf.views.samplers import Sampler, ViewKey


class TaskOutput(NamedTuple):
    """A task's result on this replica's part of the batch.

    Attributes:
      loss: float32 [B], finite everywhere, also where the mask is false.
      mask: bool [B], the examples that count.
      trivial: float32 [B], the loss of a trivial predictor (the mean of the target, chance) on
        the same examples; `LossSpace` divides by its mean.
    """

    loss: tf.Tensor
    mask: tf.Tensor
    trivial: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Shapes:
    """What heads need to know of clips and encoders.

    Attributes:
      clip: the clip's size.
      widths: channels of each activation, `{modality: {"block1": C, ..., "embedding": D}}`.
    """

    clip: ClipSpec
    widths: Mapping[str, Mapping[str, int]]


class Present(Protocol):
    """Tells which examples of a batch have a view, and what else is known before it is encoded."""

    def present(self, modality: str, view: str = "intact") -> tf.Tensor:
        """Bool [B]: the examples that have this view."""

    def labels(self) -> tf.Tensor:
        """Int64 [B]: the examples' classes, -1 where there is none."""

    def position(self) -> tf.Tensor:
        """Int64 [B]: the examples' places in the stream of training clips."""


class Encoded(Present, Protocol):
    """The views of a batch and their activations, each encoded once and shared by all tasks."""

    def activation(self, modality: str, view: str, site: str = "embedding") -> tf.Tensor:
        """Activation averaged over time and space, float32 [B, C]; zeros where absent.

        Of a sampled view, that of every item: [B, K, C].
        """

    def view(self, modality: str, view: str) -> tf.Tensor:
        """The view itself: float32 [B, T, H, W, C], or log-mel [B, F, M] for audio."""

    def truth(self, modality: str, view: str) -> Mapping[str, tf.Tensor]:
        """What the sampler of a view has drawn, [B, ...] by name."""

    def map(self, modality: str, view: str, site: str) -> tf.Tensor:
        """An activation of `Task.maps` as it is: float32 [B, t, h, w, C], of sound [B, f, m, C]."""

    def after(self, modality: str, site: str, activation: tf.Tensor) -> tf.Tensor:
        """The embedding [B, D] that the rest of an encoder makes of an activation at a site."""


class Task(tf.keras.layers.Layer):
    """One loss of the weighted sum.

    Attributes:
      family: the task's name without its modality, such as "shuffle".
      modality: the modality it trains.
      site: of the encoders, whose activation it reads.
      chance: the accuracy of guessing.
    """

    family: str = ""
    site: str = "embedding"
    chance: float = 0.0

    def __init__(self, modality: str, name: str | None = None):
        super().__init__(name=name or f"{modality}/{self.family}")
        self.modality = modality

    @classmethod
    def members(cls) -> dict[str, Callable[[], "Task"]]:
        """The family's losses by name, each with what constructs it: one for each modality."""
        return {f"{m}/{cls.family}": functools.partial(cls, m) for m in MODALITIES}

    @property
    def encodes(self) -> tuple[ViewKey, ...]:
        """The views whose activations the task uses, as (modality, view)."""
        raise NotImplementedError

    @property
    def decodes(self) -> tuple[ViewKey, ...]:
        """The views that are the task's targets."""
        return ()

    @property
    def samplers(self) -> Mapping[str, Sampler]:
        """What cuts those views out of clips that are this task's own, by the view's name."""
        return {}

    @property
    def maps(self) -> tuple[tuple[str, str, str], ...]:
        """The activations (modality, view, site) that the task uses before they are averaged."""
        return ()

    def build_heads(self, shapes: Shapes) -> None:
        """Makes the task's variables, before anything is traced."""

    def mask(self, views: "Present") -> tf.Tensor:
        """Bool [B], the examples that count: those that have all views of the task.

        It depends on what is present alone, so that it is known before anything is encoded.
        """
        keys = dict.fromkeys((*self.encodes, *self.decodes))
        return functools.reduce(tf.logical_and, [views.present(*key) for key in keys])

    def call(self, encoded: Encoded) -> TaskOutput:
        """The loss of every example of this replica."""
        raise NotImplementedError

    def accuracy(self, encoded: Encoded) -> tf.Tensor:
        """The share of right decisions on each example, to tell whether a task was learned.

        Unless a task decides something, it is the share of the trivial predictor's loss that is
        explained, no less than 0.

        Returns:
          float32 [B], in [0, 1]; of no meaning where the mask is false.
        """
        output = self(encoded)
        left = tf.math.divide_no_nan(output.loss, output.trivial)
        return tf.clip_by_value(1.0 - left, 0.0, 1.0)


def across_replicas(tensor: tf.Tensor) -> tf.Tensor:
    """Joins [B, ...] of all replicas to [B * replicas, ...], in the order of the global batch.

    Collectives take no bool: a mask travels as numbers.

    The gradient of the gathered tensor is summed over replicas, which is the gradient of the sum
    of the replicas' losses: right when each divides by the global number of examples.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tensor
    if tensor.dtype == tf.bool:
        return context.all_gather(tf.cast(tensor, tf.float32), axis=0) > 0.5
    # Not the tensor itself: one that comes with the batch has no place among the devices.
    return _dense_gradient(context.all_gather(tf.identity(tensor), axis=0))


@tf.custom_gradient
def _dense_gradient(tensor: tf.Tensor):
    """The same; a gradient of some rows only becomes one of all, as collectives need it."""
    return tf.identity(tensor), tf.convert_to_tensor


def sum_over_replicas(tensor: tf.Tensor) -> tf.Tensor:
    """The sum of all replicas' tensors, for counts and reports, which need no gradient."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tensor
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tensor)


def own_rows(local: tf.Tensor) -> tf.Tensor:
    """The indices [B] of this replica's examples in the global batch."""
    size = tf.shape(local)[0]
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.range(size)
    return tf.range(size) + context.replica_id_in_sync_group * size
