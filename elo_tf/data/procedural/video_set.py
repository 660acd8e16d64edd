"""A set of procedural videos on disk: splits, labels, truth, and resuming.

A clip is a function of (seed, split, index) alone: not of the number of workers, of the number of
clips, or of the other splits. `unlabelled` has classes in Zipf's frequencies and no labels;
`train` and `test` have every class equally often, labelled in their CSV files.
"""

import csv
import dataclasses
import functools
import io
import json
import pathlib
from typing import Any

import numpy as np

from elo_tf import cli, files, parallel
from elo_tf.data import procedural
from elo_tf.data.media import write as media_write
from elo_tf.data.procedural import backdrop
from elo_tf.data.procedural import render as procedural_render
from elo_tf.data.procedural import sound as procedural_sound
from elo_tf.errors import UserError

SPLITS = ("unlabelled", "train", "test")
SOUNDS = ("sound", "silent", "no_track")
SILENT_SHARE = 0.1
NO_TRACK_SHARE = 0.1
TRUTH = "truth.json"
# To be raised when the same settings come to mean other videos.
_VERSION = 1
_ABOUT = ("What is in the procedural videos beside this file, for tests and analysis. Training "
          "never reads it: the unlabelled split's classes stand nowhere else.")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What makes the clips what they are.

    Attributes:
      seed: of every random draw.
      seconds: length of a clip.
      size: side of the square frames, pixels, even.
      fps: frames a second.
      classes: names from `procedural.CLASS_NAMES`.
      backdrops: probability that a clip happens in the place of its class; 0: only motion tells
        the classes apart.
      cues: of `backdrop.CUES`, what a place is known by.
      world: a key of `procedural.WORLDS`.
      zipf: exponent s of the unlabelled split: the n-th most frequent class has a share
        proportional to 1 / n^s; 0: all are equally frequent.
    """

    seed: int = 1
    seconds: float = 3.0
    size: int = 64
    fps: float = 12.0
    classes: tuple[str, ...] = procedural.DEFAULT_CLASSES
    backdrops: float = 0.0
    cues: tuple[str, ...] = ("look",)
    world: str = "first"
    zipf: float = 1.0

    def __post_init__(self):
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}; it must be 0 or more")
        if self.size < 16 or self.size % 2:
            raise UserError(f"size is {self.size}; it must be an even number of pixels, at least "
                            "16 (H.264 stores colour at half the size)")
        if not 0 < self.fps <= 120:
            raise UserError(f"fps is {self.fps:g}; it must be above 0 and at most 120")
        if not self.seconds * self.fps >= 2 or self.seconds > 3600:
            raise UserError(f"seconds is {self.seconds:g}; a clip must have at least 2 frames "
                            f"({2 / self.fps:g} seconds at {self.fps:g} fps) and last an hour at "
                            "most")
        unknown = sorted(set(self.classes) - set(procedural.CLASS_NAMES))
        if unknown:
            raise UserError(f"no class is called {', '.join(unknown)}; there are "
                            f"{', '.join(procedural.CLASS_NAMES)}")
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise UserError(f"classes is {', '.join(self.classes)}; name at least two, each once")
        if not 0 <= self.backdrops <= 1:
            raise UserError(f"backdrops is {self.backdrops:g}; it is a probability, in [0, 1]")
        wrong = sorted(set(self.cues) - set(backdrop.CUES))
        if wrong or not self.cues:
            raise UserError(f"cues is {', '.join(self.cues) or 'empty'}; name some of "
                            f"{', '.join(backdrop.CUES)}")
        if self.world not in procedural.WORLDS:
            raise UserError(f"there is no world {self.world!r}; there are "
                            f"{', '.join(procedural.WORLDS)}")
        if not 0 <= self.zipf <= 10:
            raise UserError(f"zipf is {self.zipf:g}; it is an exponent, in [0, 10]")

    @property
    def frames(self) -> int:
        """Frames in a clip."""
        return round(self.seconds * self.fps)

    @property
    def samples(self) -> int:
        """Audio samples in a clip, as long as its frames."""
        return round(self.frames / self.fps * procedural_sound.SAMPLE_RATE)

    def as_dict(self) -> dict[str, Any]:
        """The settings as they stand in the truth file."""
        return {"version": _VERSION, **dataclasses.asdict(self), "classes": list(self.classes),
                "cues": list(self.cues)}


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip in memory.

    Attributes:
      name: its class.
      frames: uint8 [T, H, W, 3], RGB.
      waveform: float32 [S], mono, or None where the video has no audio track.
    """

    name: str
    frames: np.ndarray
    waveform: np.ndarray | None


def _generators(settings: Settings, split: str, index: int) -> list[np.random.Generator]:
    """Independent generators of a clip: for scene, voice, kind of sound, backdrop."""
    seeds = np.random.SeedSequence([settings.seed, SPLITS.index(split), index]).spawn(4)
    return [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]


def _order(settings: Settings, split: str, block: int) -> np.ndarray:
    seeds = np.random.SeedSequence([settings.seed, SPLITS.index(split), block, 0xC1A55])
    return np.random.Generator(np.random.PCG64(seeds)).permutation(len(settings.classes))


def class_of(settings: Settings, split: str, index: int) -> str:
    """The class of a clip.

    Args:
      settings: of the set.
      split: one of `SPLITS`.
      index: the clip's number in the split.

    Returns:
      Its class: in `train` and `test` each once in every row of as many clips as there are
      classes; in `unlabelled` the n-th of a random order of the classes with probability
      proportional to 1 / n^s, spread evenly over the indices.
    """
    count = len(settings.classes)
    if split == "unlabelled":
        law = 1.0 / np.arange(1, count + 1) ** settings.zipf
        # Multiples of the golden ratio fill [0, 1) evenly however many there are.
        place = (0.5 + index * (np.sqrt(5.0) - 1.0) / 2.0) % 1.0
        rank = int(np.searchsorted(np.cumsum(law / law.sum())[:-1], place, side="right"))
        return settings.classes[_order(settings, split, 0)[rank]]
    block, place = divmod(index, count)
    return settings.classes[_order(settings, split, block)[place]]


def sound_of(settings: Settings, split: str, index: int) -> str:
    """Whether a clip has "sound", is "silent" (a track of zeros) or has "no_track"."""
    draw = _generators(settings, split, index)[2].random()
    if draw < NO_TRACK_SHARE:
        return "no_track"
    return "silent" if draw < NO_TRACK_SHARE + SILENT_SHARE else "sound"


def make_clip(settings: Settings, split: str, index: int) -> Clip:
    """Makes a clip in memory.

    Args:
      settings: of the set.
      split: one of `SPLITS`.
      index: the clip's number in the split.

    Returns:
      The clip.
    """
    name = class_of(settings, split, index)
    for_scene, for_voice, _, for_backdrop = _generators(settings, split, index)
    world = procedural.WORLDS[settings.world]
    scene = procedural.draw_scene(for_scene, world)
    in_place = for_backdrop.random() < settings.backdrops
    cues = settings.cues if in_place else ()
    place = settings.classes.index(name)
    if "look" in cues:
        scene = backdrop.set_look(scene, place, len(settings.classes), for_backdrop)
    if "camera" in cues:
        scene = backdrop.set_camera(scene, place, for_backdrop)
    times = np.arange(settings.frames) / settings.fps
    path = procedural.trajectory(name, scene, times)
    frames = procedural_render.render(scene, path, times, settings.size)
    sound = sound_of(settings, split, index)
    if sound == "no_track":
        return Clip(name, frames, None)
    if sound == "silent":
        return Clip(name, frames, np.zeros(settings.samples, np.float32))
    voice = procedural_sound.draw_voice(for_voice, settings.samples, world=world)
    if "sound" in cues:
        voice = dataclasses.replace(voice, strays=voice.strays + backdrop.ambience(
            place, settings.samples, procedural_sound.SAMPLE_RATE, for_backdrop))
    return Clip(name, frames,
                procedural_sound.soundtrack(name, scene, voice, settings.samples))


def clip_path(split: str, index: int) -> str:
    """A clip's file, relative to the set's folder; it says nothing of the class."""
    return f"{split}/{split}_{index:05d}.mp4"


def _write_clip(output: str, settings: Settings, clip: tuple[str, int]) -> None:
    made = make_clip(settings, *clip)
    media_write.write_video(pathlib.Path(output) / clip_path(*clip), made.frames, settings.fps,
                            made.waveform, procedural_sound.SAMPLE_RATE)


def _check_folder(output: pathlib.Path, settings: Settings, clips: dict[str, int]) -> dict:
    """Returns what the truth file says of earlier runs, or raises if this one does not fit."""
    truth_file = output / TRUTH
    if not truth_file.exists():
        for split in clips:
            if any((output / split).glob("*.mp4")):
                raise UserError(f"{output / split} holds videos but {truth_file} is missing, so "
                                "what they show is unknown; name another --output")
        return {}
    try:
        truth = json.loads(truth_file.read_text(encoding="utf-8"))
        # Older sets do not name all of them.
        before = {"backdrops": 0.0, "cues": ["look"], "world": "first",
                  "zipf": 1.0} | truth["settings"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{truth_file} is not a truth file of procedural videos ({error!r}); "
                        "name another --output") from error
    after = settings.as_dict()
    different = [f"{key} was {before.get(key)}, is {after[key]}"
                 for key in after if before.get(key) != after[key]]
    if different:
        raise UserError(f"{output} holds videos of other settings ({'; '.join(different)}); use "
                        "the same ones or name another --output")
    for split, count in clips.items():
        more = [path for path in (output / split).glob(f"{split}_*.mp4")
                if int(path.stem.rpartition("_")[2]) >= count]
        if more:
            raise UserError(f"{output / split} holds {len(more)} videos beyond the {count} asked "
                            "for; ask for at least as many as before or name another --output")
    return truth


def _csv(settings: Settings, split: str, count: int) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video_path", "start", "end", "label"])
    end = f"{settings.frames / settings.fps:.3f}"
    for index in range(count):
        label = "" if split == "unlabelled" else class_of(settings, split, index)
        writer.writerow([clip_path(split, index), "0.000", end, label])
    return text.getvalue()


def make_set(output: str, settings: Settings, clips: dict[str, int], workers: int = 1) -> int:
    """Makes a set of videos, or completes one that was begun with the same settings.

    Args:
      output: the set's folder: `<split>/<split>_00012.mp4`, `<split>.csv`, `truth.json`.
      settings: what the clips are.
      clips: number of clips by split; splits left out are left alone.
      workers: processes; the files do not depend on it.

    Returns:
      How many videos were made now; the others were there already.

    Raises:
      UserError: the folder holds videos of other settings, or more than are asked for.
    """
    folder = pathlib.Path(output)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; --output names a folder")
    truth = {"about": _ABOUT, "settings": settings.as_dict(),
             "splits": _check_folder(folder, settings, clips).get("splits", {})}
    # First of all, so that an interrupted run is known by its settings.
    files.write_atomic(folder / TRUTH, json.dumps(truth, indent=1) + "\n")
    for split in clips:
        for leftover in (folder / split).glob(f".{split}_*.tmp.mp4"):
            leftover.unlink(missing_ok=True)
    missing = [(split, index) for split, count in clips.items() for index in range(count)
               if not (folder / clip_path(split, index)).exists()]
    with cli.progress(total=len(missing), desc="videos", unit="video") as bar:
        write = functools.partial(_write_clip, output, settings)
        processes = 0 if workers == 1 else min(workers, len(missing))
        for _, result in parallel.map_jobs(write, missing, processes, ordered=False):
            if isinstance(result, Exception):
                raise result
            bar.update()
    for split, count in clips.items():
        files.write_atomic(folder / f"{split}.csv", _csv(settings, split, count))
        truth["splits"][split] = [
            {"video_path": clip_path(split, index), "class": class_of(settings, split, index),
             "sound": sound_of(settings, split, index)} for index in range(count)]
    files.write_atomic(folder / TRUTH, json.dumps(truth, indent=1) + "\n")
    return len(missing)
