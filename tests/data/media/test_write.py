"""Writing mp4 files: what is read back, equal bytes, nothing half written."""

import av
import numpy as np
import pytest

from elo_tf.data.media import write as media_write


def _frames(count: int = 12, height: int = 32, width: int = 48) -> np.ndarray:
    """Smooth moving colours, which survive 4:2:0 chroma."""
    time, y, x = np.meshgrid(np.arange(count), np.arange(height), np.arange(width), indexing="ij")
    channels = [128 + 80 * np.sin(x / 9 + time / 3), 128 + 80 * np.cos(y / 7), 128 + 4.0 * time]
    return np.stack(channels, -1).astype(np.uint8)


def _tone(seconds: float, rate: int = 16_000) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (300 + 200 * time) * time)).astype(np.float32)


@pytest.mark.parametrize("fps", [8.0, 12.5, 29.97])
def test_what_was_written_is_read_back(tmp_path, fps):
    frames = _frames()
    tone = _tone(len(frames) / fps)
    path = tmp_path / "deep" / "a.mp4"
    media_write.write_video(path, frames, fps, tone)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == pytest.approx(fps, rel=1e-3)
        assert float(stream.duration * stream.time_base) == pytest.approx(12 / fps, rel=1e-3)
        assert stream.codec_context.name == "h264"
        assert container.streams.audio[0].codec_context.name == "aac"
        pictures = list(container.decode(video=0))
    assert all(picture.key_frame for picture in pictures)
    read = np.stack([picture.to_ndarray(format="rgb24") for picture in pictures])
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).mean() < 4
    with av.open(str(path)) as container:
        sound = np.concatenate([part.to_ndarray()[0] for part in container.decode(audio=0)])
    assert np.corrcoef(sound[:len(tone)], tone)[0, 1] > 0.99


def test_without_a_waveform_there_is_no_track(tmp_path):
    media_write.write_video(tmp_path / "a.mp4", _frames(), 8.0)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert not container.streams.audio


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("a.mp4", "other name.mp4"):
        media_write.write_video(tmp_path / name, _frames(), 8.0, _tone(1.5))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "other name.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "other name.mp4"]


@pytest.mark.parametrize("frames", [
    np.zeros((3, 31, 32, 3), np.uint8), np.zeros((3, 32, 32, 3), np.float32),
    np.zeros((32, 32, 3), np.uint8)])
def test_frames_of_the_wrong_kind_are_refused(tmp_path, frames):
    with pytest.raises(ValueError, match="frames must be|even sides"):
        media_write.write_video(tmp_path / "a.mp4", frames, 8.0)
    assert not list(tmp_path.iterdir())
