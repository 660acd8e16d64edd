"""Prediction: from a clip's feature, the frames that follow (the paper's second task, N = 4)."""

import gin

from elo_tf.tasks.decoding import DecodingTask


@gin.register
class Predict(DecodingTask):
    """`{m}/predict`: decode the next N frames (audio: the same seconds) from x_m; gradient to m.

    N is `ClipSpec.next_frames`.
    """

    family = "predict"

    def __init__(self, modality: str, *, stride: int = 2, width: int = 32):
        """Makes the task.

        Args:
          modality: what is encoded, and whose future is decoded.
          stride: resolution of the target below the clip's (our choice).
          width: channels of the decoder (our choice).
        """
        super().__init__(modality, (modality, "next"), stride=stride, width=width)
