"""Sound: codecs and layouts, clicks at known times, late, early, silent, several tracks, drift."""

import fractions

import av
import numpy as np
import pytest

from elo_tf.data import media
from elo_tf.data.media import sound as media_sound

SECONDS = 2.0
CLICKS = (0.4, 1.1, 1.65)


def decode(path, **options):
    (clip,) = media.decode_clips(path, **({"fps": 10, "min_side": 32} | options))
    return clip


def clicks(rate, seconds=SECONDS, times=CLICKS):
    """Short bursts of 1 kHz, whose middle lies at the times."""
    sound = np.zeros(round(seconds * rate), np.float32)
    length = round(0.02 * rate)
    burst = np.hanning(length) * np.cos(2 * np.pi * 1000 * (np.arange(length) / rate - 0.01)) * 0.8
    for time in times:
        first = round(time * rate) - length // 2
        sound[first:first + length] += burst
    return sound


def heard(audio, rate=16000):
    """Times of the bursts: the middle of each stretch that is loud."""
    loudness = np.convolve(np.abs(audio), np.hanning(160) / 80, "same")
    loud = np.flatnonzero(loudness > loudness.max() / 2)
    groups = np.split(loud, np.flatnonzero(np.diff(loud) > 0.1 * rate) + 1)
    return [float(np.average(group, weights=loudness[group])) / rate for group in groups]


def write(path, tracks, *, seconds=SECONDS, codec="libx264", video_start=0.0, default=0,
          muxer=None):
    """Gray frames at 10 a second; tracks: dictionaries of codec, rate, layout, sound, start."""
    with av.open(str(path), "w", options=muxer or {}) as container:
        video = container.add_stream(codec, rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.time_base = video.codec_context.time_base = fractions.Fraction(1, 10)
        streams = []
        for i, track in enumerate(tracks):
            stream = container.add_stream(track["codec"], rate=track["rate"],
                                          layout=track["layout"], options={"strict": "-2"})
            stream.disposition = av.stream.Disposition.default if i == default else 0
            streams.append(stream)
        for i in range(round(seconds * 10)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8))
            frame.pts = i + round(video_start * 10)
            frame.time_base = fractions.Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for stream, track in zip(streams, tracks, strict=True):
            rate = track["rate"]
            channels = av.AudioLayout(track["layout"]).nb_channels
            loud = track.get("channels", range(channels))
            sound = np.zeros((channels, len(track["sound"])), np.float32)
            sound[list(loud)] = track["sound"]
            frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout=track["layout"])
            frame.sample_rate, frame.time_base = rate, fractions.Fraction(1, rate)
            frame.pts = round(track.get("start", 0.0) * rate)
            resampler = av.AudioResampler(stream.format.name, track["layout"], rate)
            for part in resampler.resample(frame) + resampler.resample(None):
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
    return path


def track(codec="aac", rate=44100, layout="mono", **more):
    return {"codec": codec, "rate": rate, "layout": layout, "sound": clicks(rate)} | more


@pytest.mark.parametrize(("suffix", "codec", "rate", "layout"), [
    ("mp4", "aac", 44100, "stereo"), ("mp4", "aac", 8000, "mono"), ("mp4", "aac", 48000, "5.1"),
    ("mp4", "aac", 96000, "stereo"), ("mkv", "libopus", 48000, "stereo"),
    ("mkv", "flac", 22050, "mono"), ("mkv", "ac3", 48000, "5.1"),
    ("mkv", "libmp3lame", 32000, "mono"),
    ("mov", "pcm_s16le", 11025, "stereo"), ("mov", "pcm_f32le", 16000, "mono"),
    ("avi", "mp2", 44100, "stereo"), ("avi", "pcm_u8", 8000, "mono"), ("ts", "mp2", 48000, "mono"),
    ("mkv", "pcm_s24le", 192000, "stereo"), ("mkv", "vorbis", 44100, "stereo"),
])
def test_codecs_rates_and_layouts(tmp_path, suffix, codec, rate, layout):
    if suffix == "avi":
        path = write(tmp_path / "a.avi", [track(codec, rate, layout)], codec="mpeg4")
    else:
        path = write(tmp_path / f"a.{suffix}", [track(codec, rate, layout)])
    clip = decode(path)
    assert len(clip.frames) == 20
    assert clip.audio.shape == (32000,)
    assert not clip.damaged
    # MPEG-2 files and AVI say when sound starts to within a frame of its codec.
    tolerance = 0.03 if codec == "mp2" else 0.003
    np.testing.assert_allclose(heard(clip.audio), CLICKS, atol=tolerance)
    assert 0.2 < np.abs(clip.audio).max() <= 1.0


@pytest.mark.parametrize("channel", [0, 1, 2, 4, 5])
def test_every_channel_of_a_film_is_heard(tmp_path, channel):
    path = write(tmp_path / "a.mkv", [track("flac", 48000, "5.1", channels=[channel])])
    np.testing.assert_allclose(heard(decode(path).audio), CLICKS, atol=0.002)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_that_starts_late_or_ends_early_keeps_its_place(tmp_path, suffix):
    late = write(tmp_path / f"late.{suffix}",
                 [track(start=1.0, sound=clicks(44100, 1.0, (0.3,)))])
    audio = decode(late).audio
    np.testing.assert_allclose(heard(audio), [1.3], atol=0.003)
    assert not audio[:15000].any()
    early = write(tmp_path / f"early.{suffix}", [track(sound=clicks(44100, 0.8, (0.5,)))])
    audio = decode(early).audio
    assert audio.shape == (32000,)
    np.testing.assert_allclose(heard(audio), [0.5], atol=0.003)
    assert not audio[16000:].any()
    before = write(tmp_path / f"before.{suffix}", [track()], video_start=0.5, seconds=1.5)
    np.testing.assert_allclose(heard(decode(before).audio), np.array(CLICKS[1:]) - 0.5, atol=0.003)


def test_the_default_track_is_heard(tmp_path):
    tracks = [track("flac", 44100, sound=clicks(44100, times=(0.5,))),
              track("flac", 44100, sound=clicks(44100, times=(1.5,)))]
    for default in (0, 1):
        path = write(tmp_path / f"{default}.mkv", tracks, default=default)
        np.testing.assert_allclose(heard(decode(path).audio), [0.5 + default], atol=0.003)


@pytest.mark.parametrize(("decibels", "silent"), [(-58.5, False), (-61.5, True)])
def test_what_counts_as_silence(tmp_path, decibels, silent):
    hum = np.sin(2 * np.pi * 300 * np.arange(88200) / 44100) * np.sqrt(2) * 10 ** (decibels / 20)
    clip = decode(write(tmp_path / "a.mkv", [track("flac", sound=hum.astype(np.float32))]))
    assert clip.silent == silent
    assert (clip.audio is None) == silent


def frames(sound, rate, times, layout="mono", length=1000):
    """Audio frames of some samples with these times, in ticks of 1 / 90000 s."""
    for part, time in zip(sound.reshape(-1, length), times, strict=True):
        channels = av.AudioLayout(layout).nb_channels
        frame = av.AudioFrame.from_ndarray(
            np.repeat(part[None], channels, 0), format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = rate, fractions.Fraction(1, 90000)
        frame.pts = round(time * 90000)
        yield frame


def test_a_clock_that_drifts_stays_with_the_picture():
    """Samples that come 2% slower than the track says, as after bad conversions."""
    rate = 16000
    times = np.arange(320) / 16 * 1.02
    stretched = 1.02 * np.arange(20.0)[1:19]
    sound = clicks(rate, 20.0, stretched / 1.02)
    track = media_sound.SoundTrack(100.0)
    track.add(list(frames(sound, rate, times)), 0.0)
    for time in stretched:
        audio = track.waveform(time - 0.5, 16000)
        np.testing.assert_allclose(heard(audio), [0.5], atol=0.02)


def test_gaps_are_silent_and_changes_of_form_are_heard():
    rate = 16000
    sound = clicks(rate, 4.0, (0.5, 1.5, 2.5, 3.5))
    track = media_sound.SoundTrack(100.0)
    parts = sound.reshape(4, -1)
    for i, (layout, offset) in enumerate([("mono", 0), ("stereo", 0), ("mono", 1), ("mono", 1)]):
        track.add(list(frames(parts[i], rate, i + offset + np.arange(16) / 16, layout)), 0.0)
    assert track.end == pytest.approx(5.0)
    audio = track.waveform(0.0, 5 * rate)
    np.testing.assert_allclose(heard(audio), [0.5, 1.5, 3.5, 4.5], atol=0.002)
    assert not audio[2 * rate + 100:3 * rate - 100].any()
    assert not track.damaged


def test_a_stretch_does_not_depend_on_what_was_read_before():
    rate = 44100
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 441_000).astype(np.float32)
    times = np.arange(441) / 44.1
    whole, later = media_sound.SoundTrack(100.0), media_sound.SoundTrack(100.0)
    whole.add(list(frames(sound, rate, times)), 0.0)
    later.add(list(frames(sound, rate, times)), 3.7 - media_sound.MARGIN)
    expected = whole.waveform(4.0, 16000)
    np.testing.assert_array_equal(later.waveform(4.0, 16000), expected)
    whole.forget(4.0 - media_sound.MARGIN)
    np.testing.assert_array_equal(whole.waveform(4.0, 16000), expected)
    assert np.abs(expected).max() > 0.2


def test_what_is_kept_is_limited():
    track = media_sound.SoundTrack(2.0)
    sound = clicks(16000, 10.0, (0.5, 5.5))
    track.add(list(frames(sound, 16000, np.arange(160) / 16)), 0.0)
    assert track.damaged
    assert track.end == pytest.approx(10.0)
    np.testing.assert_allclose(heard(track.waveform(0.0, 160_000)), [0.5], atol=0.002)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_long_frame_costs_each_stretch_a_few_seconds_only(rate, monkeypatch):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 61 * rate).astype(np.float32)
    whole, short = media_sound.SoundTrack(100.0), media_sound.SoundTrack(100.0)
    resampled = []
    convert = media_sound._convert
    monkeypatch.setattr(media_sound, "_convert", lambda parts: resampled.append(
        sum(part.samples for part in parts)) or convert(parts))
    # The first stretches are not wanted, and the last half second is a piece by itself.
    whole.add(list(frames(sound[:-rate // 2], rate, [0.25], length=61 * rate - rate // 2)), 5.5)
    short.add(list(frames(sound, rate, 0.25 + np.arange(61), length=rate)), 5.5)
    assert whole.end == 60.75
    assert not whole.damaged
    for begin in (6.0, 6.4, 31.25, 59.5):
        audio = whole.waveform(begin, 16000)
        assert resampled.pop() <= 3 * rate
        np.testing.assert_array_equal(audio, short.waveform(begin, 16000))
        assert audio.std() > 0.05


@pytest.mark.parametrize(("layout", "rate", "length", "lost"), [
    ("stereo", 48000, 1000, False), ("5.1", 48000, 1000, False), ("5.1", 192000, 96000, True),
    ("mono", 48000, 2, True)])
def test_what_is_kept_takes_little_memory(layout, rate, length, lost):
    """Twenty seconds that come at once: of films all, of absurd streams what there is room for."""
    track = media_sound.SoundTrack(20.0)
    (frame,) = frames(np.full(length, 0.25, np.float32), rate, [0.0], layout, length)
    seconds, added = length / rate, 0
    while added * seconds < 20.0 - 1e-6 and not track.damaged:
        copy = av.AudioFrame.from_ndarray(frame.to_ndarray(), format="fltp", layout=layout)
        copy.sample_rate, copy.time_base = rate, frame.time_base
        copy.pts = round(added * seconds * 90000)
        track.add([copy], 0.0)
        added += 1
    assert track.damaged == lost
    taken = (added - lost) * length * frame.layout.nb_channels * 4
    assert taken <= 30_000_000
    assert (added * seconds < 12) == lost
    track.forget(track.end)
    track.add(list(frames(np.full(1000, 0.25, np.float32), 16000, [60.0])), 0.0)
    np.testing.assert_allclose(track.waveform(60.0, 1000), 0.25, atol=1e-3)


def test_a_track_that_nobody_announced_is_left_out(tmp_path):
    path = write(tmp_path / "a.flv", [track("libmp3lame", start=30.0)], seconds=32.0,
                 muxer={"flvflags": "no_metadata"})
    content = bytearray(path.read_bytes())
    content[4] = 1  # Says that there are pictures only.
    path.write_bytes(content)
    clip = decode(path)
    assert len(clip.frames) == 320
    assert clip.audio is None
    assert not clip.damaged and not clip.silent
