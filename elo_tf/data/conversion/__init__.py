"""The videos of a split become TFRecord shards."""

from elo_tf.data.conversion.run import Conversion, convert
from elo_tf.data.conversion.shards import Limits

__all__ = ["Conversion", "Limits", "convert"]
