"""The shape that reconstruction, prediction and transfer share: decode a target from a feature.

    L = || y - D(x_m) ||^2 / dim(y)        (paper, the encoder-decoder tasks: "L2 distance")

The decoder reads the clip's embedding x_m alone, so that what it needs must be in the feature that
is kept. Targets are averaged down to the decoder's resolution; sizes are our choice.
"""

import tensorflow as tf

from elo_tf.data.clip_spec import CHANNELS
from elo_tf.models import decoders
from elo_tf.tasks.task import Encoded, Shapes, Task, TaskOutput, ViewKey


class DecodingTask(Task):
    """Decodes one view of one modality from the intact clip of another, or of the same."""

    def __init__(self, modality: str, target: ViewKey, *, stride: int, width: int):
        """See the families for the parameters.

        Args:
          modality: of the clip that is encoded.
          target: the view to decode; its gradient reaches no encoder, for it is data.
          stride: the target's spatial resolution is the clip's size divided by this.
          width: channels of the decoder's last hidden layer.
        """
        super().__init__(modality)
        self.target = target
        self._stride = stride
        self._width = width

    @property
    def encodes(self) -> tuple[ViewKey, ...]:
        """The intact clip only."""
        return ((self.modality, "intact"),)

    @property
    def decodes(self) -> tuple[ViewKey, ...]:
        """The target."""
        return (self.target,)

    def build_heads(self, shapes: Shapes) -> None:
        """Makes the decoder."""
        clip = shapes.clip
        modality, view = self.target
        frames = clip.next_frames if view == "next" else clip.frames
        inputs = shapes.widths[self.modality]["embedding"]
        name = self.name.replace("/", "_") + "_decoder"
        if modality == "audio":
            self.decoder = decoders.audio_decoder(
                frames * clip.mel_per_frame, clip.mel_bins, width=self._width, name=name)
        else:
            self.decoder = decoders.video_decoder(
                frames, max(clip.size // self._stride, 1), CHANNELS[modality], width=self._width,
                name=name)
        self.decoder.build((None, inputs))

    def call(self, encoded: Encoded) -> TaskOutput:
        """Mean squared error an example, against that of always answering the mean.

        Views are standardised: the mean colour, flow and loudness of videos is 0.
        """
        modality, view = self.target
        target = encoded.view(modality, view)
        if modality != "audio":
            target = shrink(target, self._stride)
        decoded = self.decoder(encoded.activation(self.modality, "intact"))
        axes = list(range(1, target.shape.rank))
        return TaskOutput(
            loss=tf.reduce_mean(tf.square(target - decoded), axes),
            mask=self.mask(encoded),
            trivial=tf.reduce_mean(tf.square(target), axes))


def shrink(video: tf.Tensor, stride: int) -> tf.Tensor:
    """Averages [B, T, H, W, C] over squares of `stride` pixels."""
    if stride == 1:
        return video
    return tf.nn.avg_pool3d(video, (1, stride, stride), (1, stride, stride), "VALID")
