"""Folds of labelled videos that come in groups: all videos of a group are tested together.

The videos of one person, film or recording resemble each other: a network that is tested on some
of them and trained on the rest may tell the person instead of the class. A list with a header
`path,label,group` names each video's group.
"""

import collections
import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Sequence

from elo_tf import files
from elo_tf.data import schema
from elo_tf.errors import UserError

UNLABELLED = "unlabelled"
_HEADER = ("video_path", "start", "end", "label")


@dataclasses.dataclass(frozen=True)
class Video:
    """A line of the list.

    Attributes:
      path: as the list gives it.
      label: name of the class.
      group: what is held out together.
    """

    path: str
    label: str
    group: str


def read_list(path: str | os.PathLike, by: str = "group") -> list[Video]:
    """Reads a list of labelled videos.

    Args:
      path: CSV file with the columns `path`, `label` and `by`.
      by: name of the column of the groups.

    Returns:
      The videos, in the order of the list.

    Raises:
      UserError: if the file is not there, lacks a column, a value or all videos, or repeats one.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"--input={path} is no file; name a CSV file with the columns path, label "
                        f"and {by}")
    columns = ("path", "label", by)
    videos: dict[str, Video] = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        lacking = [x for x in columns if x not in (reader.fieldnames or [])]
        if lacking:
            raise UserError(f"{path} line 1: no column {lacking[0]} (found: "
                            f"{', '.join(reader.fieldnames or []) or 'nothing'})")
        for row in reader:
            values = [(row[x] or "").strip() for x in columns]
            for column, value in zip(columns, values, strict=True):
                if not value:
                    raise UserError(f"{path} line {reader.line_num}: {column} is empty")
            if values[0] in videos:
                raise UserError(f"{path} line {reader.line_num}: repeats {values[0]}; leave one of "
                                "them out")
            videos[values[0]] = Video(*values)
    if not videos:
        raise UserError(f"{path} lists no videos; add a line for each below the header")
    return list(videos.values())


def assign(videos: Sequence[Video], folds: int = 0) -> list[list[str]]:
    """Deals the groups to folds of about equal size: each, the largest first, to the smallest fold.

    Args:
      videos: with their groups.
      folds: how many; 0 for one for each group.

    Returns:
      The groups whose videos each fold tests, sorted.

    Raises:
      UserError: if there are fewer groups than folds, or one fold only, or a class lies wholly in
        the groups of one fold, so that it would be tested and never trained on.
    """
    sizes = collections.Counter(video.group for video in videos)
    folds = folds or len(sizes)
    if not 2 <= folds <= len(sizes):
        raise UserError(f"--folds={folds}, but there are {len(sizes)} groups, such as "
                        f"{min(sizes)}; it must be between 2 and that")
    if folds == len(sizes):
        tested = [[group] for group in sorted(sizes)]
    else:
        tested = [[] for _ in range(folds)]
        filled = [0] * folds
        for group in sorted(sizes, key=lambda x: (-sizes[x], x)):
            fold = filled.index(min(filled))
            tested[fold].append(group)
            filled[fold] += sizes[group]
    for number, groups in enumerate(tested, start=1):
        trained = {video.label for video in videos if video.group not in groups}
        alone = sorted({video.label for video in videos if video.group in groups} - trained)
        if alone:
            raise UserError(f"all videos of class {alone[0]!r} would be tested in fold {number} "
                            f"(groups {', '.join(groups)}), with none to train on; take more "
                            "folds, or leave the class out")
    return [sorted(groups) for groups in tested]


def write_folds(videos: Sequence[Video], output: str | os.PathLike,
                folds: int = 0) -> dict[str, int]:
    """Writes the CSV files that tools/convert_videos reads.

    Args:
      videos: with their groups.
      output: folder that gets `train<i>.csv` and `test<i>.csv` for each fold i from 1 on,
        `unlabelled.csv` of all videos, and `labels.txt`, the label map of all of them.
      folds: see `assign`.

    Returns:
      The number of videos of each file, by the name of its split.

    Raises:
      UserError: see `assign`.
    """
    output = pathlib.Path(output)
    splits = {UNLABELLED: [(video, "") for video in videos]}
    for number, groups in enumerate(assign(videos, folds), start=1):
        for split, tested in (("train", False), ("test", True)):
            splits[f"{split}{number}"] = [
                (video, video.label) for video in videos if (video.group in groups) == tested]
    for split, listed in splits.items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_HEADER)
        writer.writerows((video.path, "", "", label) for video, label in listed)
        files.write_atomic(output / f"{split}.csv", text.getvalue())
    labels = sorted({video.label for video in videos})
    files.write_atomic(output / schema.LABELS_FILE, "".join(f"{x}\n" for x in labels))
    return {split: len(listed) for split, listed in splits.items()}
