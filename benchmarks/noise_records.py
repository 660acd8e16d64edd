"""Shards for the benchmarks of reading: clips of drifting texture, as hard to code as real ones."""

import itertools
import pathlib

import cv2
import numpy as np
from absl import logging

from elo_tf.data import encoding, records, schema

SPLIT = "unlabelled"
DISTINCT = 20  # so many are drawn; the others are copies under other names


def width_of(height: int) -> int:
    """Width of a frame of 4:3, even."""
    return height * 2 // 3 * 2


def make_records(folder: pathlib.Path, clips: int, height: int = 128, *, frames: int = 48,
                 fps: float = 8.0, shards: int = 8) -> None:
    """Writes a split of labelled clips without flow and sound, unless it is there.

    Args:
      folder: where to.
      clips: how many.
      height: of the frames, in pixels.
      frames: of each.
      fps: frames a second.
      shards: TFRecord files.
    """
    if (folder / schema.shard_name(SPLIT, shards - 1, shards)).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [_encoded(seed, frames, height) for seed in range(min(DISTINCT, clips))]
    size = np.mean([len(image) for images in drawn for image in images])
    logging.info("%d clips of %d frames of %dx%d, %.1f KB a frame", clips, frames,
                 width_of(height), height, size / 1e3)
    for shard in range(shards):
        records.write_shard(folder / schema.shard_name(SPLIT, shard, shards), (
            records.encode_example(
                encoding.EncodedClip(drawn[i % len(drawn)], None, None, fps, 0.0, height,
                                     width_of(height)),
                example_id=f"clip{i:05d}", label=i % 10, label_name=f"class{i % 10}")
            for i in range(shard, clips, shards)))


def _encoded(seed: int, frames: int, height: int) -> list[bytes]:
    """JPEGs of a texture with detail at all scales, drifting, and a second one in front of it."""
    width = width_of(height)
    generator = np.random.default_rng(seed)
    shape = (height + 4 * frames, width + 4 * frames)
    behind, before = (_texture(generator, *shape) for _ in range(2))
    quality = (cv2.IMWRITE_JPEG_QUALITY, encoding.VideoOptions.jpeg_quality)
    y, x = np.mgrid[:height, :width]
    images = []
    for t, way in zip(range(frames), itertools.cycle([0, 1, 1, 2]), strict=False):
        inside = np.hypot(y - height / 2, x - 30 - 2 * t) < 0.27 * height
        frame = np.where(inside[..., np.newaxis],
                         before[2 * t:2 * t + height, t:t + width],
                         behind[t + way:t + way + height, 2 * t:2 * t + width])
        frame = frame + generator.normal(scale=0.8, size=frame.shape)  # grain
        code = cv2.imencode(".jpg", np.clip(frame, 0, 255).astype(np.uint8), quality)[1]
        images.append(code.tobytes())
    return images


def _texture(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise whose amplitude falls with its frequency, as that of photographs does."""
    noise = np.fft.rfft2(generator.normal(size=(3, height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    smooth = np.fft.irfft2(noise / (frequency + 0.5 / width) ** 1.5, s=(height, width))
    smooth -= smooth.mean((1, 2), keepdims=True)
    return np.moveaxis(128 + 50 * smooth / smooth.std((1, 2), keepdims=True), 0, -1)
