"""AVTS: are sound and picture in sync, by distance (Korbar, Tran and Torresani, NeurIPS 2018).

    L = y d^2 + (1 - y) max(eta - d, 0)^2        d = || f_v(v) - f_a(a) ||

A pair of the same time of the same video is positive. An easy negative takes the sound of another
video, a hard one that of another time of the same video. The curriculum begins with easy negatives
alone; later a share of them is hard. The original trains a network of three and two dimensions on
25 frames and a VGG-like one on spectrograms of one second; here our encoders take their places.
"""

import functools
from collections.abc import Callable

import gin
import tensorflow as tf

from elo_tf.tasks.alignment import next_present
from elo_tf.tasks.contrastive import EPSILON
from elo_tf.tasks.task import (
    Encoded,
    Present,
    Shapes,
    Task,
    TaskOutput,
    ViewKey,
    across_replicas,
    own_rows,
)


@gin.register
class AVTS(Task):
    """`rgb/sync`: margin loss on the distance of picture and sound; gradient to both."""

    family = "sync"
    chance = 0.5

    def __init__(self, modality: str = "rgb", *, margin: float = 0.99, width: int = 64,
                 hard_from: int = 0, hard_share: float = 0.25):
        """Makes the task.

        Args:
          modality: of the picture.
          margin: eta (0.99 from memory, unproven).
          width: of the common space (our choice).
          hard_from: clips of the stream before the first hard negative. The original begins with
            them at epoch 51 of 90 (from memory, unproven).
          hard_share: of the negatives from then on (a quarter from memory, unproven).
        """
        super().__init__(modality)
        self._margin = margin
        self._width = width
        self._hard_from = hard_from
        self._hard_share = hard_share

    @classmethod
    def members(cls) -> dict[str, Callable[[], Task]]:
        """One loss, of RGB and sound."""
        return {f"rgb/{cls.family}": functools.partial(cls, "rgb")}

    @property
    def encodes(self) -> tuple[ViewKey, ...]:
        """The picture, its sound, and the sound of another time."""
        return ((self.modality, "intact"), ("audio", "intact"), ("audio", "other_time"))

    def build_heads(self, shapes: Shapes) -> None:
        """Makes the projections into the common space."""
        self.picture = tf.keras.layers.Dense(self._width)
        self.sound = tf.keras.layers.Dense(self._width)
        self.picture.build((None, shapes.widths[self.modality]["embedding"]))
        self.sound.build((None, shapes.widths["audio"]["embedding"]))

    def mask(self, views: Present) -> tf.Tensor:
        """The clips with sound, in whose batch another clip has sound."""
        return self._negative(views)[0] >= 0

    def _negative(self, views: Present) -> tuple[tf.Tensor, tf.Tensor]:
        """Rows of the other clips, int32 [B], -1 without one; whether the negative is hard [B].

        Every 1 / hard_share-th clip of the stream has a hard negative, where it has another time.
        """
        present = tf.logical_and(views.present(self.modality), views.present("audio"))
        row = next_present(own_rows(present), across_replicas(present))
        position = views.position()
        step = tf.cast(position, tf.float64) * self._hard_share
        due = tf.floor(step + self._hard_share) > tf.floor(step)
        hard = tf.logical_and(tf.logical_and(due, position >= self._hard_from),
                              views.present("audio", "other_time"))
        return tf.where(present, row, -1), hard

    def _distances(self, encoded: Encoded) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Distances to the sound of its own and to a negative, [B] each; and the mask [B]."""
        row, hard = self._negative(encoded)
        picture = self.picture(encoded.activation(self.modality, "intact"))
        sound = self.sound(encoded.activation("audio", "intact"))
        easy = tf.gather(across_replicas(sound), tf.maximum(row, 0))
        elsewhere = self.sound(encoded.activation("audio", "other_time"))
        negative = tf.where(hard[:, tf.newaxis], elsewhere, easy)
        own, other = (tf.sqrt(tf.reduce_sum(tf.square(picture - x), axis=-1) + EPSILON)
                      for x in (sound, negative))
        return own, other, row >= 0

    def call(self, encoded: Encoded) -> TaskOutput:
        """The loss of both pairs of a clip, against that of features which are all the same."""
        # TensorFlow Addons is slow to import; only training needs it.
        from tensorflow_addons.losses import contrastive_loss

        own, other, mask = self._distances(encoded)
        # As Python: its own graph forgets the size of the batch once it was called with another.
        pairs = functools.partial(contrastive_loss.python_function, margin=self._margin)
        loss = 0.5 * (pairs(tf.ones_like(own), own) + pairs(tf.zeros_like(other), other))
        return TaskOutput(loss=loss, mask=mask,
                          trivial=tf.fill(tf.shape(loss), 0.5 * self._margin ** 2))

    def accuracy(self, encoded: Encoded) -> tf.Tensor:
        """Whether a clip's own sound is nearer than the negative, float32 [B]."""
        own, other, _ = self._distances(encoded)
        return tf.cast(own < other, tf.float32)
