"""What a clip is: how many frames, how fast, how large. Shared by reading, views and models."""

import dataclasses

import gin

from elo_tf.errors import UserError

MODALITIES = ("rgb", "flow", "gray", "audio")
CHANNELS = {"rgb": 3, "flow": 2, "gray": 1}
ANALYSIS_SECONDS = 0.025  # the log-mel's window


@gin.register
@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """The size of a clip in time and space.

    The paper trains on 32 frames of 224 x 224 and predicts N = 4 frames (Table 1); its frame rate
    is not known. Audio spans the same seconds as the frames.

    Attributes:
      frames: frames T of a clip.
      next_frames: frames N that follow it and are predicted.
      fps: frames a second of the clip, whatever the record's own rate. Flow is that between
        stored frames: store records at the rate of the clips.
      size: height and width in pixels.
      crop: side of the square crop as a share of the shorter side of the stored frame
        (224 of 256 by default, our choice).
      host_size: side of a training clip as it leaves the host, or 0 for `size`. A larger one
        leaves pixels to choose from to the random resized crops of the device (our choice: 0).
      sample_rate: of the waveform, in Hz.
      mel_per_frame: log-mel frames for each video frame (our choice).
      mel_bins: bins of the log-mel (our choice).
      other_gap: least distance in seconds between the start of a clip and that of its `other`
        window, the negative of alignment (our choice); below the clip's length they may overlap.
    """

    frames: int = 16
    next_frames: int = 4
    fps: float = 8.0
    size: int = 112
    crop: float = 0.875
    host_size: int = 0
    sample_rate: int = 16_000
    mel_per_frame: int = 10
    mel_bins: int = 64
    other_gap: float = 0.5

    def __post_init__(self):
        for name in ("frames", "next_frames", "fps", "size", "sample_rate", "mel_per_frame"):
            if getattr(self, name) <= 0:
                raise UserError(f"ClipSpec.{name} is {getattr(self, name)}; it must be positive")
        if self.host_size and self.host_size < self.size:
            raise UserError(f"ClipSpec.host_size is {self.host_size}; it must be 0, or at least "
                            f"ClipSpec.size, {self.size}")
        if not 0 < self.crop <= 1:
            raise UserError(f"ClipSpec.crop is {self.crop}; it is a share, in (0, 1]")

    @property
    def training_size(self) -> int:
        """Side of a training clip as it leaves the host."""
        return self.host_size or self.size

    @property
    def window(self) -> int:
        """Frames of a clip and what follows it: T + N."""
        return self.frames + self.next_frames

    def offset(self, frames: int) -> int:
        """The waveform sample that sounds when frame `frames` is shown."""
        return round(frames / self.fps * self.sample_rate)

    def samples(self, frames: int) -> int:
        """Waveform samples stored for `frames` frames.

        They go one analysis window past the last frame, so that every log-mel frame is made of
        real sound: a frame that is half silence would tell where a clip was cut.
        """
        return self.offset(frames) + round(ANALYSIS_SECONDS * self.sample_rate)

    @property
    def mel_hop_seconds(self) -> float:
        """Seconds between log-mel frames, so that each video frame has `mel_per_frame`."""
        return 1.0 / (self.fps * self.mel_per_frame)
