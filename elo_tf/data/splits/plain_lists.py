"""Data sets without official lists: lines of `path label`, and folders that are classes."""

import csv
import hashlib
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from elo_tf.data import manifest, media
from elo_tf.data.splits import official_lists as lists
from elo_tf.data.splits.official_lists import Listed, Listing
from elo_tf.errors import UserError

_LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".list", ".lst")
# The path ends at the last suffix of a video before a separator, so that it and the label may
# hold spaces and commas.
_LINE = re.compile(
    rf"(?P<path>.*(?:{'|'.join(re.escape(x) for x in sorted(media.VIDEO_SUFFIXES))}))"
    r"(?:[\s,]+(?P<label>.*))?", re.IGNORECASE)
_LARGEST_LABEL = 100_000


def read_path_lists(source: str | os.PathLike,
                    class_names: str | os.PathLike | None = None) -> Listing:
    """Reads lists of `path label`, between which is a space, a tab or a comma.

    Labels that are integers from 0 on keep their values as ids, so that models and predictions
    made elsewhere from the same list fit: the label map has the names in `class_names`, or the
    integers from 0 to the largest as text. Other labels are names, and are sorted. A line without
    a label, or with the label -1, is an unlabelled video.

    Args:
      source: one list, or a folder of lists whose names hold train, val or test.
      class_names: file with the name of class i on line i, from 0; or with `number name` lines,
        counted from 0 or 1.

    Returns:
      The videos.

    Raises:
      UserError: if there is no list, a line is malformed, or a label has no name.
    """
    files = _split_files(pathlib.Path(source))
    rows = [(where, path, split, label) for split, file in files.items()
            for where, path, label in _path_lines(file)]
    labels = {label for _, _, _, label in rows if label is not None}
    numbers = bool(labels) and all(re.fullmatch(r"\d+", label) for label in labels)
    notes = []
    # What a label in the list is called in the label map, in the map's order.
    called: dict[Any, str] | None = None
    if class_names is not None:
        called = _class_names(class_names)
        if not numbers:
            called = {name: name for name in called.values()}
    elif numbers:
        used = {int(label) for label in labels}
        if max(used) >= _LARGEST_LABEL:
            raise UserError(f"{source} has the label {max(used)}; labels count from 0 up to "
                            f"{_LARGEST_LABEL - 1}")
        called = {index: str(index) for index in range(max(used) + 1)}
        unused = sorted(set(called) - used)
        if unused:
            notes.append(f"{len(unused)} labels between 0 and {max(used)} do not occur (such as "
                         f"{unused[0]}); they stay empty, so that the ids are the list's")
    videos = []
    for where, path, split, label in rows:
        if label is not None and called is not None:
            key = int(label) if numbers else label
            if key not in called:
                raise UserError(f"{where}: the label {label!r} is not in {class_names}, which has "
                                f"{len(called)}, from {min(called)!r} to {max(called)!r}")
            label = called[key]
        videos.append(Listed(path, split, label))
    return Listing(videos, list(files), list(called.values()) if called else None, notes=notes)


def _split_files(source: pathlib.Path) -> dict[str, pathlib.Path]:
    """The list of each split."""
    if source.is_file():
        return {lists.split_name(source.stem): source}
    found: dict[str, pathlib.Path] = {}
    for path in sorted(lists.list_folder(source).iterdir()):
        split = lists.split_name(path.stem)
        if path.suffix.lower() not in _LIST_SUFFIXES or split not in ("train", "val", "test"):
            continue
        if split in found:
            raise UserError(f"--splits={source} holds two lists for the split {split}: "
                            f"{found[split].name} and {path.name}; name one of the files")
        found[split] = path
    if not found:
        raise UserError(f"--splits={source} holds no list {lists.shown_folder(source)}; name a "
                        "file, or a folder with files such as train.txt, val.csv or test.txt")
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _path_lines(file: pathlib.Path) -> list[tuple[str, str, str | None]]:
    found = []
    for number, line in lists.read_lines(file):
        where = f"{file} line {number}"
        matched = _LINE.fullmatch(line)
        if line.startswith('"'):
            values = next(csv.reader([line]))
            path, label = values[0], ",".join(values[1:]).strip()
        elif matched:
            path, label = matched["path"], (matched["label"] or "").strip()
        elif number == 1:
            continue  # A header.
        else:
            path, label = re.fullmatch(r"(.*?)(?:[\s,]+([^\s,]+))?", line).groups(  # type: ignore[union-attr]
                "")  # Any line matches.
        if not path.strip():
            raise UserError(f"{where}: {line!r} is not a path and a label")
        # `path 0 -1` is how lists for pre-training say: all frames, no label.
        unlabelled = label in ("", "-1") or re.fullmatch(r"0[\s,]+-1", label)
        found.append((where, path.strip(), None if unlabelled else label.strip('"')))
    if not found:
        raise UserError(f"{file} lists no videos; it has one `path label` a line")
    return found


def _class_names(path: str | os.PathLike) -> dict[int, str]:
    """Names of classes by number, in the order of the numbers, which have no gaps."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"--class_names={path} does not exist; it lists one name a line")
    lines = [line for _, line in lists.read_lines(path)]
    numbered = [match for match in (re.fullmatch(r"(\d+)[\s,]+(.+)", line) for line in lines)
                if match]
    names = dict(enumerate(lines))
    if lines and len(numbered) == len(lines):
        places = [int(match[1]) for match in numbered]
        if places in (list(range(len(lines))), list(range(1, len(lines) + 1))):
            names = {place: match[2].strip() for place, match in zip(places, numbered, strict=True)}
    if not names or len(set(names.values())) < len(names):
        raise UserError(f"--class_names={path} is empty or repeats a name; it lists each once")
    return names


def read_class_folders(videos: str | os.PathLike, test_percent: float = 20.0,
                       seed: int = 0) -> Listing:
    """Takes folders for classes: `<class>/x.mp4`, or `train/<class>/x.mp4` and `test/<class>/...`.

    Without folders for the splits, the test videos of each class are those whose hash of path and
    seed comes first, so that every class has its share (our choice).

    Args:
      videos: the folder of the videos.
      test_percent: share of each class for testing; of two videos or more, at least one stays on
        each side, unless it is 0.
      seed: another seed draws other test videos.

    Returns:
      The videos.

    Raises:
      UserError: if there are no videos, or they do not lie in folders of classes.
    """
    entries = manifest.read_manifest(videos, "folders").entries
    first = [entry.relative.partition("/")[0] for entry in entries]
    tops = {top for top, entry in zip(first, entries, strict=True) if top != entry.relative}
    if all(lists.split_name(top) in ("train", "val", "test") and top.isalpha() for top in tops):
        outside = [entry.relative for entry in entries if entry.relative.count("/") < 2]
        if outside:
            raise UserError(f"{outside[0]} in {videos} lies in no folder of a class; videos lie in "
                            "train/<class>, test/<class>, or in <class>")
        listed = [Listed(entry.relative, lists.split_name(top), entry.label)
                  for top, entry in zip(first, entries, strict=True)]
        return Listing(listed, lists.ordered_splits(listed))
    classes: dict[str, list[str]] = {}
    for entry in entries:
        if entry.label is not None:
            classes.setdefault(entry.label, []).append(entry.relative)
    listed = []
    for label, paths in classes.items():
        test = _test_share(paths, test_percent, seed)
        listed += [Listed(path, "test" if path in test else "train", label) for path in paths]
    loose = len(entries) - len(listed)
    listing = Listing(listed, lists.ordered_splits(listed))
    if loose:
        listing.notes.append(f"{loose} videos lie in {videos} itself, in no class; they are left "
                             "out")
    return listing


def _test_share(paths: Sequence[str], percent: float, seed: int) -> set[str]:
    count = round(len(paths) * percent / 100)
    if len(paths) > 1 and percent > 0:
        count = min(max(count, 1), len(paths) - 1)

    def rank(path: str) -> bytes:
        return hashlib.sha256(f"{seed}\n{path}".encode("utf-8", "surrogateescape")).digest()

    return set(sorted(paths, key=rank)[:count])
