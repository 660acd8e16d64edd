r"""Converts videos to TFRecord shards for training and evaluation.

A folder of videos without labels:

  python -m tools.convert_videos --input=videos --output=records --split=unlabelled

A folder with one sub-folder for each class:

  python -m tools.convert_videos --input=videos/train --output=records --split=train \
    --labels=folders

A CSV file with the header `video_path,start,end,label` (only video_path is needed):

  python -m tools.convert_videos --input=videos/test.csv --output=records --split=test

The output folder holds the shards `<split>-00000-of-00010.tfrecord`, `<split>.json` with the
settings and the counts, `labels.txt` with the label map that all splits share, and `rejects.csv`
with the videos that could not be used and why. The same command continues an interrupted
conversion, and does nothing after a finished one.
"""

import os
import pathlib
import re

from absl import flags

from elo_tf import cli
from elo_tf.data import conversion, encoding, media, schema
from elo_tf.errors import UserError

_INPUT = flags.DEFINE_string(
    "input", None, "Folder of videos (searched to its depth) or CSV file.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the records.", required=True)
_SPLIT = flags.DEFINE_string(
    "split", "train", "Name of the split, such as unlabelled, train or test.")
_SHARDS = flags.DEFINE_integer(
    "shards", 0, "Number of shards; 0 for the square root of the number of videos.",
    lower_bound=0)
_LABELS = flags.DEFINE_enum(
    "labels", "none", ["none", "folders"],
    "Where labels come from: none, or the name of the folder that a video lies in. "
    "A CSV file brings its own.")
_FPS = flags.DEFINE_float("fps", 12.0, "Frames a second that are stored.", lower_bound=0.1)
_MIN_SIDE = flags.DEFINE_integer(
    "min_side", 64, "Shorter side of the stored frames, in pixels.", lower_bound=16,
    upper_bound=2160)
_FLOW = flags.DEFINE_enum(
    "flow", "dis", ["dis", "none"], "Optical flow: DIS, or none to store frames and sound only.")
_WORKERS = flags.DEFINE_integer(
    "workers", os.cpu_count() or 1,
    "Processes that decode; 0 decodes in this one. The records do not depend on it.",
    lower_bound=0)
_MIN_FRAMES = flags.DEFINE_integer(
    "min_frames", 2, "Videos with fewer stored frames are rejected.", lower_bound=1)
_MAX_SECONDS = flags.DEFINE_float(
    "max_seconds", media.Limits.max_seconds,
    "Longer videos are cut to this; list parts of them in a CSV file to use more.",
    lower_bound=0.1)
_MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels", media.Limits.max_pixels, "Videos with larger frames are rejected.",
    lower_bound=1)
_MAX_FRAMES = flags.DEFINE_integer(
    "max_frames", media.Limits.max_frames,
    "Videos with more source frames in the part that is used are rejected.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the order in which the videos are stored.")


def main(_: list[str]) -> None:
    """Runs the conversion and prints its counts."""
    if not re.fullmatch(r"[A-Za-z0-9_]+", _SPLIT.value):
        raise UserError(f"--split={_SPLIT.value!r} becomes part of file names; use letters, "
                        "digits and underscores")
    if not _INPUT.value or not _OUTPUT.value:
        raise UserError("--input and --output must not be empty; name a folder or a CSV file, "
                        "and the folder for the records")
    summary = conversion.convert(conversion.Conversion(
        source=_INPUT.value, output=_OUTPUT.value, split=_SPLIT.value, shards=_SHARDS.value,
        labels=_LABELS.value, workers=_WORKERS.value, seed=_SEED.value,
        options=encoding.VideoOptions(
            fps=_FPS.value, min_side=_MIN_SIDE.value, flow=_FLOW.value,
            min_frames=_MIN_FRAMES.value,
            limits=media.Limits(_MAX_SECONDS.value, _MAX_PIXELS.value, _MAX_FRAMES.value))))
    output = pathlib.Path(_OUTPUT.value)
    if summary["unchanged"]:
        print(f"{output} holds all shards of the split {_SPLIT.value!r} with these settings "
              "already; nothing to do.")
    print(f"{len(summary['shards'])} shards in {output}: {summary['seconds']:.1f} s of video, "
          f"{summary['with_audio']} with sound, {summary['silent']} with a silent track, "
          f"{summary['with_flow']} with optical flow, {summary['labelled']} with a label, "
          f"{summary['damaged']} damaged, {summary['cut']} cut to {_MAX_SECONDS.value:g} s")
    for reason, count in summary["reasons"].items():
        print(f"rejected as {reason}: {count} (see {output / schema.REJECTS_FILE})")
    print(f"{_SPLIT.value}: {summary['converted']} converted, {summary['rejected']} rejected")


if __name__ == "__main__":
    cli.run(main)
