"""Outlines and surfaces of the objects in procedural videos, as formulas of place.

Signed distances and waves, defined everywhere, so that an object is drawn at any size, angle and
fraction of a pixel without a picture of it.
"""

from collections.abc import Callable

import numpy as np

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _box(u: np.ndarray, v: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


def _disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u, v) - 0.9


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _box(u, v, 0.8, 0.8)


def _bar(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _box(u, v, 1.0, 0.55)


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(v, 0.866 * np.abs(u) - 0.5 * v) - 0.6


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.minimum(_triangle(u, v), _triangle(u, -v))


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.minimum(_box(u, v, 1.0, 0.4), _box(u, v, 0.4, 1.0))


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(u, v) - 0.65) - 0.32


def _half_disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(u, v) - 1.0, v - 0.3)


def _corner(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.minimum(_box(u + 0.45, v, 0.4, 0.9), _box(u, v - 0.5, 0.85, 0.4))


# Signed distance to the outline (negative inside), in units of the object's radius.
SHAPES: dict[str, Field] = {
    "disc": _disc, "square": _square, "bar": _bar, "triangle": _triangle, "star": _star,
    "cross": _cross, "ring": _ring, "half_disc": _half_disc, "corner": _corner,
}

# Fields of about unit slope whose sign chooses between the two colours. They take coordinates in
# units of the object's radius times the look's frequency.
TEXTURES: dict[str, Field] = {
    "split": lambda u, v: v,
    "stripes": lambda u, v: np.sin(v),
    "checks": lambda u, v: np.sin(u) * np.sin(v),
    "dots": lambda u, v: np.cos(u) + np.cos(v) - 0.4,
    "waves": lambda u, v: np.sin(v + np.sin(1.5 * u)),
}
