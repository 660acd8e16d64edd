"""A video file becomes clips: frames at a constant rate, and the sound of the same seconds."""

from elo_tf.data.media.container import Limits, MediaError
from elo_tf.data.media.decode import VIDEO_SUFFIXES, decode_clips
from elo_tf.data.media.frames import Region
from elo_tf.data.media.reader import DecodedClip

__all__ = ["VIDEO_SUFFIXES", "DecodedClip", "Limits", "MediaError", "Region", "decode_clips"]
