"""The sound that a procedural motion makes.

A click at each impact or turning point, over a hum whose pitch rises with speed, falls with size
and shifts with the vertical movement as if the microphone lay below the picture. Sounds that
nothing caused (tones, bursts of noise) come at other times. The hum's amplitude is constant, clicks
come equally often in every class, and the final loudness is drawn at random: so the class is in
the pitch and the timing, not in how loud something is.
"""

import dataclasses

import numpy as np

from elo_tf.data.procedural.scene import Scene, event_times, trajectory
from elo_tf.data.procedural.worlds import WORLDS, World

SAMPLE_RATE = 16_000
LOUDNESS_RANGE_DB = (-32.0, -16.0)
_CONTROL_RATE = 100
_CLICK_SECONDS = 0.06
_PEAK = 0.98


@dataclasses.dataclass(frozen=True)
class Voice:
    """All that is drawn at random in a clip's sound, independently of its class.

    Attributes:
      pitch: frequency of the hum at average speed and size, hertz.
      harmonics: int [K], the first and those of the world.
      overtones: float [K], their amplitudes, whose squares sum to 1.
      phases: float [K], of the harmonics.
      click_frequency: hertz.
      click_level: peak of a click; the hum's root mean square is 0.1.
      hiss: float [S], the noise that clicks are coloured with.
      strays: float32 [N], the sounds that nothing caused, as long as the clip.
      loudness_db: root mean square of the whole, decibels of full scale.
    """

    pitch: float
    harmonics: np.ndarray
    overtones: np.ndarray
    phases: np.ndarray
    click_frequency: float
    click_level: float
    hiss: np.ndarray
    strays: np.ndarray
    loudness_db: float


def draw_voice(rng: np.random.Generator, samples: int, sample_rate: int = SAMPLE_RATE,
               world: World = WORLDS["first"]) -> Voice:
    """Draws everything but the class, which it is not told.

    Args:
      rng: the only source of randomness.
      samples: length of the track.
      sample_rate: hertz.
      world: how things sound there.

    Returns:
      The voice.
    """
    overtones = np.array([1.0, *rng.uniform(0.0, 0.7, len(world.harmonics))])
    strays = np.zeros(samples, np.float32)
    for _ in range(rng.integers(0, 4)):
        length = int(rng.uniform(0.05, 0.3) * sample_rate)
        at = int(rng.integers(0, max(1, samples)))
        time = np.arange(length) / sample_rate
        tone = np.sin(2 * np.pi * rng.uniform(300.0, 4000.0) * time)
        noise = rng.standard_normal(length) * 0.7
        sound = (tone if rng.random() < 0.5 else noise) * np.hanning(length)
        piece = strays[at:at + length]
        piece += rng.uniform(0.05, 0.2) * sound[:len(piece)]
    return Voice(
        pitch=world.pitch * 2.0 ** rng.uniform(0.0, 1.5),
        harmonics=np.array([1, *world.harmonics]),
        overtones=overtones / np.linalg.norm(overtones),
        phases=rng.uniform(0.0, 2 * np.pi, len(overtones)),
        click_frequency=rng.uniform(*world.clicks),
        click_level=rng.uniform(0.5, 0.9),
        hiss=rng.standard_normal(int(_CLICK_SECONDS * sample_rate)),
        strays=strays,
        loudness_db=rng.uniform(*LOUDNESS_RANGE_DB))


def pitch_octaves(name: str, scene: Scene, times: np.ndarray) -> np.ndarray:
    """How far the motion moves the hum's pitch from the voice's own.

    Args:
      name: the class.
      scene: what moves.
      times: float [T], evenly spaced seconds, T >= 2.

    Returns:
      Octaves, float64 [T].
    """
    path = trajectory(name, scene, times)
    step = times[1] - times[0]
    velocity = np.gradient(path.position, step, axis=0)
    speed = (np.linalg.norm(velocity, axis=1)
             + np.linalg.norm(np.gradient(path.other_position, step, axis=0), axis=1)
             + path.radius * np.abs(np.gradient(path.angle, step)))
    mean = speed.mean()
    relative = speed / mean - 1.0 if mean > 1e-6 else np.zeros_like(speed)
    doppler = np.clip(velocity[:, 1], -1.5, 1.5)
    tempo = np.log2(0.8 / scene.period)
    return np.clip(tempo + 0.6 * relative - 0.6 * path.size + 0.25 * doppler, -1.5, 1.5)


def impacts(name: str, scene: Scene, voice: Voice, samples: int,
            sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """The motion's own sound, before the stray sounds and the final loudness.

    Args:
      name: the class.
      scene: what moves.
      voice: how it sounds.
      samples: length of the track.
      sample_rate: hertz.

    Returns:
      float64 [samples].
    """
    seconds = samples / sample_rate
    control = np.arange(0.0, seconds + 2.0 / _CONTROL_RATE, 1.0 / _CONTROL_RATE)
    times = np.arange(samples) / sample_rate
    octaves = np.interp(times, control, pitch_octaves(name, scene, control))
    angle = np.cumsum(2 * np.pi / sample_rate * voice.pitch * 2.0 ** octaves)
    track = np.zeros(samples)
    for harmonic, level, phase in zip(
            voice.harmonics, voice.overtones, voice.phases, strict=True):
        track += 0.1 * np.sqrt(2.0) * level * np.sin(harmonic * angle + phase)
    length = len(voice.hiss)
    time = np.arange(length) / sample_rate
    ring = np.sin(2 * np.pi * voice.click_frequency * time) + 0.2 * voice.hiss
    click = voice.click_level * np.exp(-time / (_CLICK_SECONDS / 5)) * ring
    for event in event_times(scene, seconds):
        start = int(round(event * sample_rate))
        piece = track[start:start + length]
        piece += click[:len(piece)]
    return track


def soundtrack(name: str, scene: Scene, voice: Voice, samples: int,
               sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """The whole sound of a clip.

    Args:
      name: the class.
      scene: what moves.
      voice: how it sounds.
      samples: length of the track.
      sample_rate: hertz.

    Returns:
      float32 [samples] within -1 and 1, its root mean square the voice's loudness (less where
      that would clip the peaks).
    """
    track = impacts(name, scene, voice, samples, sample_rate) + voice.strays
    gain = 10.0 ** (voice.loudness_db / 20.0) / np.sqrt(np.mean(track * track))
    return (track * min(gain, _PEAK / np.abs(track).max())).astype(np.float32)
