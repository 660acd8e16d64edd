"""Clips of a video while it is being decoded: the same as each by itself, at the right seconds."""

import fractions
import time

import av
import numpy as np
import pytest

from elo_tf.data import media
from elo_tf.data.media import container as media_file
from elo_tf.data.media import frames as media_frames

FPS = 20
SECONDS = 14


def clips(path, **options):
    return list(media.decode_clips(path, **({"fps": 10, "min_side": 32} | options)))


def brightness(clip):
    return np.array([frame.mean() for frame in clip.frames])


def write(path, values, *, fps=FPS, times=None, codec="libx264", options=None, sound=None,
          sound_codec="aac", muxer=None):
    """Frames of a gray level with some texture; times in seconds; sound at 44.1 kHz."""
    texture = np.random.default_rng(1).integers(-12, 13, (48, 64, 1))
    with av.open(str(path), "w", options=muxer or {}) as container:
        video = container.add_stream(codec, rate=fps, options=options or {"qp": "8", "g": "20"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.thread_count = 1
        if times is not None:
            video.time_base = video.codec_context.time_base = fractions.Fraction(1, 1000)
        track = None
        if sound is not None:
            # No substituted noise, which a decoder draws anew each time.
            track = container.add_stream(
                sound_codec, rate=44100, layout="mono",
                options={"aac_pns": "0"} if sound_codec == "aac" else {})
        done = 0
        for i, value in enumerate(values):
            picture = np.clip(np.roll(texture, i, 1) + value, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.repeat(picture, 3, 2), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[i] * 1000), fractions.Fraction(1, 1000)
            container.mux(video.encode(frame))
            # Sound goes in beside its pictures, as in real files.
            until = round((i + 1) / fps * 44100) if i + 1 < len(values) else len(sound or ())
            while track is not None and until > done + 4000:
                stop = until if until < done + 2 * 44100 else done + 44100
                part = (np.asarray(sound[done:stop]) * 32767).astype(np.int16)[None]
                frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
                frame.sample_rate, frame.pts = 44100, done
                frame.time_base = fractions.Fraction(1, 44100)
                resampler = av.AudioResampler(track.format.name, "mono", 44100)
                for piece in resampler.resample(frame):
                    container.mux(track.encode(piece))
                done = stop
        container.mux(video.encode(None))
        if track is not None:
            container.mux(track.encode(None))
    return path


def gray(seconds, fps=FPS):
    """Levels that tell each frame from its neighbours."""
    return 40 + (np.arange(round(seconds * fps)) * 37) % 170


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Long files with sound, of several containers: {name: path}."""
    folder = tmp_path_factory.mktemp("clips")
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, SECONDS * 44100)
    smooth = list(np.convolve(noise, np.hanning(9) / 4, "same"))
    open_gop = {"qp": "10", "g": "30", "bf": "3", "x264-params": "open-gop=1:b-pyramid=2"}
    made = {}
    for name, settings in {
            "a.mp4": {"options": open_gop},
            "a.mkv": {"options": open_gop, "sound_codec": "flac"},
            "a.ts": {"options": open_gop, "sound_codec": "mp2"},
            "a.flv": {"options": {"qp": "10", "g": "30"}},
            "a.avi": {"codec": "mpeg4", "options": {"qmin": "2", "qmax": "3", "bf": "2"},
                      "sound_codec": "pcm_s16le"},
            "a.mpg": {"codec": "mpeg2video", "options": {"qmin": "2", "qmax": "3", "bf": "2"},
                      "sound_codec": "mp2", "fps": 25},
            "a.mov": {"codec": "mjpeg", "options": {"qmin": "2", "qmax": "2"},
                      "sound_codec": "pcm_s16be"}}.items():
        if name == "a.mov":
            settings["options"] |= {"strict": "-1"}
        levels = gray(SECONDS, settings.get("fps", FPS))
        made[name] = write(folder / name, levels, sound=smooth, **settings)
    return made


NAMES = ["a.mp4", "a.mkv", "a.ts", "a.flv", "a.avi", "a.mpg", "a.mov"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("length", "stride"), [(2.5, None), (3.0, 1.3), (1.5, 3.1)])
def test_a_clip_is_the_same_as_by_itself(videos, name, length, stride):
    streamed = clips(videos[name], clip_seconds=length, stride_seconds=stride)
    step = length if stride is None else stride
    assert len(streamed) >= SECONDS // step - 1
    for i, clip in enumerate(streamed):
        assert clip.start == i * step
        (alone,) = clips(videos[name], start=clip.start, end=clip.start + length)
        assert len(clip.frames) == len(alone.frames)
        assert np.array_equal(clip.frames, alone.frames)
        assert clip.audio.shape == (round(len(clip.frames) / 10 * 16000),)
        np.testing.assert_allclose(clip.audio, alone.audio, atol=1e-4)
        assert np.sqrt(np.mean(np.square(clip.audio))) > 0.05
        assert not clip.damaged and not alone.damaged and not clip.cut


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_each_output_time_shows_its_source_frame(videos, name):
    whole = gray(SECONDS)
    for clip in clips(videos[name], fps=7, clip_seconds=3, stride_seconds=1.7, start=0.35):
        places = np.floor((clip.start + np.arange(len(clip.frames)) / 7) * FPS + 0.04).astype(int)
        np.testing.assert_allclose(brightness(clip), whole[places], atol=4)


@pytest.mark.parametrize(("seconds", "length", "stride", "expected"), [
    (10.0, 4.0, 4.0, [(0, 40), (4, 40), (8, 20)]),  # Exactly half a clip.
    (9.9, 4.0, 4.0, [(0, 40), (4, 40)]),
    (1.5, 4.0, 4.0, [(0, 15)]),  # The only one may be shorter.
    (10.0, 5.0, 5.0, [(0, 50), (5, 50)]),
    (10.0, 4.0, 2.0, [(0, 40), (2, 40), (4, 40), (6, 40)]),  # What comes after shows no more.
    (10.5, 4.0, 2.0, [(0, 40), (2, 40), (4, 40), (6, 40), (8, 25)]),
    (10.0, 2.0, 3.5, [(0, 20), (3.5, 20), (7, 20)]),
    (10.0, 2.0, 4.5, [(0, 20), (4.5, 20), (9, 10)]),
    (1.0, 0.5, 0.1, [(0.1 * i, 5) for i in range(6)]),
])
def test_where_clips_lie(tmp_path, seconds, length, stride, expected):
    path = write(tmp_path / "a.mkv", gray(seconds))
    found = clips(path, clip_seconds=length, stride_seconds=stride)
    assert [(clip.start, len(clip.frames)) for clip in found] == expected
    assert {clip.source_fps for clip in found} == {20.0}


def test_begins_do_not_drift(tmp_path):
    """A sum of strides would be off after a while."""
    path = write(tmp_path / "a.mkv", gray(12))
    found = clips(path, clip_seconds=0.1, stride_seconds=0.1, min_frames=1)
    assert [clip.start for clip in found] == [i * 0.1 for i in range(120)]
    np.testing.assert_allclose([frame.mean() for clip in found for frame in clip.frames],
                               gray(12)[::2], atol=4)


def test_the_limit_of_seconds_cuts_the_last_clip(tmp_path):
    path = write(tmp_path / "a.mp4", gray(10))

    def found(maximum, **options):
        limits = media.Limits(max_seconds=maximum)
        return [(clip.start, len(clip.frames), clip.cut)
                for clip in clips(path, limits=limits, **options)]

    assert found(7, clip_seconds=3) == [(0, 30, False), (3, 30, True)]
    assert found(8, clip_seconds=3) == [(0, 30, False), (3, 30, False), (6, 20, True)]
    assert found(10, clip_seconds=3) == [(0, 30, False), (3, 30, False), (6, 30, False)]
    assert found(9, clip_seconds=3) == [(0, 30, False), (3, 30, False), (6, 30, True)]
    assert found(4, clip_seconds=3, start=2.0, end=6.0) == [(2, 30, False)]
    assert found(3) == [(0, 30, True)]
    assert found(10) == [(0, 100, False)]


def test_only_what_is_shown_becomes_a_picture(videos, monkeypatch):
    made = []
    picture = media_frames._Pictures.picture
    monkeypatch.setattr(media_frames._Pictures, "picture",
                        lambda self, frame: made.append(frame.pts) or picture(self, frame))
    apart = clips(videos["a.mp4"], clip_seconds=1, stride_seconds=4)
    assert len(made) == sum(len(clip.frames) for clip in apart) == 40
    made.clear()
    overlapping = clips(videos["a.mp4"], clip_seconds=4, stride_seconds=1)
    assert len(made) == len(set(made)) == SECONDS * 10
    assert overlapping[0].frames[10] is overlapping[1].frames[0]


def test_clips_come_while_the_file_is_read(videos, monkeypatch):
    packets = []
    decode = media_file._decode
    monkeypatch.setattr(media_file, "_decode",
                        lambda stream, packet: packets.append(stream) or decode(stream, packet))
    counts = []
    for _ in media.decode_clips(videos["a.mp4"], fps=10, min_side=32, clip_seconds=2):
        counts.append(len(packets))
    share = np.array(counts) / len(packets)
    np.testing.assert_allclose(share[:-1], np.arange(1, 7) / 7, atol=0.05)


def test_a_limit_met_late_leaves_the_clips_before(tmp_path):
    times = np.concatenate([np.arange(40) / 20, 2 + np.arange(500) / 500])
    path = write(tmp_path / "a.mkv", gray(27)[:540], times=times)
    reader = media.decode_clips(path, fps=10, min_side=32, clip_seconds=1,
                                limits=media.Limits(max_frames=300))
    assert [next(reader).start for _ in range(2)] == [0, 1]
    with pytest.raises(media.MediaError, match="too_many_frames"):
        next(reader)


def test_an_error_in_the_middle_marks_its_clip(tmp_path):
    path = write(tmp_path / "a.mp4", gray(10))
    with av.open(str(path)) as container:
        broken = [(packet.pos, packet.size) for packet in container.demux(video=0)
                  if packet.pts is not None and 4.2 < float(packet.pts * packet.time_base) < 4.6]
    content = bytearray(path.read_bytes())
    for place, size in broken:
        content[place:place + size] = b"\xff" * size
    path.write_bytes(content)
    found = clips(path, clip_seconds=2)
    assert [clip.damaged for clip in found] == [False, False, True, False, False]
    np.testing.assert_allclose(brightness(found[1]), gray(10)[40:80:2], atol=4)
    np.testing.assert_allclose(brightness(found[3]), gray(10)[120:160:2], atol=4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [1.0, 0.58])
def test_a_file_that_ends_early_is_damaged_at_its_end(videos, tmp_path, name, share):
    content = videos[name].read_bytes()
    if name in ("a.mp4", "a.mov"):  # The index at the end would be lost.
        path = tmp_path / f"fast_{name}"
        with av.open(str(videos[name])) as source, av.open(
                str(path), "w", options={"movflags": "faststart"}) as target:
            streams = {stream.index: target.add_stream_from_template(stream)
                       for stream in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream_index]
                    target.mux(packet)
        content = path.read_bytes()
    path = tmp_path / name
    path.write_bytes(content[:round(len(content) * share)])
    found = clips(path, clip_seconds=3)
    damaged = [clip.damaged for clip in found]
    if share == 1:
        assert damaged == [False] * 5
    else:
        assert len(found) == 3 and len(found[2].frames) < 30
        assert not any(damaged[:-1])
        if name not in ("a.ts", "a.mpg"):  # They do not say how long they are.
            assert damaged[-1]


@pytest.mark.parametrize("far", [301.0, 1e6])
def test_a_time_stamp_far_ahead_ends_the_video(tmp_path, far):
    times = np.concatenate([np.arange(60) / 20, [3 + far], 4 + far + np.arange(10) / 20])
    path = write(tmp_path / "a.mkv", gray(5)[:len(times)], times=times)
    began = time.monotonic()
    found = clips(path, clip_seconds=2)
    assert [(clip.start, len(clip.frames), clip.damaged) for clip in found] == [
        (0, 20, False), (2, 10, True)]
    (whole,) = clips(path)
    assert len(whole.frames) == 30 and whole.damaged
    assert time.monotonic() - began < 5


def test_a_picture_may_stand_still_for_a_while(tmp_path):
    times = [0, 0.5, 25, 25.5, 26]
    path = write(tmp_path / "a.mkv", [60, 100, 140, 180, 220], times=times)
    found = clips(path, clip_seconds=5)
    assert [len(clip.frames) for clip in found[:5]] == [50] * 5
    assert not any(clip.damaged for clip in found)
    np.testing.assert_allclose(brightness(found[3]), 100, atol=4)
    assert found[3].frames[0] is found[3].frames[49]


def write_held(path, held, *, codec="mpeg4"):
    """A second of 25 frames, the last of which is declared to be shown for `held` seconds."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25, options={"qmin": "1", "qmax": "4"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for value in gray(1, 25):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), value, np.uint8))
            for packet in video.encode(frame):
                last = packet.pts == 24
                packet.duration = round(held * 25) if last else 1
                container.mux(packet)
        container.mux(video.encode(None))
    return path


@pytest.mark.parametrize("suffix", ["mov", "mp4", "mkv"])
def test_a_picture_that_is_held_at_the_end_is_shown(tmp_path, suffix):
    path = write_held(tmp_path / f"a.{suffix}", 3.04)
    (whole,) = clips(path)
    assert len(whole.frames) == 40 and not whole.damaged and not whole.cut
    np.testing.assert_allclose(brightness(whole)[10:], gray(1, 25)[-1], atol=4)
    assert whole.frames[10] is whole.frames[39]
    found = clips(path, clip_seconds=1.5)
    assert [(clip.start, len(clip.frames), clip.damaged) for clip in found] == [
        (0, 15, False), (1.5, 15, False), (3.0, 10, False)]
    (cut,) = clips(path, limits=media.Limits(max_seconds=3))
    assert len(cut.frames) == 30 and cut.cut
    (usual,) = clips(write_held(tmp_path / f"b.{suffix}", 0.04))
    assert len(usual.frames) == 10 and not usual.damaged


@pytest.mark.parametrize(("held", "declared", "count", "damaged"), [
    (250.0, 4.0, 40, False),  # Not longer than the file.
    (1.04, 4.0, 20, True),
    (400.0, 500.0, 10, True),  # As time stamps that lie further apart.
])
def test_how_long_a_last_picture_is_held(tmp_path, monkeypatch, held, declared, count, damaged):
    path = write_held(tmp_path / "a.mkv", held)
    monkeypatch.setattr(media_file.MediaFile, "declared_end", lambda self: (0.0, declared))
    (clip,) = clips(path, limits=media.Limits(max_seconds=1000))
    assert (len(clip.frames), clip.damaged) == (count, damaged)


def test_the_sound_of_a_picture_that_stands_still_for_minutes_is_kept(tmp_path):
    rate, held = 44100, 120
    loudness = np.repeat(np.arange(held + 2) % 5, rate) / 8  # Of each second another.
    tone = loudness * np.sin(2 * np.pi * 440 * np.arange(len(loudness)) / rate)
    path = write(tmp_path / "a.mkv", [60, 100, 140, 180], times=[0, 1, held + 1, held + 2],
                 sound=list(tone), sound_codec="pcm_s16le", muxer={"max_interleave_delta": "0"})
    found = clips(path, clip_seconds=1, limits=media.Limits(max_seconds=1000))
    assert len(found) == held + 2
    assert not any(clip.damaged for clip in found)
    for second, clip in enumerate(found):
        volume = 0.0 if clip.audio is None else np.sqrt(2) * clip.audio[1600:-1600].std()
        assert volume == pytest.approx(second % 5 / 8, abs=0.01)


def test_strides_of_nothing_are_refused(videos):
    with pytest.raises(ValueError, match="every 0 s"):
        clips(videos["a.mp4"], clip_seconds=2, stride_seconds=0)
