"""Scenes in which only the motion has a meaning: the classes of the procedural videos.

A clip shows a main object and a second one over a textured background, in a world whose edges
are joined (what leaves on the right comes back on the left). A `Scene` holds everything that is
drawn at random: shapes, textures, colours, sizes, speed, start, phase, camera drift. It is drawn
without knowing the class. `trajectory` then moves the scene's objects the way a class says.

Every motion is cyclic with a uniform random phase, and every frame of every class has the same
distribution of object positions, sizes and angles. Hence neither one frame nor the mean of the
frames tells a linear classifier anything; the way things change does.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from elo_tf.data.procedural.worlds import WORLDS, World

# Lengths are in units of the picture's side, times in seconds, angles in radians; y points down.
WORLD_SIDE = 1.0
PERIOD_RANGE = (0.6, 1.0)
RADIUS_RANGE = (0.14, 0.18)
OTHER_RADIUS_RANGE = (0.08, 0.11)
LOG_SIZE_SPAN = 0.4
GAP = 0.25


@dataclasses.dataclass(frozen=True)
class Look:
    """What an object looks like.

    Attributes:
      shape: a key of `shapes.SHAPES`.
      texture: a key of `shapes.TEXTURES`.
      frequency: texture repeats per object radius, in radians.
      colours: float [2, 3], the texture's two colours, 0 to 1.
    """

    shape: str
    texture: str
    frequency: float
    colours: np.ndarray


@dataclasses.dataclass(frozen=True)
class Background:
    """A plane of summed waves that fills the picture and drifts with the camera.

    Attributes:
      colour: float [3], its mean, 0 to 1.
      tint: float [3], the colour direction of the waves.
      waves: float [K, 4], per wave: radians per unit in x and in y, phase, amplitude.
    """

    colour: np.ndarray
    tint: np.ndarray
    waves: np.ndarray


@dataclasses.dataclass(frozen=True)
class Ripples:
    """Rings on the ground that spring up, widen and fade, and never the other way round.

    The classes come in pairs of opposite time, so their motions alone have no arrow of time. The
    world has one, as ours has, and it is the same for every class.

    Attributes:
      start: float [R], seconds within the cycle of `CYCLE` seconds after which they repeat.
      place: float [R, 2], centres.
      strength: float [R], brightness at the start, of either sign.
    """

    start: np.ndarray
    place: np.ndarray
    strength: np.ndarray

    CYCLE = 4.0
    LIFE = 0.9
    SPEED = 0.25
    WIDTH = 0.045


@dataclasses.dataclass(frozen=True)
class Camera:
    """Drift: a constant velocity and a slow sway, both the same forwards and backwards in time."""

    velocity: np.ndarray
    sway: np.ndarray
    sway_rate: float
    sway_phase: float

    def offset(self, times: np.ndarray) -> np.ndarray:
        """Returns the shift of the picture's content at `times` [T], float64 [T, 2]."""
        angle = self.sway_rate * times + self.sway_phase
        return times[:, None] * self.velocity + np.sin(angle)[:, None] * self.sway


@dataclasses.dataclass(frozen=True)
class Scene:
    """All that is drawn at random in a clip, independently of its class.

    Attributes:
      main: the look of the object that carries the motion.
      other: the look of the second object, which most motions leave at rest.
      background: what is behind them.
      ripples: what spreads on it.
      camera: how the picture drifts.
      period: seconds from one event (impact, turning point, half turn) to the next.
      phase: cycles at time 0, uniform in [0, 2).
      heading: direction of paths, radians.
      reach: factor on the length of paths.
      start: float [2], the main object's place at time 0, uniform in the world.
      radius: the main object's radius at size 0.
      size: logarithmic size in [-1, 1] of objects that keep it.
      angle: the main object's angle at the start.
      bearing: direction from the main object to the other.
      gap: free space between the two at rest, in [0, 1] of `GAP`.
      other_radius: radius of the other object.
      other_angle: its angle.
    """

    main: Look
    other: Look
    background: Background
    ripples: Ripples
    camera: Camera
    period: float
    phase: float
    heading: float
    reach: float
    start: np.ndarray
    radius: float
    size: float
    angle: float
    bearing: float
    gap: float
    other_radius: float
    other_angle: float


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """Where everything is at T times.

    Attributes:
      position: float64 [T, 2], centre (x, y) of the main object, not wrapped.
      radius: float64 [T].
      angle: float64 [T].
      other_position: float64 [T, 2], not wrapped.
      size: float64 [T], logarithmic size in [-1, 1].
    """

    position: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    other_position: np.ndarray
    size: np.ndarray


@dataclasses.dataclass(frozen=True)
class Change:
    """What a motion does at cycle counts u [T]; what it leaves alone stays 0 or None.

    Attributes:
      path: [T, 2], displacement along and across the scene's heading.
      turn: [T], radians.
      size: [T] in [-1, 1], uniformly distributed for a uniform phase; None: the scene's.
      gaps: [T, 2], how far the main and the other object are from the contact, in units of `GAP`;
        their sum is uniform in [0, 1] for a uniform phase; None: both objects by their own.
    """

    path: np.ndarray | None = None
    turn: np.ndarray | None = None
    size: np.ndarray | None = None
    gaps: np.ndarray | None = None


Motion = Callable[[np.ndarray], Change]


def _path(along: np.ndarray, across: np.ndarray | None = None) -> Change:
    return Change(path=np.stack([along, np.zeros_like(along) if across is None else across], -1))


def _triangle(u: np.ndarray) -> np.ndarray:
    """Up from 0 to 1 and back, once per unit of u; 0 at the integers."""
    return 1.0 - np.abs(2.0 * (u % 1.0) - 1.0)


def _sawtooth(u: np.ndarray, rise: float = 0.8) -> np.ndarray:
    """Slowly up from 0 to 1 and quickly back, once per unit of u; 0 at the integers."""
    x = u % 1.0
    return np.where(x < rise, x / rise, (1.0 - x) / (1.0 - rise))


def _translate(u: np.ndarray) -> Change:
    return _path(0.5 * u)


def _oscillate(u: np.ndarray) -> Change:
    return _path(0.25 * np.cos(np.pi * u))


def _bounce(u: np.ndarray) -> Change:
    x = u % 1.0
    return _path(0.12 * u, 1.2 * x * (1.0 - x))


def _rotate_cw(u: np.ndarray) -> Change:
    return Change(turn=np.pi * u)


def _orbit_cw(u: np.ndarray) -> Change:
    return _path(0.22 * np.cos(np.pi * u), 0.22 * np.sin(np.pi * u))


def _expand(u: np.ndarray) -> Change:
    return Change(size=2.0 * _sawtooth(u) - 1.0)


def _speed_up(u: np.ndarray) -> Change:
    x = u % 1.0
    return _path(0.5 * (np.floor(u) + 0.1 * x + 0.9 * x * x))


def _collide(u: np.ndarray) -> Change:
    swing = _triangle(u)
    main_swings = np.floor(u) % 2.0 == 0.0
    return Change(gaps=np.stack(
        [np.where(main_swings, swing, 0.0), np.where(main_swings, 0.0, swing)], -1))


def _zigzag(u: np.ndarray) -> Change:
    return _path(0.42 * u, 0.42 * _triangle(u / 2.0))


def _pulse(u: np.ndarray) -> Change:
    return Change(size=2.0 * _triangle(u / 2.0) - 1.0)


def _hammer(u: np.ndarray) -> Change:
    gap = _sawtooth(u)
    return Change(gaps=np.stack([gap, np.zeros_like(gap)], -1))


def _roll_cw(u: np.ndarray) -> Change:
    return dataclasses.replace(_translate(u), turn=np.pi * u)


def _loop_cw(u: np.ndarray) -> Change:
    return dataclasses.replace(_orbit_cw(u), size=2.0 * _triangle(u / 2.0) - 1.0)


def _figure_eight(u: np.ndarray) -> Change:
    return _path(0.26 * np.cos(np.pi * u), 0.13 * np.sin(2.0 * np.pi * u))


def _stop_and_go(u: np.ndarray) -> Change:
    x = u % 1.0
    return _path(0.5 * (np.floor(u) + x * x * (3.0 - 2.0 * x)))


def _swim(u: np.ndarray) -> Change:
    return dataclasses.replace(_translate(u), size=2.0 * _triangle(u / 2.0) - 1.0)


def _rock(u: np.ndarray) -> Change:
    return Change(turn=0.5 * np.pi * np.cos(np.pi * u))


def _reverse(motion: Motion) -> Motion:
    return lambda u: motion(-u)


# Name to motion. An event (impact, turning point, half turn) is at every integer u, in every
# class: so the clicks of the sound come equally often in all of them.
MOTIONS: dict[str, Motion] = {
    "translate": _translate,
    "oscillate": _oscillate,
    "bounce": _bounce,
    "collide": _collide,
    "rotate_cw": _rotate_cw,
    "rotate_ccw": _reverse(_rotate_cw),
    "orbit_cw": _orbit_cw,
    "orbit_ccw": _reverse(_orbit_cw),
    "expand": _expand,
    "contract": _reverse(_expand),
    "speed_up": _speed_up,
    "slow_down": _reverse(_speed_up),
    "zigzag": _zigzag,
    "pulse": _pulse,
    "hammer": _hammer,
    "recoil": _reverse(_hammer),
    "roll_cw": _roll_cw,
    "roll_ccw": _reverse(_roll_cw),
    "loop_cw": _loop_cw,
    "loop_ccw": _reverse(_loop_cw),
    "figure_eight": _figure_eight,
    "stop_and_go": _stop_and_go,
    "swim": _swim,
    "rock": _rock,
}
CLASS_NAMES = tuple(MOTIONS)
DEFAULT_CLASSES = CLASS_NAMES[:12]
OTHER_CLASSES = CLASS_NAMES[12:24]
# Pairs of classes that differ only by the direction of time.
REVERSED_PAIRS = (("rotate_cw", "rotate_ccw"), ("orbit_cw", "orbit_ccw"), ("expand", "contract"),
                  ("speed_up", "slow_down"), ("hammer", "recoil"), ("roll_cw", "roll_ccw"),
                  ("loop_cw", "loop_ccw"))


def _direction(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)])


def trajectory(name: str, scene: Scene, times: np.ndarray) -> Trajectory:
    """Moves the objects of a scene the way a class says.

    Args:
      name: one of `CLASS_NAMES`.
      scene: what the objects are and where they start.
      times: float [T], seconds.

    Returns:
      The objects' places, sizes and angles at these times. For a pair (a, b) of `REVERSED_PAIRS`,
      b's is a's with the sign of the times and of the scene's phase turned.
    """
    motion = MOTIONS[name]
    # The first cycle count is that of time 0, for which the start holds.
    u = scene.phase + np.concatenate([[0.0], np.asarray(times, np.float64)]) / scene.period
    change = motion(u)
    size = np.full(u.shape, scene.size) if change.size is None else change.size
    radius = scene.radius * np.exp(LOG_SIZE_SPAN * size)
    angle = np.full(u.shape, scene.angle)
    if change.turn is not None:
        angle = angle + change.turn
    position = np.zeros((len(u), 2))
    if change.path is not None:
        along, across = _direction(scene.heading), _direction(scene.heading + np.pi / 2)
        position = scene.reach * (change.path[:, :1] * along + change.path[:, 1:] * across)
    bearing = _direction(scene.bearing)
    contact = radius[0] + scene.other_radius
    if change.gaps is None:
        other = position[:1] + (contact + GAP * scene.gap) * bearing + np.zeros_like(position)
    else:
        position = -GAP * change.gaps[:, :1] * bearing
        other = (contact + GAP * change.gaps[:, 1:]) * bearing
    shift = scene.start - position[0]
    return Trajectory(position[1:] + shift, radius[1:], angle[1:], other[1:] + shift, size[1:])


def event_times(scene: Scene, seconds: float) -> np.ndarray:
    """Returns the times [E] in [0, seconds) of the motion's impacts and turning points."""
    cycles = np.arange(np.ceil(scene.phase), scene.phase + seconds / scene.period)
    return (cycles - scene.phase) * scene.period


def _draw_look(rng: np.random.Generator, background: np.ndarray, world: World) -> Look:
    """Draws a look whose colours are on average the background's, and each far from it."""
    sign = rng.choice([-1.0, 1.0])
    lift = sign * np.array([rng.uniform(0.3, 0.5), -rng.uniform(0.1, 0.3)])
    colours = background + lift[:, None] + rng.uniform(-0.15, 0.15, (2, 3))
    return Look(shape=str(rng.choice(world.shapes)), texture=str(rng.choice(world.textures)),
                frequency=rng.uniform(2.2, 4.0), colours=np.clip(colours, 0.0, 1.0))


def draw_scene(rng: np.random.Generator, world: World = WORLDS["first"]) -> Scene:
    """Draws everything but the class, which it is not told.

    Args:
      rng: the only source of randomness.
      world: what objects there look like.

    Returns:
      The scene.
    """
    colour = rng.uniform(0.3, 0.7, 3)
    count = 8
    length = 2 * np.pi * rng.uniform(1.0, 5.0, count)
    direction = rng.uniform(0.0, 2 * np.pi, count)
    amplitude = rng.uniform(0.3, 1.0, count) * rng.uniform(0.04, 0.08)
    background = Background(
        colour=colour,
        tint=rng.uniform(0.4, 1.0, 3) * rng.choice([-1.0, 1.0], 3),
        waves=np.stack([length * np.cos(direction), length * np.sin(direction),
                        rng.uniform(0.0, 2 * np.pi, count), amplitude], -1))
    camera = Camera(
        velocity=rng.uniform(0.0, 0.08) * _direction(rng.uniform(0.0, 2 * np.pi)),
        sway=rng.uniform(0.0, 0.02) * _direction(rng.uniform(0.0, 2 * np.pi)),
        sway_rate=2 * np.pi * rng.uniform(0.2, 0.5),
        sway_phase=rng.uniform(0.0, 2 * np.pi))
    rings = 5
    ripples = Ripples(
        # One in every fifth of the cycle, so that no clip of a second or more is without.
        start=(np.arange(rings) + rng.uniform(0.0, 1.0, rings)) * (Ripples.CYCLE / rings),
        place=rng.uniform(0.0, WORLD_SIDE, (rings, 2)),
        strength=rng.uniform(0.12, 0.22, rings) * rng.choice([-1.0, 1.0], rings))
    return Scene(
        main=_draw_look(rng, colour, world),
        other=_draw_look(rng, colour, world),
        background=background,
        ripples=ripples,
        camera=camera,
        period=rng.uniform(*PERIOD_RANGE),
        phase=rng.uniform(0.0, 2.0),
        heading=rng.uniform(0.0, 2 * np.pi),
        reach=rng.uniform(0.8, 1.2),
        start=rng.uniform(0.0, WORLD_SIDE, 2),
        radius=rng.uniform(*RADIUS_RANGE),
        size=rng.uniform(-1.0, 1.0),
        angle=rng.uniform(0.0, 2 * np.pi),
        bearing=rng.uniform(0.0, 2 * np.pi),
        gap=rng.uniform(0.0, 1.0),
        other_radius=rng.uniform(*OTHER_RADIUS_RANGE),
        other_angle=rng.uniform(0.0, 2 * np.pi))
