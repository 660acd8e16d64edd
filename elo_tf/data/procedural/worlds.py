"""Worlds: what objects look like and how they sound, to test on what a network was not made for.

The motions are laws of all worlds; which of them a set shows is its own choice. Two worlds share
no shape, no surface and no timbre.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class World:
    """What is drawn from.

    Attributes:
      shapes: keys of `shapes.SHAPES`.
      textures: keys of `shapes.TEXTURES`.
      pitch: lowest frequency of the hum at average speed and size, hertz.
      harmonics: of the hum, above the first.
      clicks: range of a click's frequency, hertz.
    """

    shapes: tuple[str, ...]
    textures: tuple[str, ...]
    pitch: float
    harmonics: tuple[int, ...]
    clicks: tuple[float, float]


WORLDS = {
    "first": World(
        shapes=("disc", "square", "bar", "triangle", "star", "cross", "ring", "half_disc",
                "corner"),
        textures=("split", "stripes", "checks", "dots", "waves"),
        pitch=220.0, harmonics=(2, 3, 4), clicks=(900.0, 2500.0)),
    "second": World(
        shapes=("hexagon", "ellipse", "crescent", "gear", "dumbbell", "tee", "arrow"),
        textures=("rings", "quarters", "chevrons", "bricks"),
        pitch=140.0, harmonics=(3, 5, 7, 9), clicks=(2800.0, 5000.0)),
}
