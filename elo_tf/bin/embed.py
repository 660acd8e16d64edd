r"""Embeds videos with an exported encoder: no records are needed.

    python -m elo_tf.bin.embed --model_dir=export/elo --input=videos --output=embeddings

The output folder holds `embeddings.parquet/`, a folder of shards that readers of Parquet take as
one table (pandas.read_parquet("embeddings/embeddings.parquet")); with --format=npy also
`embeddings.npy` and `ids.csv`, whose lines are its rows; `rejects.csv` with the videos that could
not be used, and why; `summary.json`. Started again it goes on where it was killed, and embeds the
videos that are new or whose size has changed. Another model or other settings are refused.

What to embed:       model_dir, input, video_root, windows, per_window
What is written:     output, format, shard_videos
What is refused:     max_pixels, max_memory_gb, timeout
Who does it:         workers, batch_size (the embeddings do not depend on these)
"""

import os

from absl import flags

from elo_tf import cli
from elo_tf.data import conversion
from elo_tf.errors import UserError
from elo_tf.serving import embedding_store, embeddings

_MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "The --export_dir of bin/export, whose newest version is taken, or the "
    "folder of a version.", required=True)
_INPUT = flags.DEFINE_string(
    "input", None, "Folder of videos (searched to its depth), or CSV file with the header "
    "video_path,start,end (only video_path is needed).", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the embeddings.", required=True)
_VIDEO_ROOT = flags.DEFINE_string(
    "video_root", None, "Folder that the paths of a CSV file are relative to; by default its own.")
_WINDOWS = flags.DEFINE_integer(
    "windows", embeddings.Clips.windows, "Clips of each video, spread evenly; 1 is its middle.",
    lower_bound=1)
_PER_WINDOW = flags.DEFINE_bool(
    "per_window", False, "Gives each clip a row of its own instead of averaging those of a video.")
_FORMAT = flags.DEFINE_enum(
    "format", "parquet", ["parquet", "npy"], "npy writes embeddings.npy and ids.csv, too.")
_SHARD_VIDEOS = flags.DEFINE_integer(
    "shard_videos", 256, "Videos of a shard: so many are lost at most where a run is killed.",
    lower_bound=1)
_MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels", embeddings.Clips.max_pixels, "Largest frame of a source.", lower_bound=1)
_MAX_MEMORY_GB = flags.DEFINE_float(
    "max_memory_gb", conversion.Limits.gigabytes, "Memory of each process that decodes.",
    lower_bound=0.5)
_TIMEOUT = flags.DEFINE_float(
    "timeout", conversion.Limits.seconds, "Seconds without a sign of life after which a video is "
    "given up.", lower_bound=1.0)
_WORKERS = flags.DEFINE_integer(
    "workers", os.cpu_count() or 1, "Processes that decode; 0 decodes in this one, without limits "
    "on memory and time.", lower_bound=0)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", embeddings.Effort.batch_size, "Clips that the network embeds at a time.",
    lower_bound=1)


def main(_: list[str]) -> None:
    """Embeds, and prints the counts."""
    for flag in (_MODEL_DIR, _INPUT, _OUTPUT):
        if not flag.value:
            raise UserError(f"--{flag.name} must not be empty; name a folder")
    summary = embeddings.embed_folder(
        _MODEL_DIR.value, _INPUT.value, _OUTPUT.value, video_root=_VIDEO_ROOT.value,
        clips=embeddings.Clips(_WINDOWS.value, _PER_WINDOW.value, _MAX_PIXELS.value),
        effort=embeddings.Effort(
            _WORKERS.value, _BATCH_SIZE.value,
            conversion.Limits(_TIMEOUT.value, _MAX_MEMORY_GB.value)),
        array=_FORMAT.value == "npy", shard_videos=_SHARD_VIDEOS.value)
    if not summary["new"]:
        print(f"{_OUTPUT.value} holds all of these videos already; nothing to do.")
    print(f"{summary['rows']} embeddings of {summary['settings']['embedding_size']} numbers in "
          f"{_OUTPUT.value}, of {summary['clips']} clips; {summary['damaged']} videos damaged")
    for reason, count in summary["rejected_by_reason"].items():
        print(f"rejected as {reason}: {count} "
              f"(see {os.path.join(_OUTPUT.value, embedding_store.REJECTS)})")
    print(f"{summary['embedded']} embedded, {summary['rejected']} rejected")


if __name__ == "__main__":
    cli.run(main)
