"""Backdrops: where a clip happens, which may go with what happens, as it does in real videos.

Without them only motion tells the classes apart, which takes a network thousands of steps to see.
Data sets of actions are not so pure: who swims is in blue water.
"""

import dataclasses

import numpy as np

from elo_tf.data.procedural.scene import Look, Scene

# How far the backdrops of one place are from each other (our choice): in colour, which alone would
# tell the places apart were it not for this, and in the waves' length and direction.
_COLOUR_RADIUS, _COLOUR_SPREAD = 0.16, 0.08
_LENGTH_SPREAD, _DIRECTION_SPREAD = 0.15, 0.25
_WAVES = (2.0, 4.5)  # to the picture's side, of every other place


def set_backdrop(scene: Scene, place: int, places: int, rng: np.random.Generator) -> Scene:
    """The same scene in one of several places.

    A place has about its own hue and its own pattern of waves; the objects' colours go with the
    background's, as they did before.

    Args:
      scene: as drawn.
      place: number of the place, from 0.
      places: how many there are.
      rng: draws how far this backdrop is from the place's own.
    """
    turn = place / places
    hue = 2 * np.pi * (turn + np.arange(3) / 3)
    colour = np.clip(0.5 + _COLOUR_RADIUS * np.cos(hue) + rng.normal(0.0, _COLOUR_SPREAD, 3),
                     0.2, 0.8)
    waves = scene.background.waves.copy()
    length = 2 * np.pi * _WAVES[place % 2] * np.exp(rng.normal(0.0, _LENGTH_SPREAD, len(waves)))
    direction = np.pi * turn + rng.normal(0.0, _DIRECTION_SPREAD, len(waves))
    waves[:, 0], waves[:, 1] = length * np.cos(direction), length * np.sin(direction)
    shift = colour - scene.background.colour
    return dataclasses.replace(
        scene, main=_recoloured(scene.main, shift), other=_recoloured(scene.other, shift),
        background=dataclasses.replace(scene.background, colour=colour, waves=waves))


def _recoloured(look: Look, shift: np.ndarray) -> Look:
    return dataclasses.replace(look, colours=np.clip(look.colours + shift, 0.0, 1.0))
