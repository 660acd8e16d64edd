"""Which videos to convert, and their labels: from a folder or from a CSV file.

A folder is searched to its depth, in sorted order. A CSV has DMVR's header
`video_path,start,end,label`, of which only `video_path` is needed; paths are relative to the CSV's
folder, times are seconds. The label map is sorted, saved beside the shards, and shared by all
splits of a data set, so that label 3 is the same class in each of them.
"""

import collections
import csv
import dataclasses
import math
import os
import pathlib
from collections.abc import Iterable, Iterator

from elo_tf import files
from elo_tf.data import media, schema
from elo_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Entry:
    """One video, or one part of it.

    Attributes:
      id: unique and stable: the path below the input, and `:start-end` for a part.
      path: the file.
      relative: the path below the input, with slashes; as given in the CSV if it lies elsewhere.
      start: first second used, or None.
      end: second before which to stop, or None.
      label: name of the class, or None.
    """

    id: str
    path: str
    relative: str
    start: float | None = None
    end: float | None = None
    label: str | None = None


@dataclasses.dataclass
class Manifest:
    """The videos of one split, and the files beside them that are no videos, by suffix."""

    entries: list[Entry]
    ignored: collections.Counter

    @property
    def labels(self) -> list[str]:
        """The labels that occur, sorted."""
        return sorted({entry.label for entry in self.entries if entry.label is not None})


def read_manifest(source: str | os.PathLike, labels: str = "none") -> Manifest:
    """Lists the videos of a folder or of a CSV file.

    Args:
      source: the folder or the CSV file.
      labels: "folders" takes the name of the folder a video lies in as its label; "none" does
        not. A CSV brings its own labels.

    Returns:
      The videos, at least one.

    Raises:
      UserError: if there is nothing there, or the CSV is malformed.
    """
    source = pathlib.Path(source)
    if source.is_dir():
        return _read_folder(source, labels)
    if not source.exists():
        raise UserError(f"--input={source} does not exist; name a folder of videos or a CSV file")
    if source.suffix.lower() != ".csv":
        raise UserError(f"--input={source} is neither a folder nor a .csv file; name the folder "
                        "that the video is in")
    if labels == "folders":
        raise UserError(f"--labels=folders is for folders; {source} brings its labels in the "
                        "column `label`")
    return _read_csv(source)


def _read_folder(root: pathlib.Path, labels: str) -> Manifest:
    entries = []
    ignored = collections.Counter()
    for path in _walk(root):
        suffix = os.path.splitext(path)[1].lower()
        if suffix not in media.VIDEO_SUFFIXES or os.path.basename(path).startswith("."):
            ignored[suffix or "no suffix"] += 1
            continue
        relative = pathlib.PurePath(os.path.relpath(path, root)).as_posix()
        parent = pathlib.PurePosixPath(relative).parent.name
        label = parent if labels == "folders" and parent else None
        entries.append(Entry(id=relative, path=path, relative=relative, label=label))
    if not entries:
        found = ", ".join(f"{count} {suffix}" for suffix, count in ignored.most_common(5))
        raise UserError(f"{root} holds no video files" + (f" (found {found})" if found else "")
                        + "; name a folder with files such as .mp4, .avi, .mkv or .webm")
    if labels == "folders" and all(entry.label is None for entry in entries):
        raise UserError(f"--labels=folders, but all videos lie in {root} itself; put each class "
                        "into a sub-folder of its own")
    return Manifest(sorted(entries, key=lambda entry: entry.id), ignored)


def _walk(root: pathlib.Path) -> Iterator[str]:
    """Regular files below `root`, through links but into no folder twice; no hidden folders."""
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                yield path


def _read_csv(source: pathlib.Path) -> Manifest:
    entries = []
    lines: dict[str, int] = {}
    try:
        with open(source, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            if "video_path" not in columns:
                raise UserError(f"{source} line 1: no column video_path (found: "
                                f"{', '.join(columns) or 'nothing'}); the header is "
                                "video_path,start,end,label, of which only video_path is needed")
            for row in reader:
                entry = _csv_entry(source, reader.line_num, row)
                if entry.id in lines:
                    raise UserError(f"{source} line {reader.line_num}: repeats {entry.id} of line "
                                    f"{lines[entry.id]}; leave one of them out")
                lines[entry.id] = reader.line_num
                entries.append(entry)
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is not UTF-8 text ({error}); save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{source} line {reader.line_num + 1}: {error}; quote the values that hold "
                        "commas, quotes or line ends") from error
    if not entries:
        raise UserError(f"{source} lists no videos; add a line for each below the header")
    return Manifest(sorted(entries, key=lambda entry: entry.id), collections.Counter())


def _csv_entry(source: pathlib.Path, line: int, row: dict[str | None, str | None]) -> Entry:
    where = f"{source} line {line}"
    if None in row:
        raise UserError(f"{where}: more values than columns; quote values that hold commas")
    name = (row["video_path"] or "").strip()
    if not name:
        raise UserError(f"{where}: video_path is empty")
    start = _seconds(where, "start", row.get("start"))
    end = _seconds(where, "end", row.get("end"))
    if end is not None and end <= (start or 0.0):
        raise UserError(f"{where}: end {end:g} is not after start {start or 0.0:g}")
    label = (row.get("label") or "").strip() or None
    if label and len(label.splitlines()) > 1:
        raise UserError(f"{where}: the label {label!r} holds a line end")
    path = os.path.normpath(os.path.join(source.parent, name))
    relative = os.path.relpath(path, source.parent)
    if os.path.isabs(name) and relative.startswith(os.pardir):
        relative = path
    relative = pathlib.PurePath(relative).as_posix()
    part = ""
    if start is not None or end is not None:
        part = f":{_decimal(start or 0.0)}-" + ("" if end is None else _decimal(end))
    return Entry(id=relative + part, path=path, relative=relative, start=start, end=end,
                 label=label)


def _seconds(where: str, column: str, text: str | None) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise UserError(f"{where}: {column} is {text!r}; give seconds, such as 2.5, or nothing")
    return value


def _decimal(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def read_labels(directory: str | os.PathLike) -> list[str] | None:
    """The label map of a folder of records: the name of label i at place i; None without one."""
    path = pathlib.Path(directory) / schema.LABELS_FILE
    if not path.exists():
        return None
    labels = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    if len(set(labels)) < len(labels) or not all(labels):
        raise UserError(f"{path} holds an empty or a repeated line; it lists each label once")
    return labels


def label_map(directory: str | os.PathLike, labels: Iterable[str]) -> dict[str, int]:
    """The index of each label: by the folder's label map where there is one, else in sorted order.

    Args:
      directory: the folder of the records.
      labels: the labels that occur in a split.

    Returns:
      Indices by label.

    Raises:
      UserError: if the folder has a label map without one of the labels.
    """
    labels = sorted(set(labels))
    known = read_labels(directory)
    if known is None:
        return {label: index for index, label in enumerate(labels)}
    unknown = [label for label in labels if label not in known]
    if unknown:
        raise UserError(
            f"the label {unknown[0]!r}" + (f" and {len(unknown) - 1} more" if unknown[1:] else "")
            + f" is not in {pathlib.Path(directory) / schema.LABELS_FILE}, which the other splits "
            "use; mend the label, or convert all splits into a new folder")
    return {label: index for index, label in enumerate(known)}


def write_labels(directory: str | os.PathLike, labels: dict[str, int]) -> None:
    """Saves a label map, unless the folder has one."""
    path = pathlib.Path(directory) / schema.LABELS_FILE
    if labels and not path.exists():
        text = "".join(f"{label}\n" for label in sorted(labels, key=labels.get))
        files.write_atomic(path, text.encode("utf-8", "surrogateescape"))
