r"""Converts videos, or images, to TFRecord shards for training and evaluation.

A folder of videos without labels:

  python -m tools.convert_videos --input=videos --output=records --split=unlabelled

A folder with one sub-folder for each class:

  python -m tools.convert_videos --input=videos/train --output=records --split=train \
    --labels=folders

A CSV file with the header `video_path,start,end,label,caption` (only video_path is needed); lists
of known data sets become such files by tools/import_splits:

  python -m tools.convert_videos --input=test.csv --video_root=videos --output=records --split=test

Long videos, cut into clips of ten seconds; images, as clips of one frame; shards made by a Ray
cluster, whose machines see the code, the input and the output at the same paths:

  python -m tools.convert_videos --input=films --output=records --clip_seconds=10
  python -m tools.convert_videos --input=photos --output=records --images --labels=folders
  python -m tools.convert_videos --input=videos --output=records --engine=ray \
    --ray_address=10.0.0.1:6379

The output folder holds the shards `<split>-00000-of-00010.tfrecord`, `<split>.json` with the
settings and the counts of each shard, `labels.txt` with the label map that all splits share,
`rejects.csv` with the videos that could not be used, or not to their end, and why, and
`summary.json` with what all conversions into the folder did. The same command continues an
interrupted conversion, and does nothing after a finished one.

What to convert:  input, video_root, images, labels, label_map; output, split, shards, seed
What is stored:   fps, min_side, region, clip_seconds, stride_seconds, flow, jpeg_quality, melspec
What is refused:  min_frames, max_seconds, max_pixels, max_frames, max_memory_gb, timeout
Who does it:      workers, engine, ray_address (the records do not depend on these)
"""

import math
import os
import pathlib
import re

from absl import flags

from elo_tf import cli
from elo_tf.data import conversion, encoding, flow, media, schema
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
_LABEL_MAP = flags.DEFINE_string(
    "label_map", None, "File with one label a line, in the order of their numbers; by default the "
    "labels.txt beside a CSV file, or the labels sorted.")
_VIDEO_ROOT = flags.DEFINE_string(
    "video_root", None, "Folder that the paths of a CSV file are relative to; by default its own.")
_IMAGES = flags.DEFINE_bool("images", False, "The input is images: each is a clip of one frame.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the order in which the videos are stored.")
_FPS = flags.DEFINE_float("fps", 12.0, "Frames a second that are stored.", lower_bound=0.1)
_MIN_SIDE = flags.DEFINE_integer(
    "min_side", 64, "Shorter side of the stored frames, in pixels.", lower_bound=16,
    upper_bound=2160)
_REGION = flags.DEFINE_list(
    "region", None, "The part of each picture that is stored, such as a speaker's mouth before a "
    "fixed camera: left,top,width,height as shares of the upright picture, 0.25,0.5,0.5,0.5. By "
    "default all of it.")
_CLIP_SECONDS = flags.DEFINE_float(
    "clip_seconds", None, "Cuts each video into clips of this length; by default a video is one "
    "clip.", lower_bound=0.1)
_STRIDE_SECONDS = flags.DEFINE_float(
    "stride_seconds", None, "From the beginning of a clip to that of the next; by default "
    "--clip_seconds.", lower_bound=0.1)
_FLOW = flags.DEFINE_enum(
    "flow", "dis", [*flow.METHODS, "none"],
    "Optical flow; none stores frames and sound only. TV-L1 takes tens of times as long as DIS.")
_JPEG_QUALITY = flags.DEFINE_integer(
    "jpeg_quality", encoding.VideoOptions.jpeg_quality, "Of the stored frames.", lower_bound=1,
    upper_bound=100)
_MELSPEC = flags.DEFINE_bool(
    "melspec", False, "Stores log-mel spectrograms beside the sound, for Scenic's readers.")
_MAX_SECONDS = flags.DEFINE_float(
    "max_seconds", None, "Longer videos are cut to this; by default 60, and 6 hours with "
    "--clip_seconds.", lower_bound=0.1)
_MIN_FRAMES = flags.DEFINE_integer(
    "min_frames", 2, "Videos with fewer stored frames are rejected.", lower_bound=1)
_MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels", media.Limits.max_pixels, "Largest frame of a source.", lower_bound=1)
_MAX_FRAMES = flags.DEFINE_integer(
    "max_frames", media.Limits.max_frames, "Most source frames of a clip.", lower_bound=1)
_MAX_MEMORY_GB = flags.DEFINE_float(
    "max_memory_gb", conversion.Limits.gigabytes, "Memory of each process that decodes.",
    lower_bound=0.5)
_TIMEOUT = flags.DEFINE_float(
    "timeout", conversion.Limits.seconds, "Seconds without a clip after which a video is given up.",
    lower_bound=1.0)
_WORKERS = flags.DEFINE_integer(
    "workers", os.cpu_count() or 1,
    "Processes that decode; 0 decodes in this one, without limits on memory and time.",
    lower_bound=0)
_ENGINE = flags.DEFINE_enum(
    "engine", "local", ["local", "ray"], "Processes of this machine, or a Ray cluster.")
_RAY_ADDRESS = flags.DEFINE_string(
    "ray_address", None, "Of a running Ray cluster; by default one is started on this machine.")


def main(_: list[str]) -> None:
    """Runs the conversion and prints its counts."""
    if not re.fullmatch(r"[A-Za-z0-9_]+", _SPLIT.value):
        raise UserError(f"--split={_SPLIT.value!r} becomes part of file names; use letters, "
                        "digits and underscores")
    if not _INPUT.value or not _OUTPUT.value:
        raise UserError("--input and --output must not be empty; name a folder or a CSV file, "
                        "and the folder for the records")
    if _STRIDE_SECONDS.value and not _CLIP_SECONDS.value:
        raise UserError(f"--stride_seconds={_STRIDE_SECONDS.value:g} is the distance of clips; "
                        "give --clip_seconds too")
    for flag in (_FPS, _CLIP_SECONDS, _STRIDE_SECONDS, _MAX_SECONDS, _MAX_MEMORY_GB, _TIMEOUT):
        if flag.value is not None and not math.isfinite(flag.value):
            raise UserError(f"--{flag.name}={flag.value} is not a number; give one such as "
                            f"{flag.default or 10:g}")
    if _IMAGES.value and _CLIP_SECONDS.value:
        raise UserError(f"--clip_seconds={_CLIP_SECONDS.value:g} is for videos, and --images are "
                        "clips of one frame; leave one of them out")
    if _RAY_ADDRESS.value and _ENGINE.value != "ray":
        raise UserError(f"--ray_address={_RAY_ADDRESS.value} is for --engine=ray, not for "
                        f"{_ENGINE.value}; give --engine=ray too")
    default_seconds = 6 * 3600.0 if _CLIP_SECONDS.value else media.Limits.max_seconds
    max_seconds = _MAX_SECONDS.value or default_seconds
    summary = conversion.convert(conversion.Conversion(
        source=_INPUT.value, output=_OUTPUT.value, split=_SPLIT.value, shards=_SHARDS.value,
        labels=_LABELS.value, video_root=_VIDEO_ROOT.value, label_map=_LABEL_MAP.value,
        seed=_SEED.value, melspec=_MELSPEC.value, workers=_WORKERS.value, engine=_ENGINE.value,
        ray_address=_RAY_ADDRESS.value,
        limits=conversion.Limits(_TIMEOUT.value, _MAX_MEMORY_GB.value),
        options=encoding.VideoOptions(
            fps=_FPS.value, min_side=_MIN_SIDE.value,
            flow="none" if _IMAGES.value else _FLOW.value, min_frames=_MIN_FRAMES.value,
            clip_seconds=_CLIP_SECONDS.value, stride_seconds=_STRIDE_SECONDS.value,
            images=_IMAGES.value, jpeg_quality=_JPEG_QUALITY.value, region=_region(),
            limits=media.Limits(max_seconds, _MAX_PIXELS.value, _MAX_FRAMES.value))))
    output = pathlib.Path(_OUTPUT.value)
    if summary["unchanged"]:
        print(f"{output} holds all shards of the split {_SPLIT.value!r} with these settings "
              "already; nothing to do.")
    print(f"{len(summary['shards'])} shards in {output}: {summary['clips']} clips, "
          f"{summary['seconds']:.1f} s, {summary['bytes'] / 2**20:.1f} MiB; "
          f"{summary['with_audio']} with sound, {summary['silent']} with a silent track, "
          f"{summary['with_flow']} with optical flow, {summary['labelled']} with a label; "
          f"{summary['damaged']} videos damaged, {summary['cut']} cut to {max_seconds:g} s")
    for reasons, what in (("incomplete", "used in part"), ("reasons", "rejected")):
        for reason, count in summary[reasons].items():
            print(f"{what} as {reason}: {count} (see {output / schema.REJECTS_FILE})")
    print(f"{_SPLIT.value}: {summary['converted']} converted, {summary['rejected']} rejected")


def _region() -> media.Region | None:
    if not _REGION.value:
        return None
    try:
        left, top, width, height = map(float, _REGION.value)
    except ValueError as error:
        raise UserError(f"--region={','.join(_REGION.value)} is not four numbers; give left, top, "
                        "width and height as shares, such as 0.25,0.5,0.5,0.5") from error
    return left, top, width, height


if __name__ == "__main__":
    cli.run(main)
