"""Turns the lists of a data set into the CSV files that videos are converted from.

`official_lists.py` and `plain_lists.py` read the lists, `video_folder.py` finds the videos, and
this module checks the counts and writes `<name>_<split>.csv` for each split,
`<name>_unlabelled.csv` with the training videos without their labels, `<name>_missing.csv` with
the videos that are not there, and `labels.txt`, the label map of all splits and folds.
"""

import collections
import csv
import dataclasses
import io
import os
import pathlib
import re
from collections.abc import Sequence

from elo_tf import files
from elo_tf.data import manifest, schema
from elo_tf.data.splits import official_lists, plain_lists, video_folder
from elo_tf.data.splits.official_lists import Listed, Listing
from elo_tf.errors import UserError

DATASETS = ("hmdb51", "ucf101", "kinetics", "list", "folders")
UNLABELLED = "unlabelled"

_FOLDED = ("hmdb51", "ucf101")
# Their labels are left out: the protocol sets these videos aside.
_WITHOUT_LABELS = ("unused", UNLABELLED)


@dataclasses.dataclass(frozen=True)
class Import:
    """What to import.

    Attributes:
      dataset: one of `DATASETS`.
      videos: the folder of the videos.
      output: the folder for the CSV files and the label map.
      splits: the folder of the lists, or one list; None for "folders", which has none.
      fold: 1, 2 or 3, for HMDB51 and UCF101; None is 1.
      name: begins the names of the files; None for the data set and the fold.
      path_format: for Kinetics, see `official_lists.read_kinetics`.
      whole_videos: for Kinetics, likewise.
      class_names: for "list", see `plain_lists.read_path_lists`.
      test_percent: for "folders", see `plain_lists.read_class_folders`.
      seed: for "folders", likewise.
      allow_other_counts: accept lists that are not the official ones.
    """

    dataset: str
    videos: str
    output: str
    splits: str | None = None
    fold: int | None = None
    name: str | None = None
    path_format: str | None = None
    whole_videos: bool = False
    class_names: str | None = None
    test_percent: float = 20.0
    seed: int = 0
    allow_other_counts: bool = False


@dataclasses.dataclass
class SplitCounts:
    """One split: what is listed and what is there.

    Attributes:
      split: its name.
      listed: number of videos in the lists.
      official: number in the official lists; None where that is not fixed.
      found: number of videos that are there.
      classes: number of classes that are listed.
      path: the CSV file; None if no video of the split is there.
    """

    split: str
    listed: int
    official: int | None
    found: int
    classes: int
    path: pathlib.Path | None

    @property
    def missing(self) -> int:
        """Number of videos that are listed and not there."""
        return self.listed - self.found


@dataclasses.dataclass
class Imported:
    """What was written.

    Attributes:
      counts: one entry a split.
      notes: what the user should know.
      unlabelled: the CSV file of the training videos without labels, or None.
      missing: the CSV file of the videos that are not there, or None.
      name: what the names of the files begin with.
    """

    counts: list[SplitCounts]
    notes: list[str]
    unlabelled: pathlib.Path | None
    missing: pathlib.Path | None
    name: str

    def table(self) -> str:
        """The counts as text, one line a split."""
        rows = [("split", "listed", "official", "found", "missing", "classes")]
        rows += [(x.split, f"{x.listed}", "-" if x.official is None else f"{x.official}",
                  f"{x.found}", f"{x.missing}", f"{x.classes}") for x in self.counts]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) if place else cell.ljust(width)
                      for place, (cell, width) in enumerate(zip(row, widths, strict=True)))
            for row in rows)


def import_splits(job: Import) -> Imported:
    """Reads the lists, looks for the videos, and writes the CSV files.

    Args:
      job: the data set, its lists and its videos.

    Returns:
      Counts, notes and the files.

    Raises:
      UserError: if lists are missing or malformed, their counts are not the official ones, no
        video is found, or the folder has another label map.
    """
    if not os.path.isdir(job.videos):
        raise UserError(f"--videos={job.videos} is not a folder; name the one that the videos are "
                        "in")
    listing = read_lists(job)
    _check_counts(job, listing)
    output = pathlib.Path(job.output)
    if job.name is not None and not re.fullmatch(r"[\w.-]+", job.name):
        raise UserError(f"--name={job.name!r} begins the names of the files; use letters, digits, "
                        "underscores, dots and dashes")
    labels = _label_map(output, listing)
    fold = f"_fold{job.fold or 1}" if job.dataset in _FOLDED else ""
    name = job.name or f"{job.dataset}{fold}"
    found, missing, notes = _find_videos(job, listing)

    def write(split: str, videos: Sequence[tuple[str, Listed]]) -> pathlib.Path | None:
        path = output / f"{name}_{split}.csv"
        if not videos:
            path.unlink(missing_ok=True)  # Of an import before.
            return None
        _write_csv(path, ("video_path", "start", "end", "label"), [
            (_relative(file), _number(video.start), _number(video.end),
             "" if split in _WITHOUT_LABELS else video.label or "") for file, video in videos])
        return path

    counts = []
    for split in listing.splits:
        listed = [video for video in listing.videos if video.split == split]
        counts.append(SplitCounts(
            split, len(listed), listing.official.get(split), len(found[split]),
            len({video.label for video in listed} - {None}), write(split, found[split])))
    missing_path = output / f"{name}_missing.csv"
    _write_csv(missing_path, ("video_path", "split", "label", "reason"), [
        (video.path, video.split, video.label or "", reason) for video, reason in missing])
    if labels and not (output / schema.LABELS_FILE).exists():
        manifest.write_labels(output, {label: index for index, label in enumerate(labels)})
    return Imported(counts, listing.notes + notes, write(UNLABELLED, found.get("train", [])),
                    missing_path if missing else None, name)


def read_lists(job: Import) -> Listing:
    """Reads the lists of a data set, after checking that the settings are for it."""
    given = {"fold": (_FOLDED, job.fold is not None),
             "path_format": (("kinetics",), job.path_format is not None),
             "whole_videos": (("kinetics",), job.whole_videos),
             "class_names": (("list",), job.class_names is not None)}
    for flag, (datasets, is_given) in given.items():
        if is_given and job.dataset not in datasets:
            raise UserError(f"--{flag} is for --dataset={' and '.join(datasets)}, not for "
                            f"{job.dataset}; leave it out")
    if job.dataset == "folders":
        if job.splits is not None:
            raise UserError("--splits is not for --dataset=folders, whose videos lie in folders of "
                            "classes; leave it out")
        return plain_lists.read_class_folders(job.videos, job.test_percent, job.seed)
    if not job.splits or not os.path.exists(job.splits):
        raise UserError(f"--splits={job.splits or ''} does not exist; name the folder of the lists "
                        f"of {job.dataset}")
    if job.dataset == "kinetics":
        return official_lists.read_kinetics(job.splits, job.path_format, job.whole_videos)
    if job.dataset == "list":
        return plain_lists.read_path_lists(job.splits, job.class_names)
    read = {"hmdb51": official_lists.read_hmdb51, "ucf101": official_lists.read_ucf101}
    if job.dataset not in read:
        raise UserError(f"--dataset={job.dataset} is not known; there are {', '.join(DATASETS)}")
    return read[job.dataset](job.splits, 1 if job.fold is None else job.fold)


def _check_counts(job: Import, listing: Listing) -> None:
    listed = collections.Counter(video.split for video in listing.videos)
    wrong = [f"{split} lists {listed[split]} videos, officially {official}"
             for split, official in listing.official.items() if listed[split] != official]
    if wrong and not job.allow_other_counts:
        raise UserError(f"{job.splits} is not the official {job.dataset} fold {job.fold or 1}: "
                        f"{'; '.join(wrong)}. Mend the lists, or accept them with "
                        "--allow_other_counts")


def _label_map(output: pathlib.Path, listing: Listing) -> list[str]:
    """The label map of all splits: that of the folder, which must fit, or else of the lists."""
    labels = {video.label for video in listing.videos if video.label is not None}
    names = sorted(labels) if listing.names is None else listing.names
    known = manifest.read_labels(output) if output.is_dir() else None
    if known is None or not names:
        return names
    path = output / schema.LABELS_FILE
    if listing.names is not None:
        manifest.check_same_labels(path, known, "the lists", names)
    elif not labels <= set(known):
        lacking = sorted(labels - set(known))
        raise UserError(f"{path}, of another import, lacks {len(lacking)} of the {len(labels)} "
                        f"labels of these lists, such as {lacking[0]!r}; name another folder with "
                        "--output")
    return known


def _find_videos(job: Import, listing: Listing) -> tuple[
        dict[str, list[tuple[str, Listed]]], list[tuple[Listed, str]], list[str]]:
    """Files and videos by split, the videos that are not there with the reason, and notes."""
    folder = video_folder.VideoFolder(job.videos)
    found: dict[str, list[tuple[str, Listed]]] = {split: [] for split in listing.splits}
    owners: dict[tuple, Listed] = {}
    missing: list[tuple[Listed, str]] = []
    changed: dict[str, list[tuple[Listed, str]]] = {}
    matches = [(video, *folder.find(video)) for video in listing.videos]
    # Those found under their own name come first, so that no other takes their file.
    for video, file, how in sorted(matches, key=lambda match: bool(match[2])):
        if file is None:
            missing.append((video, "not found"))
            continue
        owner = owners.setdefault((video.split, file, video.start, video.end), video)
        if owner is not video:
            missing.append((video, f"its file is that of {owner.path}, labelled {owner.label}"))
            continue
        found[video.split].append((file, video))
        if how:
            changed.setdefault(how, []).append((video, file))
    if not any(found.values()):
        seen = ", ".join(folder.first()) or "no videos"
        raise UserError(
            f"none of the {len(listing.videos)} listed videos is in {folder.root}: the first would "
            f"be {os.path.join(folder.root, listing.videos[0].path)}, and the folder holds "
            f"{seen}{', ...' if folder.count > 3 else ''}; name the folder that the paths in the "
            "lists are relative to with --videos")
    notes = [f"{len(pairs)} videos were found {how}, such as {pairs[0][0].path} as {pairs[0][1]}"
             for how, pairs in sorted(changed.items())]
    twice = [video for video, reason in missing if reason != "not found"]
    if twice:
        notes.append(f"{len(twice)} listed videos share their file with another of the split and "
                     f"are left out, such as {twice[0].path}")
    for split in found.values():
        split.sort(key=lambda pair: (pair[0], pair[1].start or 0.0, pair[1].end or 0.0))
    missing.sort(key=lambda pair: (listing.splits.index(pair[0].split), pair[0].path,
                                   pair[0].start or 0.0, pair[0].label or ""))
    return found, missing, notes + _shared_between_splits(found)


def _shared_between_splits(found: dict[str, list[tuple[str, Listed]]]) -> list[str]:
    """Notes on videos that lie in two splits, so that one is tested on what it was trained on."""
    splits = list(found)
    parts = {split: {(file, video.start, video.end) for file, video in found[split]}
             for split in splits}
    notes = []
    for place, first in enumerate(splits):
        for second in splits[place + 1:]:
            both = parts[first] & parts[second]
            if both:
                notes.append(f"{len(both)} videos are both in {first} and in {second}, such as "
                             f"{min(file for file, _, _ in both)}")
    return notes


def _relative(file: str) -> str:
    """A path as the CSV takes it, which drops spaces around a value."""
    return file if file == file.strip() else f"./{file}"


def _number(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.6f}".rstrip("0").rstrip(".")


def _write_csv(path: pathlib.Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    try:
        files.write_atomic(path, text.getvalue().encode("utf-8"))
    except UnicodeEncodeError as error:
        broken = next(value for row in rows for value in row
                      if value != value.encode("utf-8", "ignore").decode("utf-8"))
        raise UserError(f"the file name {broken!r} is not UTF-8; rename the file") from error
