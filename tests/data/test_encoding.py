import io
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from elo_tf.data import encoding, flow, media
from elo_tf.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def encode(path, start=None, end=None, **options):
    options = encoding.VideoOptions(**({"fps": 10.0, "min_side": 48} | options))
    return list(encoding.encode_video(encoding.VideoJob(str(path), start, end, options)))


def pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image).astype(float)


def brightness_error(data, frame):
    return np.abs((pixels(data) - frame) @ (0.299, 0.587, 0.114)).mean()


def decoded_clip(frames, **values):
    return media.DecodedClip(**({
        "frames": frames, "fps": 10.0, "start": 0.0, "audio": None, "silent": False,
        "damaged": False, "cut": False, "source_fps": 25.0} | values))


@pytest.fixture(scope="module")
def video(tmp_path_factory, make_video, texture):
    """2.4 seconds at 10 frames a second of a texture that moves right by 2 pixels a frame."""
    world = texture(130)
    frames = np.stack([world[:48, 60 - 2 * t:124 - 2 * t] for t in range(24)])
    tone = np.sin(np.arange(int(2.4 * 44100)) / 20) / 3
    return make_video(tmp_path_factory.mktemp("encoding") / "a.mp4", frames, audio=tone)


@pytest.fixture
def given_clips(monkeypatch):
    """Sets what the decoder gives."""
    def give(*clips):
        def decode(path, **options):
            for clip in clips:
                if isinstance(clip, Exception):
                    raise clip
                yield clip
        monkeypatch.setattr(media, "decode_clips", decode)
    return give


def test_a_video_becomes_jpegs_flow_and_sound(video):
    (decoded,) = media.decode_clips(video, fps=10.0, min_side=48)
    (clip,) = encode(video)
    assert (clip.height, clip.width, clip.fps, clip.start) == (48, 64, 10.0, 0.0)
    assert (clip.seconds, clip.source_fps) == (2.4, 10.0)
    assert not (clip.silent or clip.damaged or clip.cut)
    assert len(clip.images) == len(clip.flows) == 24
    for data, frame in zip(clip.images, decoded.frames, strict=True):
        assert data[:3] == b"\xff\xd8\xff"
        assert brightness_error(data, frame) < 1.5
        assert np.array_equal(tf.io.decode_jpeg(data).shape, frame.shape)
    expected = list(flow.optical_flow(decoded.frames))
    for data, step in zip(clip.flows, expected, strict=True):
        assert data[:4] == b"\x89PNG"
        assert np.array_equal(pixels(data), flow.quantise(step))
    assert np.abs(flow.dequantise(pixels(clip.flows[5]))[12:-12, 12:-12] - (2, 0)).max() < 0.5
    assert np.array_equal(clip.audio, decoded.audio)


def test_the_same_bytes_every_time(video):
    first, second = encode(video), encode(video)
    for clip in (*first, *second):
        clip.seconds_spent = {}
    assert pickle.dumps(first) == pickle.dumps(second)


@pytest.mark.parametrize("method", ["tvl1", "farneback"])
def test_the_flow_is_of_the_method_asked_for(video, method):
    (decoded,) = media.decode_clips(video, fps=10.0, min_side=48, end=0.3)
    (clip,) = encode(video, end=0.3, flow=method)
    expected = [flow.quantise(step) for step in flow.optical_flow(decoded.frames, method)]
    assert all(np.array_equal(pixels(data), step)
               for data, step in zip(clip.flows, expected, strict=True))
    (dis,) = encode(video, end=0.3)
    assert dis.flows != clip.flows
    assert dis.images == clip.images
    assert encode(video, end=0.3, flow="none")[0].flows is None


def test_clips_of_a_video(video):
    clips = encode(video, clip_seconds=1.0, stride_seconds=0.7)
    assert [clip.start for clip in clips] == pytest.approx([0, 0.7, 1.4])
    (whole,) = encode(video)
    for clip in clips:
        begin = round(clip.start * 10)
        assert clip.images == whole.images[begin:begin + 10]
        assert clip.flows[:9] == whole.flows[begin:begin + 9]
        assert clip.flows[9] == clip.flows[8]
        assert len(clip.audio) == 16000
    assert len(encode(video, start=0.5, end=1.5)[0].images) == 10


def test_quality_trades_bytes_for_error(video):
    (decoded,) = media.decode_clips(video, fps=10.0, min_side=48)
    sizes, errors = [], []
    for quality in (50, 92, 100):
        (clip,) = encode(video, flow="none", jpeg_quality=quality)
        sizes.append(sum(map(len, clip.images)))
        errors.append(np.mean([brightness_error(data, frame)
                               for data, frame in zip(clip.images, decoded.frames, strict=True)]))
    assert sizes == sorted(sizes) and errors == sorted(errors, reverse=True)
    # What Pillow writes at this quality has the same size.
    (clip,) = encode(video, flow="none")
    buffer = io.BytesIO()
    Image.fromarray(decoded.frames[0]).save(buffer, "JPEG", quality=92)
    assert abs(len(buffer.getvalue()) / len(clip.images[0]) - 1) < 0.02


def test_colours_are_not_swapped(given_clips):
    frame = np.zeros((32, 32, 3), np.uint8)
    frame[:] = (250, 120, 10)
    given_clips(decoded_clip([frame, frame]))
    (clip,) = encode("a.mp4")
    assert np.abs(pixels(clip.images[0]).mean((0, 1)) - (250, 120, 10)).max() < 3


def test_a_frame_that_is_shown_twice_is_encoded_once(given_clips, monkeypatch, texture):
    encoded = []
    real = encoding.cv2.imencode

    def count(extension, *rest):
        encoded.append(extension)
        return real(extension, *rest)

    monkeypatch.setattr(encoding.cv2, "imencode", count)
    a, b = texture(32), texture(32, seed=1)
    given_clips(decoded_clip([a, a, a, b, b]))
    (clip,) = encode("a.mp4")
    assert encoded.count(".jpg") == 2
    # Zero, zero, a to b, zero, and zero again for the last.
    assert encoded.count(".png") == 3
    assert [clip.images.index(data) for data in clip.images] == [0, 0, 0, 3, 3]
    assert [clip.flows.index(data) for data in clip.flows] == [0, 0, 2, 0, 0]


def test_errors_come_after_the_clips_before_them(given_clips, texture):
    given_clips(decoded_clip([texture(32)] * 2), media.MediaError("too_large", "in the middle"))
    clips = encoding.encode_video(encoding.VideoJob("a.mp4", None, None, encoding.VideoOptions()))
    assert len(next(clips).images) == 2
    with pytest.raises(media.MediaError, match="in the middle"):
        next(clips)


def test_marks_are_passed_on(given_clips, texture):
    given_clips(
        decoded_clip([texture(32)] * 2, silent=True, start=1.5),
        decoded_clip([texture(32)] * 2, damaged=True, cut=True, source_fps=0.0))
    first, second = encode("a.mp4", flow="none")
    assert (first.silent, first.damaged, first.cut, first.start, first.source_fps) == (
        True, False, False, 1.5, 25.0)
    assert (second.silent, second.damaged, second.cut, second.source_fps) == (
        False, True, True, 0.0)


def test_the_seconds_of_each_stage(monkeypatch, texture):
    frames = [texture(32, seed) for seed in range(3)]
    now = [0.0]

    def takes(seconds, result=None):
        now[0] += seconds
        return result

    def decode(path, **options):
        takes(2.0)
        yield decoded_clip(frames)
        takes(0.5)
        yield decoded_clip(frames)

    def slow_flow(frames, method):
        for frame in frames:
            takes(0.25)
            yield np.full((*frame.shape[:2], 2), 1.0)

    real = encoding.cv2.imencode
    monkeypatch.setattr(encoding.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(media, "decode_clips", decode)
    monkeypatch.setattr(flow, "optical_flow", slow_flow)
    monkeypatch.setattr(encoding.cv2, "imencode", lambda *x: takes(0.125, real(*x)))
    clips = encoding.encode_video(encoding.VideoJob("a.mp4", None, None, encoding.VideoOptions()))
    first = next(clips).seconds_spent
    takes(100.0)  # What is done with a clip is nobody's stage.
    second = next(clips).seconds_spent
    assert first == {"decode": 2.0, "flow": 0.75, "encode": 0.75}
    assert second == {"decode": 0.5, "flow": 0.75, "encode": 0.75}


def test_an_image_is_a_clip_of_one_frame(tmp_path, texture):
    picture = texture(80)[:60]
    Image.fromarray(picture).save(tmp_path / "a.png")
    (clip,) = encode(tmp_path / "a.png", images=True, min_side=60, fps=12.0)
    assert (len(clip.images), clip.height, clip.width, clip.fps) == (1, 60, 80, 12.0)
    assert clip.flows is None and clip.audio is None
    assert brightness_error(clip.images[0], picture) < 1.5
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(media.MediaError, match="undecodable"):
        encode(tmp_path / "a.png", images=True)


def test_frames_too_long_for_a_jpeg(given_clips):
    given_clips(decoded_clip([np.zeros((8, 65501, 3), np.uint8)] * 2))
    with pytest.raises(media.MediaError, match="65501x8 pixels cannot be stored as .jpg"):
        encode("a.mp4", flow="none")


def test_options_that_make_no_sense():
    with pytest.raises(UserError, match="'flownet'; use one of dis, tvl1, farneback, none"):
        encoding.VideoOptions(flow="flownet")
    with pytest.raises(UserError, match="jpeg_quality is 0"):
        encoding.VideoOptions(jpeg_quality=0)


def test_workers_import_neither_tensorflow_nor_scikit_image():
    program = ("import sys; from elo_tf.data import encoding; "
               "assert not {'tensorflow', 'skimage', 'scipy'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)
