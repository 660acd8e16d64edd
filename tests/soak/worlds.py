"""Tiny worlds in which pretext tasks can be solved, as batches of training clips."""

import dataclasses
import functools

import numpy as np

from elo_tf.data import schema
from elo_tf.data.clip_spec import ANALYSIS_SECONDS, ClipSpec
from elo_tf.views.clip_views import RGB_MEAN
from elo_tf.views.log_mel import LogMel

CLIP = ClipSpec(frames=8, next_frames=4, fps=16.0, size=16, mel_bins=16, mel_per_frame=4)
ANGLES = 256
COLOUR = np.array([1.0, 0.8, -0.6], np.float32)
CONTRAST = 80.0  # of 255
LOUDNESS = 1.6  # of the log-mel
TONE = 1.2  # bins
LEVEL, SILENCE = 15.0, -15.0  # decibels that become 1 and 0 in the log-mel
QUARTERS = 4


@dataclasses.dataclass(frozen=True)
class Orbits:
    """Clips of a blob that goes round the middle of a grey picture, and hums.

    Drawn for each clip: where on the circle it starts, how fast it goes, and whether its hum is
    louder or softer than the background. All go the same way round. The hum's pitch is the angle:
    it rises, and from the highest bin comes back to the lowest. The ground is darker along the
    circle and flows the other way, by as much as makes the mean of each pixel's colour and flow
    zero: to answer the mean explains nothing. No frame of colours or bins tells which way time
    goes; one of flow does, by where the blob is, unless circles lie anywhere. The label is the
    quarter of the circle that a clip starts in.

    Attributes:
      noise: deviation of each pixel's colour and flow (pixels), and of each bin's loudness, where
        the blob's colour is 1. It hides from random features what is there to be seen.
      anywhere: whether the circle's middle is drawn too; the picture continues around its borders.
      speed: range, radians a frame.
      clip: the clip's size.
    """

    noise: float = 0.1
    anywhere: bool = False
    speed: tuple[float, float] = (0.3, 0.5)
    clip: ClipSpec = CLIP

    def batch(self, seed: int, size: int) -> dict[str, np.ndarray]:
        """Draws a batch as `training_clips` gives it; other seeds give other clips."""
        draw = np.random.Generator(np.random.PCG64(seed))
        start = draw.uniform(0, 2 * np.pi, size)
        turn = draw.uniform(*self.speed, size)
        sign = draw.choice([-1.0, 1.0], size)
        whole = self._window(draw, start, turn, sign, self.clip.window)
        other = self._window(draw, start + np.pi, turn, sign, self.clip.frames)
        return whole | {f"other_{name}": value for name, value in other.items()} | described(
            draw, seed, (start * QUARTERS / (2 * np.pi)).astype(int), flow=True, sound=True)

    def _window(self, draw, start, turn, sign, frames):
        angle = start[:, None] + turn[:, None] * np.arange(frames)  # [B, T]
        pictures, flows = _turning(self.clip.size)
        at = np.round(angle * (ANGLES / (2 * np.pi))).astype(int) % ANGLES
        rgb, flow = pictures[at], flows[at] * turn[:, None, None, None, None]
        if self.anywhere:
            rgb = rgb - pictures.mean()
            for one, shift in enumerate(draw.integers(0, self.clip.size, (len(start), 2))):
                rgb[one], flow[one] = (np.roll(x[one], shift, (1, 2)) for x in (rgb, flow))
        else:
            rgb = rgb - pictures.mean(0)
            flow = flow - flows.mean(0) * np.mean(self.speed)
        rgb = rgb[..., None] * COLOUR
        rgb = rgb + self.noise * draw.standard_normal(rgb.shape, np.float32)
        flow = flow + self.noise * draw.standard_normal(flow.shape, np.float32)
        return {"rgb": coloured(rgb), "flow": coded(flow),
                "audio": self._sound(draw, start, turn, sign, frames)}

    def _sound(self, draw, start, turn, sign, frames):
        clip = self.clip
        steps = frames * clip.mel_per_frame + 2
        angle = start[:, None] + turn[:, None] * np.arange(steps) / clip.mel_per_frame
        pitch = clip.mel_bins * angle[..., None] / (2 * np.pi)
        tone = np.exp(-0.5 * (_around(np.arange(clip.mel_bins) - pitch, clip.mel_bins) / TONE) ** 2)
        level = LOUDNESS * (tone - tone.mean(-1, keepdims=True)) * sign[:, None, None]  # [B, F, M]
        level = level + self.noise * draw.normal(size=level.shape)
        return sound(level, clip, clip.samples(frames))


def described(draw: np.random.Generator, seed: int, labels: np.ndarray, *, flow: bool,
              sound: bool) -> dict[str, np.ndarray]:
    """What a batch holds besides its clips; of other seeds, it stands elsewhere in the stream."""
    size = len(labels)
    return {"has_flow": np.full(size, flow), "has_audio": np.full(size, sound),
            "has_other": np.full(size, sound), "index": np.arange(size) + size * np.int64(seed),
            "key": draw.integers(0, 2**31 - 1, size), "label": labels.astype(np.int64)}


def coloured(rgb: np.ndarray) -> np.ndarray:
    """Uint8 colours; 0 is what becomes 0 in the networks' input."""
    return np.clip(255 * RGB_MEAN + CONTRAST * rgb, 0, 255).astype(np.uint8)


def coded(flow: np.ndarray) -> np.ndarray:
    """The uint8 code of a flow in pixels."""
    code = np.round(127.5 + flow * (127.5 / schema.FLOW_CLIP))
    return np.clip(code, 0, 255).astype(np.uint8)


def _around(offset, length):
    """The same offset on a circle, by the shorter way."""
    return (offset + length / 2) % length - length / 2


@functools.lru_cache
def _turning(size):
    """A blob at each of the angles, and its flow for a turn of 1 radian a frame.

    Returns:
      float32 [ANGLES, size, size] and [ANGLES, size, size, 2].
    """
    angle = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    place = np.arange(size) - (size - 1) / 2
    x, y = (0.25 * size * f(angle)[:, None, None] for f in (np.cos, np.sin))
    across, down = (np.exp(-0.5 * (_around(place - at, size) / (0.15 * size)) ** 2)
                    for at in (x, y))
    picture = across * down.transpose(0, 2, 1)
    flow = picture[..., None] * np.stack(np.broadcast_arrays(-y, x), -1)
    return picture.astype(np.float32), flow.astype(np.float32)


def sound(level: np.ndarray, clip: ClipSpec, samples: int) -> np.ndarray:
    """A waveform whose log-mel is about `level`: one sine for each mel bin, of changing loudness.

    Args:
      level: [B, F, M], log-mel; at least 2 frames more than the clip's.
      clip: the clip's size.
      samples: length of the waveform.

    Returns:
      float32 [B, samples].
    """
    amplitude = (10 ** ((SILENCE + LEVEL * level) / 20) / _gain(clip)).astype(np.float32)
    amplitude = np.concatenate([amplitude[:, :1], amplitude], axis=1)
    hop, lead = _hop(clip)
    blocks = amplitude.shape[1] - 1
    rising, falling = _waves(clip, blocks)  # [F, M, hop]
    frames = amplitude.transpose(1, 0, 2)
    parts = frames[:-1] @ falling + frames[1:] @ rising  # [F, B, hop]
    return parts.transpose(1, 0, 2).reshape(len(level), -1)[:, lead:lead + samples]


def _hop(clip):
    """Samples of a log-mel frame, and of the part of one before the middle of the first window."""
    hop = round(clip.mel_hop_seconds * clip.sample_rate)
    return hop, -round(ANALYSIS_SECONDS / 2 * clip.sample_rate) % hop


@functools.lru_cache
def _waves(clip, blocks):
    """Each bin's sine, rising from nothing and falling to it over each hop: [F, M, hop] twice."""
    hop, _ = _hop(clip)
    mel = np.linspace(*(2595 * np.log10(1 + f / 700) for f in (125.0, 7500.0)), clip.mel_bins + 2)
    pitch = 700 * (10 ** (mel[1:-1] / 2595) - 1)  # Hz, the middles of the bins
    phase = np.random.Generator(np.random.PCG64(5)).uniform(0, 2 * np.pi, clip.mel_bins)
    seconds = np.arange(blocks * hop).reshape(blocks, 1, hop) / clip.sample_rate
    sine = np.sin(2 * np.pi * pitch[:, None] * seconds + phase[:, None])
    rise = np.arange(hop) / hop
    return (sine * rise).astype(np.float32), (sine * (1 - rise)).astype(np.float32)


@functools.lru_cache
def _gain(clip):
    """What the log-mel makes of each bin's sine of amplitude 1: its magnitude, [M]."""
    rising, falling = _waves(clip, clip.frames * clip.mel_per_frame)
    sines = 0.1 * (rising + falling).transpose(1, 0, 2).reshape(clip.mel_bins, -1)
    mel = LogMel(mel_bins=clip.mel_bins, hop_seconds=clip.mel_hop_seconds)(sines)
    decibels = LEVEL * np.median(mel.numpy(), axis=1) + SILENCE  # [sine, M]
    return 10 * 10 ** (np.diag(decibels) / 20)


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Still clips of a hill of light: each part of the picture is steep towards the middle.

    So the slope of a patch tells where it is from. Brightness and contrast are drawn for each clip.

    Attributes:
      noise: deviation of each pixel, where the hill is 2 high from its top to the corners.
      clip: the clip's size.
    """

    noise: float = 0.3
    clip: ClipSpec = dataclasses.replace(CLIP, frames=4, next_frames=1, size=32)

    def batch(self, seed: int, size: int) -> dict[str, np.ndarray]:
        """As `Orbits.batch`, without flow and sound."""
        draw = np.random.Generator(np.random.PCG64(seed))
        place = (np.arange(self.clip.size) + 0.5) * 2 / self.clip.size - 1
        hill = 1 - np.sqrt(2) * np.hypot(place, place[:, None])  # 1 to -1
        level, contrast = draw.uniform([[-0.3], [0.7]], [[0.3], [1.3]], (2, size))
        picture = level[:, None, None] + contrast[:, None, None] * hill
        rgb = np.broadcast_to(picture[:, None, ..., None],
                              (size, self.clip.window, *hill.shape, 3)).astype(np.float32)
        rgb = rgb + self.noise * draw.standard_normal(rgb.shape, np.float32)
        return {"rgb": coloured(rgb)} | described(
            draw, seed, np.full(size, -1), flow=False, sound=False)


@dataclasses.dataclass(frozen=True)
class Balls:
    """Clips of a striped ball that crosses the picture; its stripes have a direction of its own.

    Attributes:
      noise: deviation of each pixel's colour, where stripes are 1 above or below the ground.
      clip: the clip's size.
    """

    noise: float = 0.3
    clip: ClipSpec = dataclasses.replace(CLIP, frames=4, next_frames=1, size=32)

    def batch(self, seed: int, size: int) -> dict[str, np.ndarray]:
        """As `Orbits.batch`, without sound and another time."""
        draw = np.random.Generator(np.random.PCG64(seed))
        side, frames = self.clip.size, self.clip.window
        stripes, way = draw.uniform(0, np.pi, size), draw.uniform(0, 2 * np.pi, size)
        velocity = 2.0 * np.stack([np.cos(way), np.sin(way)])  # pixels a frame
        middle = velocity[..., None] * (np.arange(frames) - (frames - 1) / 2)  # [2, B, T]
        place = np.arange(side) - (side - 1) / 2
        x = place - middle[0][..., None, None]  # [B, T, 1, side]
        y = place[:, None] - middle[1][..., None, None]
        ball = np.clip(side / 5 - np.hypot(x, y), 0, 1)
        turn = stripes[:, None, None, None]
        across = np.cos(turn) * x + np.sin(turn) * y
        rgb = (ball * np.sign(np.sin(across * (2 * np.pi / 6))))[..., None]
        rgb = rgb + self.noise * draw.standard_normal((*ball.shape, 3), np.float32)
        flow = ball[..., None] * velocity.T[:, None, None, None]
        return {"rgb": coloured(rgb), "flow": coded(flow)} | described(
            draw, seed, np.full(size, -1), flow=True, sound=False)
