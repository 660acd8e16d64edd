"""The gradient of the weighted sum: at once, view by view, or part by part of the batch.

    together     one forward and one backward pass: the fastest, and all activations in memory
    in_turn      the losses from activations that were computed without a tape; then, one view after
                 the other, the view's forward pass again and its backward pass. The memory is that
                 of one view of one modality. (Gao et al. 2021, arXiv 2101.06983, cache gradients so
                 for contrastive losses: what is in the batch stays in the batch.)
    accumulated  the same of parts of the batch, added up. Batch statistics, and negatives from the
                 batch, are then those of a part.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from elo_tf.encoding import Encode, EncodedViews, TappedViews, encode_modality
from elo_tf.models.normalization import frozen_averages
from elo_tf.tasks.task import Encoded, Task
from elo_tf.views.clip_views import ClipViews


class Gradients(NamedTuple):
    """What one replica contributes to a step; all of it sums over replicas and over parts.

    Attributes:
      gradients: of the weighted sum, one for each trainable variable of the network.
      shares: float32 [n], of the raw losses.
      squares: float32 [n], squared length of each weighted loss's own gradient in the activations
        that it is computed from.
    """

    gradients: list[tf.Tensor]
    shares: tf.Tensor
    squares: tf.Tensor


class Losses(Protocol):
    """What is asked of a model here."""

    encoders: Mapping[str, tf.keras.Model]
    tasks: Sequence[Task]
    network_variables: Sequence[tf.Variable]

    def step_weights(self) -> tf.Tensor:
        """The weight of every loss in this step, float32 [n]."""

    def encode(self, views: ClipViews, *, training: bool) -> EncodedViews:
        """Encodes every view that the tasks need."""

    def encoded_views(self) -> Sequence[tuple[str, str]]:
        """The views that are encoded, as (modality, view)."""

    def run_encoder(self, modality: str) -> Encode:
        """A modality's encoder as it is run in training."""

    def shares(self, encoded: Sequence[Encoded], counts: tf.Tensor,
               tasks: Sequence[Task] | None = None) -> tf.Tensor:
        """This replica's shares [n] of the raw losses; each task is given views of its own."""


def together(model: Losses, views: ClipViews, counts: tf.Tensor) -> Gradients:
    """One forward and one backward pass.

    Args:
      model: whose losses are weighed.
      views: of this replica's batch.
      counts: float32 [n], valid examples of the global batch, which the losses divide by.
    """
    with tf.GradientTape() as tape:
        encoded = model.encode(views, training=True)
        tapped = [TappedViews(encoded) for _ in range(len(model.tasks))]
        shares = model.shares(tapped, counts)
        total = tf.tensordot(model.step_weights(), shares, 1)
    taps = [x.taps for x in tapped]
    gradients, tap_gradients = tape.gradient(
        total, (list(model.network_variables), taps), unconnected_gradients="zero")
    return Gradients(gradients, shares, summed_squares(tap_gradients))


def in_turn(model: Losses, views: ClipViews, counts: tf.Tensor) -> Gradients:
    """One view in memory at a time, for a second forward pass; see `together`.

    Batch normalisation then sees each view by itself.
    """
    activations: dict[str, dict[tuple[str, str], tf.Tensor]] = {m: {} for m in model.encoders}
    before: list[tf.Tensor] = []
    for modality, view in model.encoded_views():
        with tf.control_dependencies(before):
            encoded = encode_modality(
                model.encoders[modality], views, modality, [view], training=True)
        activations[modality] |= encoded
        before = list(encoded.values())

    variables = list(model.network_variables)
    run = dict.fromkeys(modality for modality, _ in model.encoded_views())
    own = {v.ref() for modality in run for v in model.encoders[modality].trainable_variables}
    heads = [v for v in variables if v.ref() not in own]
    with tf.GradientTape() as tape:
        tape.watch(activations)
        tapped = [TappedViews(EncodedViews(views, activations))
                  for _ in range(len(model.tasks))]
        shares = model.shares(tapped, counts)
        total = tf.tensordot(model.step_weights(), shares, 1)
    head_gradients, wanted, tap_gradients = tape.gradient(
        total, (heads, activations, [x.taps for x in tapped]), unconnected_gradients="zero")

    gradients = {v.ref(): g for v, g in zip(heads, head_gradients, strict=True)}
    before = [x for part in wanted.values() for x in part.values()]
    for modality, view in reversed(model.encoded_views()):
        own_variables = model.encoders[modality].trainable_variables
        with (tf.control_dependencies(before), frozen_averages(), tf.GradientTape() as tape):
            again = encode_modality(
                model.run_encoder(modality), views, modality, [view], training=True)
        found = tape.gradient(again, own_variables, unconnected_gradients="zero",
                              output_gradients={key: wanted[modality][key] for key in again})
        before = found
        for variable, gradient in zip(own_variables, found, strict=True):
            key = variable.ref()
            gradients[key] = gradients[key] + gradient if key in gradients else gradient
    return Gradients([gradients[v.ref()] for v in variables], shares, summed_squares(tap_gradients))


def accumulated(compute: Callable[[Mapping[str, tf.Tensor]], Any],
                batch: Mapping[str, tf.Tensor], parts: int, zeros: Any) -> Any:
    """Sums what is computed of equal parts of a batch, one part in memory at a time.

    Args:
      compute: of a part.
      batch: of this replica; its static size is a multiple of `parts`.
      parts: how many.
      zeros: of the structure that `compute` returns.
    """
    stacked = {name: tf.reshape(value, [parts, value.shape[0] // parts, *value.shape[1:]])
               for name, value in batch.items()}

    def add(number: tf.Tensor | int, total: Any) -> Any:
        one = compute({name: value[number] for name, value in stacked.items()})
        return tf.nest.map_structure(tf.add, total, one)

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.while_loop(
            lambda number, total: number < parts,
            lambda number, total: (number + 1, add(number, total)),
            (tf.constant(0), zeros), parallel_iterations=1)[1]
    total = zeros
    for number in range(parts):  # Collectives must not stand inside a loop of the graph.
        with tf.control_dependencies(tf.nest.flatten(total)):
            total = add(number, total)
    return total


def summed_squares(gradients: Sequence[Sequence[tf.Tensor]]) -> tf.Tensor:
    """Summed squares of each task's gradients, float32 [n]."""
    return tf.stack([tf.add_n([2.0 * tf.nn.l2_loss(x) for x in own]) for own in gradients])
