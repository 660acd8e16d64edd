"""Frames and a waveform become an mp4 file: H.264 and AAC, the same bytes for the same input.

x264 runs with one thread, at a constant quantiser, and every frame is a key frame. A rate control
that looks ahead would spend its bits on what will hardly move, and frames predicted from earlier
ones would differ in sharpness by their place in the group: both would put the motion, and the
direction of time, into the coding noise.
"""

import fractions
import os

import av
import numpy as np

from elo_tf import files

_X264 = {
    "preset": "superfast",
    "qp": "18",
    "g": "1",
    "bf": "0",
    "x264-params": "threads=1:lookahead-threads=1:sliced-threads=0:rc-lookahead=0:scenecut=0:"
                   "mbtree=0:aq-mode=0",
}
# The default search for coding parameters takes ten times as long as the video.
_AAC = {"aac_coder": "fast"}
_AUDIO_BIT_RATE = 64_000


def write_video(path: str | os.PathLike, frames: np.ndarray, fps: float,
                waveform: np.ndarray | None = None, sample_rate: int = 16_000) -> None:
    """Writes a video file, whole or not at all.

    Args:
      path: the file to write; its folder is made.
      frames: uint8 [T, H, W, 3], RGB, H and W even.
      fps: frames a second.
      waveform: float32 [S] within -1 and 1, mono; None: the file has no audio track.
      sample_rate: of the waveform, hertz.

    Raises:
      ValueError: the frames are not uint8 [T, H, W, 3] with even sides.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(f"frames must be uint8 [T, H, W, 3], not {frames.dtype} {frames.shape}")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"H.264 with 4:2:0 colour needs even sides, not {width}x{height}")
    # Bit-exact: no time of writing and no library version in the container.
    with (files.atomic_path(path) as temporary,
          av.open(str(temporary), "w", format="mp4", options={"fflags": "+bitexact"}) as container):
        rate = fractions.Fraction(fps).limit_denominator(1001)
        video = container.add_stream("libx264", rate=rate, options=_X264)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.thread_count = 1
        audio = None
        if waveform is not None:
            audio = container.add_stream("aac", rate=sample_rate, layout="mono", options=_AAC)
            audio.bit_rate = _AUDIO_BIT_RATE
            audio.codec_context.thread_count = 1
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            samples = np.ascontiguousarray(waveform, np.float32)[None]
            sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            sound.sample_rate = sample_rate
            sound.pts = 0
            sound.time_base = fractions.Fraction(1, sample_rate)
            container.mux(audio.encode(sound))
            container.mux(audio.encode(None))
