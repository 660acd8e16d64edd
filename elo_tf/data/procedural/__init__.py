"""Videos that are drawn, with sound, whose classes differ by motion alone."""

from elo_tf.data.procedural.scene import (
    CLASS_NAMES,
    DEFAULT_CLASSES,
    OTHER_CLASSES,
    REVERSED_PAIRS,
    WORLD_SIDE,
    Scene,
    draw_scene,
    event_times,
    trajectory,
)
from elo_tf.data.procedural.worlds import WORLDS, World

__all__ = ["CLASS_NAMES", "DEFAULT_CLASSES", "OTHER_CLASSES", "REVERSED_PAIRS", "WORLDS",
           "WORLD_SIDE", "Scene", "World", "draw_scene", "event_times", "trajectory"]
