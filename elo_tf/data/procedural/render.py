"""Pictures of procedural scenes, drawn at any size.

Nothing is looked up on a pixel grid: outlines are signed distances, textures and background are
sums of waves, all evaluated at the exact place of each pixel. So a frame at a fractional shift
looks no softer than one at a whole shift, and no clip starts on a grid of its own.
"""

import numpy as np

from elo_tf.data.procedural.scene import WORLD_SIDE, Background, Look, Ripples, Scene, Trajectory
from elo_tf.data.procedural.shapes import SHAPES, TEXTURES

# Brightness falls along every object by this much per radius, so that no shape or texture looks
# the same after a quarter or half turn.
_SHADE = np.float32(0.12)


def _wrap(distance: np.ndarray) -> np.ndarray:
    """The shortest way round the joined edges."""
    return (distance + WORLD_SIDE / 2) % WORLD_SIDE - WORLD_SIDE / 2


def _paint(frames: np.ndarray, look: Look, position: np.ndarray, radius: np.ndarray,
           angle: np.ndarray) -> None:
    """Draws an object over frames float32 [T, H, W, 3]."""
    size = frames.shape[1]
    pixels = (np.arange(size) + 0.5) / size
    x = _wrap(pixels - position[:, :1])[:, None, :].astype(np.float32)
    y = _wrap(pixels - position[:, 1:])[:, :, None].astype(np.float32)
    cosine = (np.cos(angle) / radius)[:, None, None].astype(np.float32)
    sine = (np.sin(angle) / radius)[:, None, None].astype(np.float32)
    u = cosine * x + sine * y
    v = cosine * y - sine * x
    pixels_per_radius = (radius * size)[:, None, None].astype(np.float32)
    # The outline and the texture's edges are one pixel soft.
    cover = np.clip(0.5 - SHAPES[look.shape](u, v) * pixels_per_radius, 0.0, 1.0)
    frequency = np.float32(look.frequency)
    field = TEXTURES[look.texture](frequency * u, frequency * v)
    mix = np.clip(0.5 + field * (pixels_per_radius / frequency), 0.0, 1.0)
    first, second = look.colours.astype(np.float32)
    for channel in range(3):
        colour = second[channel] + (first[channel] - second[channel]) * mix + _SHADE * u
        layer = frames[..., channel]
        layer += cover * (colour - layer)


def _draw_background(background: Background, offset: np.ndarray, size: int) -> np.ndarray:
    """Returns the background shifted by offset [T, 2], float32 [T, size, size, 3]."""
    pixels = (np.arange(size) + 0.5) / size
    rate_x, rate_y, phase, amplitude = background.waves.T
    # cos(a + b) = cos a cos b - sin a sin b: a part of (time, row) times a part of column.
    rows = rate_y * (pixels[:, None] - offset[:, None, 1:]) - rate_x * offset[:, None, :1] + phase
    columns = rate_x[:, None] * pixels
    left = np.concatenate([np.cos(rows), -np.sin(rows)], -1) * np.tile(amplitude, 2)
    right = np.concatenate([np.cos(columns), np.sin(columns)], 0)
    # einsum, not matmul: its result does not depend on the number of threads.
    texture = np.einsum("thk,kw->thw", left.astype(np.float32), right.astype(np.float32))
    tint = background.tint.astype(np.float32)
    return texture[..., None] * tint + background.colour.astype(np.float32)


def _draw_ripples(frames: np.ndarray, ripples: Ripples, offset: np.ndarray,
                  times: np.ndarray) -> None:
    """Adds the rings that are alive at each time to frames float32 [T, H, W, 3]."""
    size = frames.shape[1]
    pixels = (np.arange(size) + 0.5) / size
    for start, place, strength in zip(
            ripples.start, ripples.place, ripples.strength, strict=True):
        age = (times - start) % ripples.CYCLE
        alive = np.flatnonzero(age < ripples.LIFE)
        age = age[alive]
        centre = place + offset[alive]
        x = _wrap(pixels - centre[:, :1])[:, None, :].astype(np.float32)
        y = _wrap(pixels - centre[:, 1:])[:, :, None].astype(np.float32)
        radius = (ripples.SPEED * age)[:, None, None].astype(np.float32)
        height = (strength * (1.0 - age / ripples.LIFE))[:, None, None].astype(np.float32)
        across = (np.hypot(x, y) - radius) * np.float32(1.0 / ripples.WIDTH)
        frames[alive] += (height * np.exp(-across * across))[..., None]


def render(scene: Scene, path: Trajectory, times: np.ndarray, size: int) -> np.ndarray:
    """Draws the frames of a clip.

    Args:
      scene: what is there.
      path: where it is at `times`.
      times: float [T], seconds; the camera drifts by them.
      size: side of the square frames, pixels.

    Returns:
      uint8 [T, size, size, 3], RGB.
    """
    offset = scene.camera.offset(np.asarray(times, np.float64))
    frames = _draw_background(scene.background, offset, size)
    _draw_ripples(frames, scene.ripples, offset, np.asarray(times, np.float64))
    _paint(frames, scene.other, path.other_position + offset,
           np.full(len(times), scene.other_radius), np.full(len(times), scene.other_angle))
    _paint(frames, scene.main, path.position + offset, path.radius, path.angle)
    return (np.clip(frames, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
