"""The official lists of HMDB51, UCF101 and Kinetics, read into one form.

Each reader gives every video that the lists name, with its split and its class, and the number of
videos that the official lists have. Nothing here looks at the videos.
"""

import csv
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

from elo_tf.data import media
from elo_tf.errors import UserError

# Videos of each split by fold. Kinetics has no such numbers: its lists were published again and
# again, with the videos left out that had been taken down.
HMDB51_COUNTS = {fold: {"train": 3570, "test": 1530, "unused": 1666} for fold in (1, 2, 3)}
UCF101_COUNTS = {1: {"train": 9537, "test": 3783}, 2: {"train": 9586, "test": 3734},
                 3: {"train": 9624, "test": 3696}}

_HMDB51_SPLITS = {"0": "unused", "1": "train", "2": "test"}
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test")}
_KINETICS_COLUMNS = {
    "label": "label", "youtube_id": "id", "video": "id", "video_id": "id", "time_start": "start",
    "start": "start", "time_end": "end", "end": "end", "split": "split"}


@dataclasses.dataclass(frozen=True)
class Listed:
    """One video that a list names.

    Attributes:
      path: where the list says that it lies, below the folder of videos.
      split: name of its split.
      label: name of its class, or None.
      start: first second used of the file, or None.
      end: second before which to stop, or None.
      stem: its file name without suffix, if that is unique in the data set, so that it may lie in
        any folder; else None.
      case_matters: whether names that differ only in case are different videos.
    """

    path: str
    split: str
    label: str | None
    start: float | None = None
    end: float | None = None
    stem: str | None = None
    case_matters: bool = False


@dataclasses.dataclass
class Listing:
    """All lists of a data set.

    Attributes:
      videos: in the order of the lists.
      splits: the names of the splits in the order in which they are shown.
      names: the label map, where the lists give one; None for the sorted labels.
      official: how many videos each split has officially; empty where that is not fixed.
      notes: what the user should know.
    """

    videos: list[Listed]
    splits: Sequence[str]
    names: list[str] | None = None
    official: dict[str, int] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


def read_hmdb51(folder: str | os.PathLike, fold: int) -> Listing:
    """Reads HMDB51's `<class>_test_split<fold>.txt`: 1 is train, 2 is test, 0 is unused.

    Args:
      folder: the folder of the lists (`testTrainMulti_7030_splits`).
      fold: 1, 2 or 3.

    Returns:
      The videos, as `<class>/<name>.avi`.

    Raises:
      UserError: if there are no such lists, or one is malformed.
    """
    ending = f"_test_split{fold}.txt"
    videos = []
    for path in sorted(list_folder(folder).iterdir()):
        if path.name.startswith(".") or not path.name.endswith(ending):
            continue
        label = path.name.removesuffix(ending)
        for number, line in read_lines(path):
            name, _, flag = line.rpartition(" ")
            if flag not in _HMDB51_SPLITS or not name.strip():
                raise UserError(f"{path} line {number}: {line!r} is not a file name and 0, 1 or 2")
            name = name.strip()
            videos.append(Listed(f"{label}/{name}", _HMDB51_SPLITS[flag], label,
                                 stem=without_suffix(name)))
    if not videos:
        raise UserError(f"--splits={folder} holds no <class>{ending} {shown_folder(folder)}; name "
                        "the folder of HMDB51's lists")
    return Listing(videos, ("train", "test", "unused"), official=HMDB51_COUNTS[fold])


def read_ucf101(folder: str | os.PathLike, fold: int) -> Listing:
    """Reads UCF101's `trainlist0<fold>.txt` and `testlist0<fold>.txt`.

    The class is the folder in a path. Where `classInd.txt` is there, its spelling rules and the
    numbers in the training list are checked against it. Its order does not become the label map,
    since it is not that of sorted names; a note says so.

    Args:
      folder: the folder of the lists (`ucfTrainTestlist`).
      fold: 1, 2 or 3.

    Returns:
      The videos, as `<class>/<name>.avi`.

    Raises:
      UserError: if a list is missing, is malformed, or disagrees with `classInd.txt`.
    """
    folder = list_folder(folder)
    index_path = folder / "classInd.txt"
    index: dict[str, int] = {}
    if index_path.exists():
        for number, line in read_lines(index_path):
            place, _, name = line.partition(" ")
            if not place.isdigit() or not name.strip():
                raise UserError(f"{index_path} line {number}: {line!r} is not a number and a class")
            index[name.strip()] = int(place)
    spelling = {name.casefold(): name for name in index}
    videos = []
    for split in ("train", "test"):
        path = folder / f"{split}list{fold:02d}.txt"
        if not path.exists():
            raise UserError(f"--splits={folder} holds no {path.name} {shown_folder(folder)}; name "
                            "the folder of UCF101's lists")
        for number, line in read_lines(path):
            name, _, place = line.rpartition(" ")
            if not place.isdigit():
                name, place = line, ""
            label, slash, file = name.strip().partition("/")
            if not slash or not label or not file:
                raise UserError(f"{path} line {number}: {line!r} is not <class>/<file>")
            if index:
                if label.casefold() not in spelling:
                    raise UserError(f"{path} line {number}: the class {label!r} is not in "
                                    f"{index_path}")
                label = spelling[label.casefold()]
                if place and int(place) != index[label]:
                    raise UserError(f"{path} line {number}: {label} has the number {place}, but "
                                    f"{index[label]} in {index_path}")
            videos.append(Listed(name.strip(), split, label,
                                 stem=without_suffix(os.path.basename(file))))
    notes = []
    official_order = sorted(index, key=index.__getitem__)
    for number, (ours, theirs) in enumerate(zip(sorted(index), official_order, strict=True)):
        if ours != theirs:
            notes.append(f"label ids follow the sorted class names, not classInd.txt: id {number} "
                         f"is {ours}, which has the number {index[ours]} there, counted from 1")
            break
    return Listing(videos, ("train", "test"), official=UCF101_COUNTS[fold], notes=notes)


def read_kinetics(source: str | os.PathLike, path_format: str | None = None,
                  whole_videos: bool = False) -> Listing:
    """Reads the CSV lists of Kinetics-400, 600 and 700, by the names of their columns.

    Args:
      source: one CSV file, or the folder of several.
      path_format: where a clip lies, with the fields {label}, {label_} (with underscores for
        spaces), {youtube_id}, {start}, {end} and {split}; without a suffix any is taken. None
        finds `{youtube_id}_{start:06d}_{end:06d}` in any folder.
      whole_videos: the files are whole videos, of which a clip is the part from start to end.

    Returns:
      The videos. Those of a list without the column `label` have none.

    Raises:
      UserError: if there is no such list, or one is malformed.
    """
    source = pathlib.Path(source)
    files = [source] if source.is_file() else sorted(
        path for path in list_folder(source).glob("*.csv") if not path.name.startswith("."))
    videos, notes = [], []
    for path in files:
        rows = _kinetics_rows(path)
        if rows is None:
            notes.append(f"{path.name} has no columns youtube_id, time_start and time_end; it is "
                         "not read")
            continue
        for where, row in rows:
            videos.append(_kinetics_video(where, row, path_format, whole_videos))
    if not videos:
        raise UserError(f"--splits={source} holds no list of Kinetics; give a CSV with the columns "
                        "label, youtube_id, time_start, time_end and split, or a folder of such")
    return Listing(videos, ordered_splits(videos), notes=notes)


def _kinetics_rows(path: pathlib.Path) -> list[tuple[str, dict[str, str]]] | None:
    lines = dict(read_lines(path))
    reader = csv.reader(lines.values())
    try:
        first, *others = [*reader] or [[]]
    except csv.Error as error:
        number = list(lines)[reader.line_num - 1]
        raise UserError(f"{path} line {number}: {error}; close the quotes around the values that "
                        "hold commas or quotes") from error
    header = [_KINETICS_COLUMNS.get(name.strip().lower()) for name in first]
    if not {"id", "start", "end"} <= set(header):
        return None
    rows = []
    for number, values in zip(list(lines)[1:], others, strict=False):
        where = f"{path} line {number}"
        if len(values) != len(header):
            raise UserError(f"{where}: {len(values)} values for {len(header)} columns")
        row = {key: value.strip() for key, value in zip(header, values, strict=True) if key}
        row["split"] = split_name(row.get("split") or path.stem)
        rows.append((where, row))
    return rows


def _kinetics_video(where: str, row: dict[str, str], path_format: str | None,
                    whole_videos: bool) -> Listed:
    try:
        start, end = float(row["start"]), float(row["end"])
        whole = {"start": round(start), "end": round(end)}
    except (ValueError, OverflowError) as error:
        raise UserError(f"{where}: {row['start']!r} to {row['end']!r} are not seconds") from error
    label = row.get("label") or None
    stem = row["id"] if whole_videos else f"{row['id']}_{whole['start']:06d}_{whole['end']:06d}"
    path = stem
    if path_format is not None:
        fields = {"label": label or "", "label_": (label or "").replace(" ", "_"),
                  "youtube_id": row["id"], "split": row["split"], **whole}
        try:
            path = path_format.format_map(fields).lstrip("/")
        except (LookupError, ValueError, AttributeError, TypeError, OverflowError) as error:
            raise UserError(f"--path_format={path_format} is not a format of {', '.join(fields)} "
                            f"({error}); give one such as {{label}}/{{youtube_id}}_{{start:06d}}_"
                            "{end:06d}.mp4") from error
    return Listed(path, row["split"], label, start if whole_videos else None,
                  end if whole_videos else None, None if path_format else stem,
                  case_matters=True)


def read_lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """The lines of a list that are not empty, without their ends, and their numbers from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
    # Not splitlines, which takes more than line ends for one.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.strip()


def list_folder(folder: str | os.PathLike) -> pathlib.Path:
    """`folder`, if it is one."""
    if not os.path.isdir(folder):
        raise UserError(f"--splits={folder} is not a folder; name the one that the lists are in")
    return pathlib.Path(folder)


def shown_folder(folder: str | os.PathLike) -> str:
    """What a folder holds instead of what was looked for, for error messages."""
    names = sorted(os.listdir(folder))
    return f"(it holds {', '.join(names[:3]) or 'nothing'}{', ...' if names[3:] else ''})"


def split_name(text: str) -> str:
    """The split that a name speaks of: "train", "val", "test", or the name itself."""
    for word in re.split(r"[^a-z]+", text.lower()):
        if word in _SPLIT_WORDS:
            return _SPLIT_WORDS[word]
    return re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_") or "all"


def ordered_splits(videos: Sequence[Listed]) -> list[str]:
    """The splits that occur: train, val, test, then others by name."""
    usual = ("train", "val", "test")
    return sorted({video.split for video in videos},
                  key=lambda split: (usual.index(split) if split in usual else 3, split))


def without_suffix(path: str) -> str:
    """`path` without the suffix of a video; other dots belong to the name."""
    stem, suffix = os.path.splitext(path)
    return stem if suffix.lower() in media.VIDEO_SUFFIXES else path
