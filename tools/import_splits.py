r"""Turns the official lists of a data set into CSV files for tools.convert_videos.

HMDB51 and UCF101, one fold:

  python -m tools.import_splits --dataset=hmdb51 --splits=testTrainMulti_7030_splits --fold=1 \
    --videos=hmdb51 --output=lists
  python -m tools.import_splits --dataset=ucf101 --splits=ucfTrainTestlist --fold=1 \
    --videos=UCF-101 --output=lists

Kinetics-400, 600 or 700, from CSV lists with the columns label, youtube_id, time_start, time_end
and split. Clips named <youtube_id>_<start>_<end>.mp4 are found in any folder:

  python -m tools.import_splits --dataset=kinetics --name=kinetics400 --splits=annotations \
    --videos=k400 --output=lists

Lists of `path label`, as SlowFast, VideoMAE and MMAction read them:

  python -m tools.import_splits --dataset=list --splits=train.txt --videos=videos --output=lists

One folder a class (<class>/x.mp4, or train/<class>/x.mp4 and test/<class>/x.mp4):

  python -m tools.import_splits --dataset=folders --videos=videos --output=lists

The output folder receives <name>_<split>.csv with the videos of each split that are there,
<name>_unlabelled.csv with the training videos without their labels (for pre-training),
<name>_missing.csv with the listed videos that are not there, and labels.txt, the label map that
all splits and folds share. Videos are found with another suffix, case, Unicode form or folder
where only one can be meant, and a note says so. Lists whose counts are not the official ones are
an error.
"""

import pathlib

from absl import flags

from elo_tf import cli, programs
from elo_tf.data import splits
from elo_tf.errors import UserError

_DATASET = flags.DEFINE_enum(
    "dataset", None, list(splits.DATASETS), "Which lists to read.", required=True)
_SPLITS = flags.DEFINE_string(
    "splits", None, "Folder of the lists; for kinetics and list also one file.")
_VIDEOS = flags.DEFINE_string("videos", None, "Folder of the videos.", required=True)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder for the CSV files and labels.txt.", required=True)
_FOLD = flags.DEFINE_integer(
    "fold", None, "Which of the three folds of hmdb51 or ucf101. Default: 1.", lower_bound=1,
    upper_bound=3)
_NAME = flags.DEFINE_string(
    "name", None, "Begins the names of the files. Default: the data set and the fold.")
_PATH_FORMAT = flags.DEFINE_string(
    "path_format", None, "kinetics: where a clip lies below --videos, such as "
    "'{split}/{label}/{youtube_id}_{start:06d}_{end:06d}.mp4'; {label_} has underscores for "
    "spaces; without a suffix any is taken. Default: the name {youtube_id}_{start:06d}_{end:06d} "
    "in any folder.")
_WHOLE_VIDEOS = flags.DEFINE_boolean(
    "whole_videos", False, "kinetics: the files are whole videos, <youtube_id>.mp4 by default, "
    "that are still to be cut to the listed times.")
_CLASS_NAMES = flags.DEFINE_string(
    "class_names", None, "list: file with the names of the classes that the list numbers, one a "
    "line, in order. Default: the numbers are the names.")
_TEST_PERCENT = flags.DEFINE_float(
    "test_percent", 20.0, "folders: share of each class for testing, where there are no folders "
    "train and test.", lower_bound=0, upper_bound=100)
_SEED = flags.DEFINE_integer("seed", 0, "folders: seed of the draw of the test videos.")
_ALLOW_OTHER_COUNTS = flags.DEFINE_boolean(
    "allow_other_counts", False, "Accept lists that differ from the official ones in number.")


def commands(imported: splits.Imported, videos: str) -> list[str]:
    """The commands that convert what was imported, to be pasted into a shell."""
    inputs = {count.split: count.path for count in imported.counts if count.path is not None}
    if imported.unlabelled is not None:
        inputs = {splits.UNLABELLED: imported.unlabelled, **inputs}
    return [programs.shown("tools.convert_videos", f"--input={path}", f"--video_root={videos}",
                           f"--split={split}",
                           f"--output={pathlib.Path('records', imported.name)}")
            for split, path in inputs.items()]


def main(_: list[str]) -> None:
    """Imports the lists; prints the counts, the notes and the next commands."""
    if not _VIDEOS.value or not _OUTPUT.value:
        raise UserError("--videos and --output must not be empty; name the folder of the videos, "
                        "and one for the CSV files")
    imported = splits.import_splits(splits.Import(
        dataset=_DATASET.value, videos=_VIDEOS.value, output=_OUTPUT.value, splits=_SPLITS.value,
        fold=_FOLD.value, name=_NAME.value, path_format=_PATH_FORMAT.value,
        whole_videos=_WHOLE_VIDEOS.value, class_names=_CLASS_NAMES.value,
        test_percent=_TEST_PERCENT.value, seed=_SEED.value,
        allow_other_counts=_ALLOW_OTHER_COUNTS.value))
    print(imported.table())
    for note in imported.notes:
        print(f"note: {note}")
    if imported.missing is not None:
        print(f"The missing videos are listed in {imported.missing}.")
    print("\nNext, convert them:")
    for command in commands(imported, _VIDEOS.value):
        print(f"  {command}")


if __name__ == "__main__":
    cli.run(main)
