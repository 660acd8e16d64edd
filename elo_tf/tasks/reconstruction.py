"""Reconstruction: rebuild the clip from its own feature (the paper's first task)."""

import gin

from elo_tf.tasks.decoding import DecodingTask


@gin.register
class Reconstruct(DecodingTask):
    """`{m}/reconstruct`: decode m (audio: its log-mel) from x_m; gradient to m."""

    family = "reconstruct"

    def __init__(self, modality: str, *, stride: int = 2, width: int = 32):
        """Makes the task.

        Args:
          modality: what is encoded and rebuilt.
          stride: resolution of the target below the clip's (our choice).
          width: channels of the decoder (our choice).
        """
        super().__init__(modality, (modality, "intact"), stride=stride, width=width)
