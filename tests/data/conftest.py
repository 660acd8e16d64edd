"""Writes video files with the oddities that real ones have, and records by the converter's code."""

import fractions
import io

import av
import numpy as np
import pytest


def _write(path, frames, *, fps=10, times=None, audio=None, audio_start=0.0, rate=44100,
           layout="mono", rotation=0, pixel_ratio=None, codec="libx264"):
    """Frames uint8 [T, H, W, 3]; times in seconds; audio float [S] at `rate`."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=fps)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv444p" if codec == "libx264" else "yuv420p"
        if codec == "libx264":
            video.options = {"qp": "5", "bf": "0"}
        else:  # With frames out of order, whose times AVI does not keep.
            video.options = {"qmin": "1", "qmax": "1", "bf": "2"}
        video.thread_count = 1
        video.bit_rate = 20_000_000
        if pixel_ratio:
            video.sample_aspect_ratio = fractions.Fraction(pixel_ratio)
        if times is not None:
            video.time_base = video.codec_context.time_base = fractions.Fraction(1, 1000)
        if rotation:
            video.set_display_rotation(rotation)
        if audio is not None:
            sound = container.add_stream("aac" if codec == "libx264" else "mp2", rate=rate,
                                         layout=layout)
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.time_base = fractions.Fraction(1, 1000)
                frame.pts = round(times[index] * 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            channels = 1 if layout == "mono" else 2
            sampled = np.repeat(np.asarray(audio, np.float32)[None], channels, 0)
            form = "fltp"
            if codec != "libx264":
                sampled, form = (sampled.T.reshape(1, -1) * 32767).astype(np.int16), "s16"
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(sampled), format=form, layout=layout)
            frame.sample_rate = rate
            frame.time_base = fractions.Fraction(1, rate)
            frame.pts = round(audio_start * rate)
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


@pytest.fixture(scope="session")
def make_video():
    """The function that writes a video file and returns its path."""
    return _write


@pytest.fixture(scope="session")
def gray_frames():
    """A function of brightness values: one uniform frame for each."""
    def frames(values, height=48, width=64):
        values = np.asarray(values, np.uint8)
        return np.broadcast_to(values[:, None, None, None], (len(values), height, width, 3))
    return frames


@pytest.fixture(scope="session")
def texture():
    """A function of size and seed: a smooth random picture, uint8 [size, size, 3]."""
    def picture(size, seed=0):
        import cv2

        noise = np.random.default_rng(seed).uniform(0, 255, (size, size, 3)).astype(np.float32)
        smooth = cv2.GaussianBlur(noise, (0, 0), 2)
        low, high = smooth.min(), smooth.max()
        return ((smooth - low) / (high - low) * 255).astype(np.uint8)
    return picture


def _encoded(image, file_format, **settings):
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, file_format, **settings)
    return buffer.getvalue()


def _make_clip(frames, flows=None, audio=None, fps=10.0):
    """An encoded clip of frames uint8 [N, H, W, 3] and flow codes uint8 [N, H, W, 3]."""
    from elo_tf.data import encoding

    return encoding.EncodedClip(
        images=[_encoded(x, "JPEG", quality=100, subsampling=0) for x in frames],
        flows=None if flows is None else [_encoded(x, "PNG") for x in flows],
        audio=audio, fps=fps, start=0.0, height=frames.shape[1], width=frames.shape[2])


def _write_split(folder, split, examples, shards=1):
    from elo_tf.data import records, schema

    for i in range(shards):
        records.write_shard(folder / schema.shard_name(split, i, shards), examples[i::shards])


@pytest.fixture(scope="session")
def encode_image():
    """A function of an image, the name of a format and its settings: the file's bytes."""
    return _encoded


@pytest.fixture(scope="session")
def make_clip():
    """The function that encodes frames without loss of colour."""
    return _make_clip


@pytest.fixture(scope="session")
def write_split():
    """The function that writes serialized records to the shards of a split."""
    return _write_split


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """24 unlabelled records in 3 shards, of brightness 10 i; a third each lack sound and flow."""
    from elo_tf.data import records

    folder = tmp_path_factory.mktemp("records")
    generator = np.random.default_rng(0)
    examples = []
    for i in range(24):
        frames = np.full((9 + i % 4, 16, 16, 3), 10 * i, np.uint8)
        flows = None if i % 3 == 0 else generator.integers(0, 256, frames.shape, np.uint8)
        seconds = len(frames) / 10
        audio = None if i % 3 == 1 else generator.normal(size=round(seconds * 16000)).astype("f")
        examples.append(records.encode_example(
            _make_clip(frames, flows, audio), example_id=f"v{i:02}", label=None if i % 2 else i,
            label_name=None if i % 2 else f"class{i}"))
    _write_split(folder, "unlabelled", examples, shards=3)
    return folder
