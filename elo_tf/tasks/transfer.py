"""Cross-modality transfer: from one modality's feature, another modality (the third task)."""

import types
from collections.abc import Mapping

import gin

from elo_tf.tasks.decoding import DecodingTask
from elo_tf.tasks.partners import partner_of

# Gray to RGB is colourisation.
PARTNERS = types.MappingProxyType({"rgb": "flow", "flow": "rgb", "gray": "rgb", "audio": "rgb"})


@gin.register
class Transfer(DecodingTask):
    """`{m}/transfer`: decode the partner's clip from x_m; gradient to m only."""

    family = "transfer"

    def __init__(self, modality: str, *, partners: Mapping[str, str] = PARTNERS, stride: int = 2,
                 audio_stride: int = 4, width: int = 32):
        """Makes the task.

        Args:
          modality: what is encoded.
          partners: what each modality decodes (our choice; the paper names flow to RGB and RGB to
            flow).
          stride: resolution of the target below the clip's (our choice).
          audio_stride: the same where sound must draw the picture, which it can but coarsely.
          width: channels of the decoder (our choice).
        """
        target = partner_of(modality, partners, self.family)
        super().__init__(modality, (target, "intact"), width=width,
                         stride=audio_stride if modality == "audio" else stride)
