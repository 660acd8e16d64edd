"""Multisensory: aligned or shifted sound, by early fusion (Owens and Efros, ECCV 2018).

Sound is fused early: both streams are joined before most of the video network, which goes on
with what it sees and hears. The original stacks the two streams' channels and takes them through a
1 x 1 x 1 convolution, which is the sum of a projection of each. Here the projection of the
video stream is held at the identity: without sound, the encoder is the network that is evaluated.
Aligned and shifted sound are of one video, and both are shown (`both_examples` in their code).
"""

import functools
import math
from collections.abc import Callable

import gin
import tensorflow as tf

from elo_tf.models import decoders
from elo_tf.tasks.task import Encoded, Shapes, Task, TaskOutput, ViewKey

SHIFTED = "other_time"


@gin.register
class Multisensory(Task):
    """`rgb/multisensory`: aligned or shifted, from the fused network; gradient to both."""

    family = "multisensory"
    chance = 0.5

    def __init__(self, modality: str = "rgb", *, fusion: str = "block2"):
        """Makes the task.

        How far the sound is shifted is `ClipSpec.other_gap` at least: 2.0 to 5.8 seconds in the
        original (from memory, unproven).

        Args:
          modality: of the picture.
          fusion: the block of both encoders after which they are joined. The original joins them
            after the first stage of its video network (our choice here: the second of four).
        """
        super().__init__(modality)
        self._fusion = fusion

    @classmethod
    def members(cls) -> dict[str, Callable[[], Task]]:
        """One loss, of RGB and sound."""
        return {f"rgb/{cls.family}": functools.partial(cls, "rgb")}

    @property
    def encodes(self) -> tuple[ViewKey, ...]:
        """The picture, its sound, and the sound of another time."""
        return ((self.modality, "intact"), ("audio", "intact"), ("audio", SHIFTED))

    @property
    def maps(self) -> tuple[tuple[str, str, str], ...]:
        """What is fused."""
        return tuple((*key, self._fusion) for key in self.encodes)

    def build_heads(self, shapes: Shapes) -> None:
        """Makes the projection of the sound and the classifier."""
        widths = shapes.widths
        self.projection = tf.keras.layers.Dense(widths[self.modality][self._fusion])
        self.projection.build((None, widths["audio"][self._fusion]))
        self.classifier = decoders.classifier(1, name=self.name.replace("/", "_") + "_logit")
        self.classifier.build((None, widths[self.modality]["embedding"]))

    def _logits(self, encoded: Encoded) -> tuple[tf.Tensor, tf.Tensor]:
        """Of the aligned and of the shifted sound, float32 [B] each."""
        picture = encoded.map(self.modality, "intact", self._fusion)  # [B, t, h, w, C]
        frames = picture.shape[1]
        fused = []
        for view in ("intact", SHIFTED):
            sound = encoded.map("audio", view, self._fusion)  # [B, f, m, c]
            sound = self.projection(at_frames(tf.reduce_mean(sound, axis=2), frames))
            fused.append(picture + sound[:, :, tf.newaxis, tf.newaxis])
        # In one call, so that batch normalisation sees both alike.
        embedding = encoded.after(self.modality, self._fusion, tf.concat(fused, axis=0))
        aligned, shifted = tf.split(self.classifier(embedding)[:, 0], 2)
        return aligned, shifted

    def call(self, encoded: Encoded) -> TaskOutput:
        """Mean cross-entropy of both, against that of chance, ln 2."""
        aligned, shifted = self._logits(encoded)
        loss = 0.5 * (tf.nn.softplus(-aligned) + tf.nn.softplus(shifted))
        return TaskOutput(loss=loss, mask=self.mask(encoded),
                          trivial=tf.fill(tf.shape(loss), math.log(2.0)))

    def accuracy(self, encoded: Encoded) -> tf.Tensor:
        """The share of the two that is told right, float32 [B]."""
        aligned, shifted = self._logits(encoded)
        return 0.5 * (tf.cast(aligned > 0, tf.float32) + tf.cast(shifted < 0, tf.float32))


def at_frames(sound: tf.Tensor, frames: int) -> tf.Tensor:
    """Brings a sequence to the times of a video's frames, by averages over equal spans.

    Args:
      sound: float32 [B, F, C].
      frames: T.

    Returns:
      float32 [B, T, C]; an entry is repeated where there are fewer than T.
    """
    length = sound.shape[1]
    starts = [i * length // frames for i in range(frames)]
    ends = [max(-(-(i + 1) * length // frames), start + 1) for i, start in enumerate(starts)]
    return tf.stack([tf.reduce_mean(sound[:, start:end], axis=1)
                     for start, end in zip(starts, ends, strict=True)], axis=1)
