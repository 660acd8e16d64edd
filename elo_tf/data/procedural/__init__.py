"""Videos that are drawn, with sound, whose classes differ by motion alone."""

from elo_tf.data.procedural.scene import (
    CLASS_NAMES,
    DEFAULT_CLASSES,
    REVERSED_PAIRS,
    WORLD_SIDE,
    Scene,
    draw_scene,
    event_times,
    trajectory,
)

__all__ = ["CLASS_NAMES", "DEFAULT_CLASSES", "REVERSED_PAIRS", "WORLD_SIDE", "Scene",
           "draw_scene", "event_times", "trajectory"]
