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


def _hexagon(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(v), 0.866 * np.abs(u) + 0.5 * np.abs(v)) - 0.8


def _ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.75 * (np.hypot(u, v / 0.55) - 1.0)


def _crescent(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(u, v) - 0.95, 0.6 - np.hypot(u - 0.55, v))


def _gear(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u, v) - 0.75 - 0.13 * np.cos(7.0 * np.arctan2(v, u))


def _dumbbell(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.minimum(np.hypot(np.abs(u) - 0.6, v) - 0.4, _box(u, v, 0.6, 0.18))


def _tee(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.minimum(_box(u, v + 0.55, 0.85, 0.3), _box(u, v - 0.2, 0.3, 0.75))


def _arrow(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    head = np.maximum(-u - 0.1, 0.707 * (u + np.abs(v)) - 0.6)
    return np.minimum(head, _box(u + 0.45, v, 0.45, 0.3))


# Signed distance to the outline (negative inside), in units of the object's radius.
SHAPES: dict[str, Field] = {
    "disc": _disc, "square": _square, "bar": _bar, "triangle": _triangle, "star": _star,
    "cross": _cross, "ring": _ring, "half_disc": _half_disc, "corner": _corner,
    "hexagon": _hexagon, "ellipse": _ellipse, "crescent": _crescent, "gear": _gear,
    "dumbbell": _dumbbell, "tee": _tee, "arrow": _arrow,
}

# Fields of about unit slope whose sign chooses between the two colours. They take coordinates in
# units of the object's radius times the look's frequency.
TEXTURES: dict[str, Field] = {
    "split": lambda u, v: v,
    "stripes": lambda u, v: np.sin(v),
    "checks": lambda u, v: np.sin(u) * np.sin(v),
    "dots": lambda u, v: np.cos(u) + np.cos(v) - 0.4,
    "waves": lambda u, v: np.sin(v + np.sin(1.5 * u)),
    "rings": lambda u, v: np.sin(np.hypot(u, v)),
    "quarters": lambda u, v: np.sign(u * v) * np.minimum(np.abs(u), np.abs(v)),
    "chevrons": lambda u, v: np.sin(v + np.abs(u)),
    "bricks": lambda u, v: np.minimum(
        np.abs(np.sin(v)), np.abs(np.sin(0.5 * u + (np.floor(v / np.pi) % 2.0) * np.pi / 2))) - 0.3,
}
