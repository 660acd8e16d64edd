"""An exported encoder, and videos to embed with it."""

import dataclasses
import json

import numpy as np
import pytest

from elo_tf.data.media import write as media_write

FRAMES, FPS, SIZE, CROP = 4, 4.0, 17, 0.85


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The folder of a small exported encoder, whose clips are 4 frames at 4 a second."""
    import tensorflow as tf

    from elo_tf.data.clip_spec import ClipSpec
    from elo_tf.serving import export

    folder = tmp_path_factory.mktemp("exported")
    (folder / "encoder").mkdir()
    tf.keras.utils.set_random_seed(7)
    inputs = tf.keras.Input([None, None, None, 3])
    block = tf.keras.layers.Conv3D(6, 3, strides=(1, 2, 2), padding="same")(inputs)
    pooled = tf.keras.layers.GlobalAveragePooling3D()(tf.keras.layers.ReLU()(block))
    outputs = {"embedding": tf.keras.layers.Dense(5)(pooled)}
    tf.keras.Model(inputs, outputs).save(folder / "encoder" / "rgb.keras")
    clip = ClipSpec(frames=FRAMES, fps=FPS, size=SIZE, crop=CROP)
    (folder / "encoder" / "clip.json").write_text(json.dumps({
        **dataclasses.asdict(clip), "mean": 0.45, "scale": 0.225, "commit": "abc",
        "config": "f00d"}))
    export.export_encoder(folder / "encoder", folder / "elo", warmup=False)
    return folder / "elo"


def make_video(path, *, seed: int, frames: int, width: int, height: int, fps: float = 8.0):
    """A video whose colour and pattern change from frame to frame, and with the seed."""
    draw = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[:height, :width]
    tilt, speed, colour = draw.uniform(0.1, 0.5, 2), draw.uniform(0.3, 1.5), draw.uniform(0, 6, 3)
    time = np.arange(frames)[:, None, None, None]
    wave = np.sin((tilt[0] * x + tilt[1] * y)[None, :, :, None] + speed * time + colour)
    media_write.write_video(path, np.round(127.5 + 120 * wave).astype(np.uint8), fps)


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Six good videos of several lengths and shapes, and two that are none."""
    folder = tmp_path_factory.mktemp("videos")
    for seed, (name, frames, width, height) in enumerate((
            ("a/long.mp4", 43, 48, 32), ("a/wide.mp4", 40, 58, 32), ("b/tall.mp4", 40, 32, 50),
            ("b/short.mp4", 4, 40, 30), ("b/small.mp4", 24, 16, 12), ("c.mp4", 31, 36, 36))):
        make_video(folder / name, seed=seed, frames=frames, width=width, height=height)
    (folder / "a" / "text.mp4").write_text("no video")
    (folder / "b" / "empty.mp4").touch()
    (folder / "notes.txt").write_text("neither")
    return folder
