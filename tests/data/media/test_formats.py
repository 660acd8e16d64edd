"""Codecs, containers, sizes, orientations and names: the right source frame, seen upright."""

import fractions
import os
import struct

import av
import numpy as np
import pytest

from elo_tf.data import media


def decode(path, **options):
    (clip,) = media.decode_clips(path, **({"fps": 10, "min_side": 32} | options))
    return clip


def levels(clip):
    """Gray level of each frame, away from the borders."""
    return np.array([frame[8:-8, 8:-8].mean() for frame in clip.frames])


def reason(path, **options):
    with pytest.raises(media.MediaError) as error:
        decode(path, **options)
    return error.value.reason


def write(path, codec, values, *, pix_fmt="yuv420p", size=(64, 48), fps=20, options=None,
          container_format=None):
    """One uniform frame for each gray value."""
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.thread_count = 1
        for value in values:
            picture = np.full((size[1], size[0], 3), value, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


VALUES = 30 + 9 * np.arange(20)


@pytest.mark.parametrize(("codec", "suffix", "settings"), [
    ("libx264", "mp4", {"options": {"qp": "8", "bf": "2"}}),
    ("libx264", "ts", {"options": {"qp": "8", "bf": "2"}}),
    ("libx264", "flv", {"options": {"qp": "8", "bf": "0"}}),
    ("libx264", "mkv", {"pix_fmt": "yuv420p10le", "options": {"qp": "12"}}),
    ("libx265", "mp4", {"options": {"x265-params": "log-level=0:qp=8:pools=1:frame-threads=1"}}),
    ("libx265", "mkv", {"pix_fmt": "yuv420p10le",
                        "options": {"x265-params": "log-level=0:qp=8:pools=1:frame-threads=1"}}),
    ("libvpx-vp9", "webm", {"options": {"crf": "4", "b": "0", "cpu-used": "8"}}),
    ("libvpx", "webm", {"options": {"crf": "4", "b": "2M", "cpu-used": "8"}}),
    ("libsvtav1", "mp4", {"options": {"crf": "5", "preset": "12"}}),
    ("mpeg4", "avi", {"options": {"qmin": "1", "qmax": "2", "bf": "2"}}),
    ("mpeg4", "mp4", {"options": {"qmin": "1", "qmax": "2", "bf": "2"}}),
    ("mpeg2video", "mpg", {"fps": 25, "options": {"qmin": "1", "qmax": "2", "bf": "2"}}),
    ("mpeg1video", "mpg", {"fps": 25, "options": {"qmin": "1", "qmax": "2"}}),
    ("mjpeg", "avi", {"pix_fmt": "yuvj420p", "options": {"qmin": "1", "qmax": "2"}}),
    ("mjpeg", "mov", {"pix_fmt": "yuvj420p", "options": {"qmin": "1", "qmax": "2"}}),
    ("prores_ks", "mov", {"pix_fmt": "yuv422p10le"}),
    ("ffv1", "mkv", {"pix_fmt": "gray"}),
    ("png", "mov", {"pix_fmt": "rgb24"}),
    ("rawvideo", "avi", {"pix_fmt": "bgr24"}),
    ("gif", "gif", {"pix_fmt": "gray"}),
])
def test_codecs_and_containers(tmp_path, codec, suffix, settings):
    path = write(tmp_path / f"a.{suffix}", codec, VALUES, **settings)
    fps = settings.get("fps", 20)
    clip = decode(path)
    expected = VALUES[np.floor(np.arange(len(clip.frames)) / 10 * fps + 1e-6).astype(int)]
    assert len(clip.frames) == 20 * 10 // fps
    # Neighbours are 9 apart.
    np.testing.assert_allclose(levels(clip), expected, atol=3)
    assert clip.source_fps == pytest.approx(fps, rel=1e-3)
    assert not clip.damaged
    assert clip.audio is None and not clip.silent


@pytest.mark.parametrize(("codec", "name"), [("libx264", "h264"), ("libx265", "hevc")])
def test_a_stream_without_a_container_has_the_usual_rate(tmp_path, codec, name):
    options = {"qp": "8", "bf": "0"} if name == "h264" else {"x265-params": "log-level=0:qp=8"}
    path = write(tmp_path / "a.mp4", codec, VALUES, fps=25, options=options, container_format=name)
    clip = decode(path, fps=12.5)
    np.testing.assert_allclose(levels(clip), VALUES[::2], atol=3)


def test_time_stamps_of_screen_recordings(tmp_path):
    """Frames as they come, milliseconds apart or seconds."""
    path = tmp_path / "a.mkv"
    milliseconds = [0, 7, 13, 500, 520, 521, 1900, 2500]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000, options={"qp": "8"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = fractions.Fraction(1, 1000)
        for time, value in zip(milliseconds, VALUES, strict=False):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), value, np.uint8))
            frame.pts, frame.time_base = time, fractions.Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    clip = decode(path, fps=20)
    shown = np.searchsorted(milliseconds, 50 * np.arange(len(clip.frames)) + 1, "right") - 1
    assert len(clip.frames) >= 50
    np.testing.assert_allclose(levels(clip), VALUES[shown], atol=3)


@pytest.mark.parametrize(("size", "shape"), [
    ((151, 97), (32, 50, 3)), ((33, 301), (292, 32, 3)), ((31, 17), (32, 58, 3))])
def test_odd_sizes(tmp_path, size, shape):
    path = write(tmp_path / "a.mkv", "libx264", VALUES[:4], size=size, pix_fmt="yuv444p",
                 options={"qp": "4"})
    clip = decode(path)
    assert clip.frames[0].shape == shape
    np.testing.assert_allclose(levels(clip), VALUES[:4:2], atol=2)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "webm"])
def test_one_and_two_frames(tmp_path, suffix):
    codec, options = {"avi": ("mpeg4", {"qmin": "1", "qmax": "2"}),
                      "webm": ("libvpx-vp9", {"crf": "4", "b": "0"})}.get(
                          suffix, ("libx264", {"qp": "8"}))
    one = write(tmp_path / f"one.{suffix}", codec, VALUES[:1], fps=10, options=options)
    assert reason(one) == "too_short"
    np.testing.assert_allclose(levels(decode(one, min_frames=1)), VALUES[:1], atol=3)
    two = write(tmp_path / f"two.{suffix}", codec, VALUES[:2], fps=10, options=options)
    np.testing.assert_allclose(levels(decode(two)), VALUES[:2], atol=3)


MATRICES = {  # (a, b, c, d) of the display matrix, and what it does to a picture.
    (1, 0, 0, 1): lambda x: x,
    (0, 1, -1, 0): lambda x: np.rot90(x, -1),
    (-1, 0, 0, -1): lambda x: np.rot90(x, 2),
    (0, -1, 1, 0): lambda x: np.rot90(x, 1),
    (-1, 0, 0, 1): lambda x: x[:, ::-1],
    (1, 0, 0, -1): lambda x: x[::-1],
    (0, 1, 1, 0): lambda x: x.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda x: np.rot90(x.transpose(1, 0, 2), 2),
    (0, 0, 0, 0): lambda x: x,
}


@pytest.fixture(scope="module")
def corner_video(tmp_path_factory, make_video):
    """Bytes of an mp4, and its picture, which looks different in all eight orientations."""
    picture = np.full((48, 64, 3), 128, np.uint8)
    picture[:24, :32] = (230, 30, 30)
    picture[:24, 32:] = (30, 30, 230)
    path = make_video(tmp_path_factory.mktemp("corner") / "a.mp4", np.stack([picture] * 3))
    return path.read_bytes(), picture


@pytest.mark.parametrize("matrix", MATRICES)
def test_all_orientations(tmp_path, corner_video, matrix):
    content, picture = corner_video

    def header(a, b, c, d):
        return struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)

    place = content.index(header(1, 0, 0, 1), content.index(b"tkhd"))
    (tmp_path / "a.mp4").write_bytes(
        content[:place] + header(*matrix) + content[place + 36:])
    upright = MATRICES[matrix](picture)
    frame = decode(tmp_path / "a.mp4", min_side=48).frames[0]
    assert frame.shape == upright.shape
    difference = np.abs(frame.astype(int) - upright).max(-1)
    assert np.median(difference) < 6
    assert (difference > 40).mean() < 0.1  # The edges of the coloured corners.
    part = decode(tmp_path / "a.mp4", min_side=24, region=(0, 0, 0.5, 0.5)).frames[0]
    height, width = (x // 2 for x in upright.shape[:2])
    assert part.shape == (height, width, 3)
    assert np.median(np.abs(part.astype(int) - upright[:height, :width]).max(-1)) < 6


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"),
                                               ("avi", "mpeg4")])
def test_pixels_that_are_not_square(tmp_path, make_video, gray_frames, suffix, codec):
    path = make_video(tmp_path / f"a.{suffix}", gray_frames([50] * 3), codec=codec,
                      pixel_ratio=fractions.Fraction(4, 3))
    shape = decode(path, min_side=48).frames[0].shape
    # AVI has no place for it, but MPEG-4 streams do.
    assert shape == (48, 85, 3)


def test_the_best_of_several_tracks(tmp_path):
    """The track marked as default is taken, of equals the larger; pictures on covers never."""
    def tracks(name, *specs):
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            streams = []
            for value, size, default in specs:
                stream = container.add_stream("libx264", rate=10, options={"qp": "8"})
                stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
                stream.disposition = av.stream.Disposition.default if default else 0
                streams.append((stream, value, size))
            for _ in range(5):
                for stream, value, size in streams:
                    picture = np.full((size[1], size[0], 3), value, np.uint8)
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            for stream, *_ in streams:
                container.mux(stream.encode(None))
        return levels(decode(path))[0]

    small, large = (64, 48), (128, 96)
    assert tracks("a.mkv", (60, small, False), (160, small, True)) == pytest.approx(160, abs=3)
    assert tracks("b.mkv", (60, small, True), (160, small, False)) == pytest.approx(60, abs=3)
    assert tracks("c.mkv", (60, small, True), (160, large, True)) == pytest.approx(160, abs=3)
    assert tracks("d.mp4", (60, small, True), (160, large, False)) == pytest.approx(60, abs=3)


def test_sound_only_with_and_without_a_cover(tmp_path):
    for name, cover in (("plain.m4a", False), ("cover.mp4", True)):
        path = tmp_path / name
        with av.open(str(path), "w", format="mp4") as container:
            sound = container.add_stream("aac", rate=16000, layout="mono")
            picture = None
            if cover:
                picture = container.add_stream("mjpeg", rate=1)
                picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
                picture.disposition = av.stream.Disposition.attached_pic
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8))
                container.mux(picture.encode(frame))
                container.mux(picture.encode(None))
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        with av.open(str(path)) as container:
            assert len(container.streams.video) == cover
        assert reason(path) == "no_video_stream"


def test_names(tmp_path, monkeypatch, make_video, gray_frames):
    source = make_video(tmp_path / "source.mp4", gray_frames([50] * 5))
    monkeypatch.chdir(tmp_path)
    for name in ("with space.mp4", "it's.mp4", 'say "x".mp4', "a,b;c.mp4", "🎬🦆.mp4", "кино.mp4",
                 "100%25 %s %03d.mp4", "a:b.mp4", "file:a.mp4", "concat:source.mp4|source.mp4",
                 "pipe:0", "-i.mp4", "a?b#c&d.mp4", "[1]*.mp4", "new\nline.mp4", "back\\slash.mp4",
                 "e\u0301.mp4", os.fsdecode(b"\xff\xfe\x80.mp4")):
        os.link(source, name)
        assert len(decode(name).frames) == 5
        assert len(decode(tmp_path / name).frames) == 5
