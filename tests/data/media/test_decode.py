import numpy as np
import pytest

from elo_tf.data import media


def brightness(clip):
    return np.array([frame.mean() for frame in clip.frames])


def click_at(seconds, length, rate=44100):
    audio = np.zeros(round(length * rate), np.float32)
    place = round(seconds * rate)
    audio[place:place + 40] = np.hanning(40) * 0.9
    return audio


def decode(path, **options):
    (clip,) = media.decode_clips(path, **options)
    return clip


def reason(path, **options):
    with pytest.raises(media.MediaError) as error:
        decode(path, **({"fps": 10, "min_side": 32} | options))
    assert error.value.detail
    return error.value.reason


@pytest.mark.parametrize(("source", "wanted"), [(30, 10), (10, 30), (24, 12), (25, 10), (30, 12)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_the_frame_on_show_is_taken(tmp_path, make_video, gray_frames, source, wanted, suffix):
    values = 10 + 3 * np.arange(source * 2)
    codec = "mpeg4" if suffix == "avi" else "libx264"
    path = make_video(tmp_path / f"a.{suffix}", gray_frames(values), fps=source, codec=codec)
    clip = decode(path, fps=wanted, min_side=48)
    expected = values[np.floor(np.arange(2 * wanted) / wanted * source + 1e-6).astype(int)]
    assert len(clip.frames) == 2 * wanted
    np.testing.assert_allclose(brightness(clip), expected, atol=1.4)


def test_variable_frame_rate_holds_each_frame(tmp_path, make_video, gray_frames):
    times = [0.0, 0.1, 0.2, 0.9, 1.0, 1.5]
    values = [20, 60, 100, 140, 180, 220]
    path = make_video(tmp_path / "a.mkv", gray_frames(values), times=times)
    clip = decode(path, fps=10, min_side=48)
    expected = [20, 60] + [100] * 7 + [140] + [180] * 5 + [220]
    np.testing.assert_allclose(brightness(clip)[:16], expected, atol=2)


def test_start_and_end_choose_the_same_frames_with_and_without_a_seek(
        tmp_path, make_video, gray_frames):
    values = 5 + np.arange(240)
    path = make_video(tmp_path / "a.mp4", gray_frames(values), fps=20,
                      audio=click_at(8.0, 12.0))
    for start, end in ((1.5, 3.0), (7.5, 9.0), (7.5, None)):
        clip = decode(path, fps=10, min_side=48, start=start, end=end)
        count = round(((end or 12.0) - start) * 10)
        expected = values[round(start * 20)::2][:count]
        assert len(clip.frames) == count
        assert clip.start == start
        np.testing.assert_allclose(brightness(clip), expected, atol=1.4)
        if start == 7.5:
            assert abs(np.argmax(np.abs(clip.audio)) - 8000) < 80
        else:
            assert clip.silent
    assert reason(path, start=13.0) in ("too_short", "undecodable")


@pytest.mark.parametrize(("audio_start", "rate", "layout"), [
    (0.0, 44100, "mono"), (0.0, 48000, "stereo"), (0.25, 44100, "mono"), (0.0, 16000, "mono")])
def test_sound_and_picture_have_one_clock(tmp_path, make_video, gray_frames, audio_start, rate,
                                          layout):
    path = make_video(tmp_path / "a.mp4", gray_frames([50] * 30), rate=rate, layout=layout,
                      audio=click_at(1.0 - audio_start, 2.0, rate), audio_start=audio_start)
    clip = decode(path, fps=10, min_side=48)
    assert clip.audio.shape == (48000,)
    assert clip.audio.dtype == np.float32
    assert abs(int(np.argmax(np.abs(clip.audio))) - 16000) < 48  # 3 ms
    assert not clip.audio[:round(audio_start * 16000) // 2].any()
    assert not clip.audio[round((2.2 + audio_start) * 16000):].any()


def test_a_late_picture_cuts_the_sound_before_it(tmp_path, make_video, gray_frames):
    times = 0.5 + np.arange(20) / 10
    path = make_video(tmp_path / "a.mkv", gray_frames([50] * 20), times=times,
                      audio=click_at(1.0, 2.5))
    clip = decode(path, fps=10, min_side=48)
    assert abs(int(np.argmax(np.abs(clip.audio))) - 8000) < 48


def test_loudness_survives(tmp_path, make_video, gray_frames):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44100 * 2) / 44100)
    path = make_video(tmp_path / "a.mp4", gray_frames([50] * 20), audio=tone)
    audio = decode(path, fps=10, min_side=48).audio[1600:-3200]
    assert np.sqrt(np.mean(audio**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    assert np.argmax(spectrum) * 16000 / len(audio) == pytest.approx(440, abs=1)


def test_silence_is_no_sound(tmp_path, make_video, gray_frames):
    frames = gray_frames([50] * 10)
    silent = make_video(tmp_path / "a.mp4", frames, audio=np.full(44100, 1e-5))
    clip = decode(silent, fps=10, min_side=48)
    assert clip.silent
    assert clip.audio is None
    clip = decode(make_video(tmp_path / "b.mp4", frames), fps=10, min_side=48)
    assert not clip.silent
    assert clip.audio is None


def test_size_area_and_pixel_shape(tmp_path, make_video, texture):
    import cv2

    picture = texture(128)[:, :96]
    path = make_video(tmp_path / "a.mp4", np.stack([picture] * 3))
    clip = decode(path, fps=10, min_side=32)
    assert clip.frames[0].shape == (43, 32, 3)
    by_area = cv2.resize(picture, (32, 43), interpolation=cv2.INTER_AREA)
    assert np.abs(clip.frames[0].astype(int) - by_area).mean() < 3
    wide = make_video(tmp_path / "b.mp4", np.stack([picture] * 3), pixel_ratio=2)
    assert decode(wide, fps=10, min_side=32).frames[0].shape == (32, 48, 3)
    assert decode(path, fps=10, min_side=192).frames[0].shape == (256, 192, 3)
    part = decode(path, fps=10, min_side=20, region=(0.25, 0.5, 0.5, 0.25)).frames[0]
    by_area = cv2.resize(picture[64:96, 24:72], (30, 20), interpolation=cv2.INTER_AREA)
    assert np.abs(part.astype(int) - by_area).mean() < 3
    assert decode(wide, fps=10, min_side=20, region=(0.25, 0.5, 0.5, 0.25)).frames[0].shape == (
        20, 60, 3)


def test_files_that_are_no_videos(tmp_path, make_video, gray_frames):
    (tmp_path / "text.mp4").write_text("This is no video.\n" * 100)
    (tmp_path / "empty.mp4").touch()
    assert reason(tmp_path / "text.mp4") == "undecodable"
    assert reason(tmp_path / "empty.mp4") == "empty_file"
    assert reason(tmp_path / "none.mp4") == "missing_file"
    assert reason(make_video(tmp_path / "one.mp4", gray_frames([9]))) == "too_short"


def test_limits(tmp_path, make_video, gray_frames):
    path = make_video(tmp_path / "a.mp4", gray_frames([50] * 40))
    clip = decode(path, fps=10, min_side=32, limits=media.Limits(max_seconds=2))
    assert len(clip.frames) == 20
    assert clip.cut
    exact = decode(path, fps=10, min_side=32, limits=media.Limits(max_seconds=4))
    assert len(exact.frames) == 40
    assert not exact.cut
    assert reason(path, limits=media.Limits(max_pixels=64 * 48 - 1)) == "too_large"
    assert reason(path, limits=media.Limits(max_frames=39)) == "too_many_frames"
    long = make_video(tmp_path / "b.mp4", gray_frames([50] * 2, height=2, width=64))
    assert reason(long) == "bad_shape"


def test_what_decodes_of_a_truncated_file_is_used(tmp_path, make_video, gray_frames):
    values = np.arange(20, 220, 4)
    whole = make_video(tmp_path / "a.mkv", gray_frames(values)).read_bytes()
    (tmp_path / "b.mkv").write_bytes(whole[:len(whole) * 2 // 3])
    clip = decode(tmp_path / "b.mkv", fps=10, min_side=48)
    assert 10 < len(clip.frames) < len(values)
    np.testing.assert_allclose(brightness(clip)[:-1], values[:len(clip.frames) - 1], atol=2)


def test_two_decodings_give_the_same_bytes(shared_videos):
    for name in ("bitflips_200.mp4", "vp9_opus.webm", "truncated_faststart.mp4"):
        first, second = (decode(shared_videos / "hostile" / name, fps=12, min_side=64)
                         for _ in range(2))
        assert np.array_equal(first.frames, second.frames)
        assert np.array_equal(first.audio, second.audio)


def test_real_files(shared_videos):
    def read(name):
        return decode(shared_videos / name, fps=12, min_side=64)

    upright = read("hostile/no_audio.mp4")
    rotated = read("hostile/rotated90_displaymatrix.mp4")
    assert rotated.frames[0].shape == (85, 64, 3)
    assert upright.frames[0].shape == (64, 85, 3)
    assert len(upright.frames) == len(rotated.frames) == 36
    assert read("hostile/odd_151x97.avi").audio.shape == (48000,)
    assert read("hostile/bitflips_200.mp4").damaged
    assert read("generic/car-detection.mp4").silent
    assert len(read("actions/RATRACE_wave_f_nm_np1_fr_goo_37.avi").frames) == 28
    short = read("hostile/audio_shorter_than_video.mp4")
    assert short.audio.shape == (48000,)
    assert not short.audio[-8000:].any()
