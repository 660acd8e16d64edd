"""Samplers: what cuts small items out of a clip, for tasks that compare frames, pieces or tiles.

A task owns its samplers and names their views. The items of a view go through the modality's
encoder as clips of their own; the task reads their activations as [B, K, D].
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import tensorflow as tf

# A view of a modality: ("rgb", "shuffled").
ViewKey = tuple[str, str]


class Sample(NamedTuple):
    """The items that a sampler has cut out of a batch.

    Attributes:
      items: float32 [B, K, t, h, w, C]; all but B static.
      truth: what was drawn, tensors [B, ...] by name, such as the order of the items.
    """

    items: tf.Tensor
    truth: Mapping[str, tf.Tensor]


class Sampler(Protocol):
    """Cuts K items out of every clip: a function of the clips and of one seed for each.

    Attributes:
      sources: the views that it cuts from; an example without one of them does not count.
    """

    sources: tuple[ViewKey, ...]

    def __call__(self, sources: Sequence[tf.Tensor], seeds: tf.Tensor) -> Sample:
        """Cuts.

        Args:
          sources: the views, float32 [B, T, H, W, C] each; of unknown value where absent.
          seeds: int64 [B, 2].
        """


def example_seeds(seed: int, index: tf.Tensor, key: tf.Tensor, purpose: int) -> tf.Tensor:
    """A seed for each example, from where it stands in the stream and what it is.

    Args:
      seed: of the run.
      index: int64 [B], positions in the stream.
      key: int64 [B], hashes of the ids.
      purpose: draws for other purposes are independent.

    Returns:
      int64 [B, 2].
    """
    fold = tf.random.experimental.stateless_fold_in

    def own(example: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        return fold(fold(tf.constant([seed, purpose]), example[0]), example[1])

    return tf.map_fn(own, (index, key), fn_output_signature=tf.TensorSpec([2], tf.int64))


def uniform(seeds: tf.Tensor, shape: Sequence[int], number: int = 0) -> tf.Tensor:
    """Stateless draws for every example, whatever the batch it is in.

    Args:
      seeds: int64 [B, 2].
      shape: of one example's draws.
      number: draws of other numbers are independent.

    Returns:
      float32 [B, *shape], uniform in [0, 1).
    """
    fold = tf.random.experimental.stateless_fold_in
    return tf.map_fn(lambda own: tf.random.stateless_uniform(shape, fold(own, number)), seeds,
                     fn_output_signature=tf.TensorSpec(shape, tf.float32))
