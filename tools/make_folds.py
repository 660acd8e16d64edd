r"""Makes folds of labelled videos that hold whole groups out, as CSV files for convert_videos.

A list with the columns path, label and group; each group is held out once (leave one subject out):

  python -m tools.make_folds --input=videos/labels.csv --output=lists --by=group

Five folds, each of several groups:

  python -m tools.make_folds --input=videos/labels.csv --output=lists --by=group --folds=5

The output folder receives train<i>.csv and test<i>.csv for each fold i, unlabelled.csv with all
videos, for pre-training, and labels.txt, the label map that all folds share. Paths stay as they
are: convert with --video_root, the folder that they are relative to.
"""

import pathlib

from absl import flags

from elo_tf import cli, programs
from elo_tf.data.splits import folds

_INPUT = flags.DEFINE_string(
    "input", None, "CSV file with the columns path, label, and that of --by.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the CSV files.", required=True)
_BY = flags.DEFINE_string("by", "group", "Column of what is held out together.")
_FOLDS = flags.DEFINE_integer("folds", 0, "How many; 0 for one for each group.", lower_bound=0)


def main(_: list[str]) -> None:
    """Writes the folds, and prints what each holds and the next commands."""
    videos = folds.read_list(_INPUT.value, _BY.value)
    counts = folds.write_folds(videos, _OUTPUT.value, _FOLDS.value)
    for split, count in counts.items():
        print(f"{split:12} {count:6} videos")
    print("\nNext, convert them:")
    for split in counts:
        print("  " + programs.shown(
            "tools.convert_videos", f"--input={pathlib.Path(_OUTPUT.value, f'{split}.csv')}",
            f"--video_root={pathlib.Path(_INPUT.value).parent}", f"--split={split}",
            "--output=records"))


if __name__ == "__main__":
    cli.run(main)
