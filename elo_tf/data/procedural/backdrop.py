"""Backdrops: where a clip happens, which may go with what happens, as it does in real videos.

Without them only motion tells the classes apart, which takes a network thousands of steps to see.
Data sets of actions are not so pure: who swims is in blue water, filmed from the side, and it
splashes. So a place has a look, a way the camera moves there, and a sound; a set may have any of
these cues. The camera tells thirds of the places apart, the sound another four groups of three:
what neither tells alone, both tell.
"""

import dataclasses

import numpy as np

from elo_tf.data.procedural.scene import Look, Scene

CUES = ("look", "camera", "sound")
CAMERA_GROUPS, SOUND_GROUPS = 3, 4

# How far the backdrops of one place are from each other (our choice): in colour, which alone would
# tell the places apart were it not for this, and in the waves' length and direction.
_COLOUR_RADIUS, _COLOUR_SPREAD = 0.16, 0.08
_LENGTH_SPREAD, _DIRECTION_SPREAD = 0.15, 0.25
_WAVES = (2.0, 4.5)  # to the picture's side, of every other place
_DRIFT, _DRIFT_SPREAD, _TURN_SPREAD = 0.25, 0.2, 0.35  # sides a second; of it; radians
_LOWEST, _STEP, _PITCH_SPREAD = 350.0, 1.25, 0.12  # hertz; octaves between groups; octaves
_BAND = 0.15  # octaves, standard deviation
_LEVEL = (0.08, 0.2)  # root mean square; the hum's is 0.1


def set_look(scene: Scene, place: int, places: int, rng: np.random.Generator) -> Scene:
    """The same scene in the look of one of several places.

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


def set_camera(scene: Scene, place: int, rng: np.random.Generator) -> Scene:
    """The same scene with the camera drifting the way of the place's group: place modulo 3.

    Args:
      scene: as drawn.
      place: number of the place, from 0.
      rng: draws how far this drift is from the group's own.
    """
    turn = 2 * np.pi * (place % CAMERA_GROUPS) / CAMERA_GROUPS + rng.normal(0.0, _TURN_SPREAD)
    speed = _DRIFT * np.exp(rng.normal(0.0, _DRIFT_SPREAD))
    velocity = speed * np.array([np.cos(turn), np.sin(turn)])
    return dataclasses.replace(scene, camera=dataclasses.replace(scene.camera, velocity=velocity))


def ambience(place: int, samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """The sound of a place, noise in a band of its group's: place modulo 4.

    Args:
      place: number of the place, from 0.
      samples: length.
      sample_rate: hertz.
      rng: draws the noise, its level, and how far its band is from the group's own.

    Returns:
      float32 [samples].
    """
    octave = _STEP * (place % SOUND_GROUPS) + rng.normal(0.0, _PITCH_SPREAD)
    level = rng.uniform(*_LEVEL)
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.maximum(np.fft.rfftfreq(samples, 1.0 / sample_rate), 1.0)
    spectrum *= np.exp(-0.5 * ((np.log2(frequency / _LOWEST) - octave) / _BAND) ** 2)
    noise = np.fft.irfft(spectrum, samples)
    return (noise * level / np.sqrt(np.mean(noise * noise))).astype(np.float32)


def _recoloured(look: Look, shift: np.ndarray) -> Look:
    return dataclasses.replace(look, colours=np.clip(look.colours + shift, 0.0, 1.0))
