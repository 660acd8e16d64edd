"""Makes a set of procedural videos: mp4 files with sound whose classes differ by motion.

By nothing else, unless --backdrops has them happen in places of their own.

Example:
  python -m tools.make_videos --output=/tmp/videos --clips=unlabelled:240,train:96,test:96
"""

import os

from absl import flags, logging

from elo_tf import cli
from elo_tf.data import procedural
from elo_tf.data.procedural import video_set as procedural_set
from elo_tf.errors import UserError

_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder for <split>/<split>_00000.mp4, <split>.csv (video_path,start,end,"
    "label; paths relative to the folder) and truth.json. Running again with the same settings "
    "keeps the files that are there and makes the missing ones.", required=True)
_CLIPS = flags.DEFINE_string(
    "clips", "unlabelled:240,train:96,test:96",
    "How many videos: a list such as unlabelled:240,train:96,test:96, or one number for each "
    "split.")
_SPLITS = flags.DEFINE_list(
    "splits", None, "Which splits to make, of unlabelled (classes in Zipf's frequencies, no "
    "labels), train and test (every class equally often). Default: those --clips names, or all.")
_SECONDS = flags.DEFINE_float("seconds", 3.0, "Length of a video.")
_SIZE = flags.DEFINE_integer("size", 64, "Width and height in pixels, even.")
_FPS = flags.DEFINE_float("fps", 12.0, "Frames a second.")
_SEED = flags.DEFINE_integer("seed", 1, "The same seed gives the same bytes.")
_CLASSES = flags.DEFINE_string(
    "classes", str(len(procedural.DEFAULT_CLASSES)),
    "How many classes, in this order, or their names between commas: "
    f"{', '.join(procedural.CLASS_NAMES)}. `other`: those after the first twelve.")
_WORLD = flags.DEFINE_enum(
    "world", "first", list(procedural.WORLDS),
    "What objects look like and how they sound: the second shares no shape, surface or timbre "
    "with the first.")
_ZIPF = flags.DEFINE_float(
    "zipf", 1.0, "Exponent of the classes' frequencies in the unlabelled split; 0: all are equally "
    "frequent.", lower_bound=0.0, upper_bound=10.0)
_BACKDROPS = flags.DEFINE_float(
    "backdrops", 0.0, "Probability that a video happens in the place of its class, which a still "
    "shows: the classes are then as easy as real ones are. 0: they differ by motion alone.",
    lower_bound=0.0, upper_bound=1.0)
_CUES = flags.DEFINE_list(
    "cues", ["look"], "What the places of --backdrops are known by: look; camera, which drifts "
    "there in one of three directions; sound, one of four. Camera and sound together tell twelve "
    "places apart, which neither does alone: no single sense knows all.")
_WORKERS = flags.DEFINE_integer(
    "workers", None, "Processes. The files do not depend on it. Default: one a core.")


def parse_classes(text: str) -> tuple[str, ...]:
    """Reads --classes: a number, names between commas, or `other`."""
    if text.strip() == "other":
        return procedural.OTHER_CLASSES
    names = tuple(name.strip() for name in text.split(","))
    if len(names) > 1 or not text.strip().lstrip("-").isdigit():
        return names
    count = int(text)
    if not 2 <= count <= len(procedural.CLASS_NAMES):
        raise UserError(f"--classes is {count}; there are 2 to {len(procedural.CLASS_NAMES)}: "
                        f"{', '.join(procedural.CLASS_NAMES)}")
    return procedural.CLASS_NAMES[:count]


def parse_clips(text: str, splits: list[str] | None) -> dict[str, int]:
    """Reads --clips and --splits: the number of videos by split, in the order of the splits."""
    unknown = sorted(set(splits or ()) - set(procedural_set.SPLITS))
    if unknown:
        raise UserError(f"--splits names {', '.join(unknown)}; there are "
                        f"{', '.join(procedural_set.SPLITS)}")
    if text.strip().isdigit():
        counts = {split: text for split in splits or procedural_set.SPLITS}
    else:
        pairs = [entry.strip().partition(":") for entry in text.split(",")]
        counts = {split: count for split, _, count in pairs}
        if len(counts) != len(pairs) or set(counts) - set(procedural_set.SPLITS):
            raise UserError(f"--clips is {text!r}; give one number, or each split once as in "
                            "unlabelled:240,train:96,test:96")
        missing = sorted(set(splits or ()) - set(counts))
        if missing:
            raise UserError(f"--clips={text} says nothing about {', '.join(missing)}, which "
                            "--splits asks for")
    wrong = [count for count in counts.values() if not count.strip().isdigit() or int(count) < 1]
    if wrong:
        raise UserError(f"--clips is {text!r}; {wrong[0]!r} is not a number of videos, 1 or more")
    return {split: int(counts[split]) for split in procedural_set.SPLITS
            if split in counts and split in (splits or counts)}


def main(_: list[str]) -> None:
    """Makes what the flags ask for."""
    clips = parse_clips(_CLIPS.value, _SPLITS.value)
    settings = procedural_set.Settings(
        seed=_SEED.value, seconds=_SECONDS.value, size=_SIZE.value, fps=_FPS.value,
        classes=parse_classes(_CLASSES.value), backdrops=_BACKDROPS.value,
        cues=tuple(_CUES.value), world=_WORLD.value,
        zipf=_ZIPF.value)
    workers = len(os.sched_getaffinity(0)) if _WORKERS.value is None else _WORKERS.value
    if workers < 1:
        raise UserError(f"--workers is {workers}; it must be 1 or more")
    made = procedural_set.make_set(_OUTPUT.value, settings, clips, workers)
    total = sum(clips.values())
    logging.info("%d videos of %d classes in %s (%d made now, %d kept)", total,
                 len(settings.classes), _OUTPUT.value, made, total - made)


if __name__ == "__main__":
    cli.run(main)
