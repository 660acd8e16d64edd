"""Which videos or images to convert, and their labels: from a folder or from a CSV file.

A folder is searched to its depth, in sorted order. A CSV has DMVR's header
`video_path,start,end,label,caption`, of which only `video_path` is needed; paths are relative to
the CSV's folder or to another that is named, times are seconds. The label map is that of a file
where one is given and sorted otherwise; it is saved beside the shards and shared by all splits of
a data set, so that label 3 is the same class in each of them.
"""

import collections
import csv
import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator

from elo_tf import files
from elo_tf.data import media, schema
from elo_tf.data.images import IMAGE_SUFFIXES
from elo_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Entry:
    """One video, one part of it, or one image.

    Attributes:
      id: unique and stable: the path below the root, and `:start-end` for a part. The root is the
        input folder, or the folder that the paths of a CSV are relative to.
      path: the file.
      relative: the path below the root, with slashes; as given in the CSV if it lies elsewhere.
      start: first second used, or None.
      end: second before which to stop, or None.
      label: name of the class, or None.
      caption: what is said about it, or None.
    """

    id: str
    path: str
    relative: str
    start: float | None = None
    end: float | None = None
    label: str | None = None
    caption: str | None = None


@dataclasses.dataclass
class Manifest:
    """The videos of one split.

    Attributes:
      entries: the videos or images, sorted by id.
      ignored: number of files beside them that are none, by suffix.
      label_file: the label map beside the CSV, or None without one.
    """

    entries: list[Entry]
    ignored: collections.Counter
    label_file: pathlib.Path | None = None

    @property
    def labels(self) -> list[str]:
        """The labels that occur, sorted."""
        return sorted({entry.label for entry in self.entries if entry.label is not None})


def read_manifest(source: str | os.PathLike, labels: str = "none", *, images: bool = False,
                  video_root: str | os.PathLike | None = None) -> Manifest:
    """Lists the videos or images of a folder or of a CSV file; opens none of them.

    Args:
      source: the folder or the CSV file.
      labels: "folders" takes the name of the folder a video lies in as its label; "none" does
        not. A CSV brings its own labels.
      images: lists images instead of videos.
      video_root: the folder that the paths of a CSV are relative to; by default the CSV's own.

    Returns:
      The videos, at least one.

    Raises:
      UserError: if there is nothing there, or the CSV is malformed.
    """
    source = pathlib.Path(source)
    if source.is_dir():
        if video_root is not None:
            raise UserError(f"--video_root={video_root} is for CSV files, but --input={source} is "
                            "a folder, which its paths are relative to; leave it out")
        return _read_folder(source, labels, images)
    if not source.exists():
        raise UserError(f"--input={source} does not exist; name a folder of videos or a CSV file")
    if source.suffix.lower() != ".csv":
        raise UserError(f"--input={source} is neither a folder nor a .csv file; name the folder "
                        "that the video is in")
    if labels == "folders":
        raise UserError(f"--labels=folders is for folders; {source} brings its labels in the "
                        "column `label`")
    if video_root is not None and not os.path.isdir(video_root):
        raise UserError(f"--video_root={video_root} is not a folder; name the one that the paths "
                        f"of {source} are relative to")
    return _read_csv(source, os.fspath(source.parent if video_root is None else video_root),
                     images)


def _read_folder(root: pathlib.Path, labels: str, images: bool) -> Manifest:
    suffixes = IMAGE_SUFFIXES if images else media.VIDEO_SUFFIXES
    entries = []
    ignored: collections.Counter[str] = collections.Counter()
    for relative in walk_files(os.fspath(root), broken=True):
        folder, _, name = relative.rpartition("/")
        suffix = os.path.splitext(name)[1].lower()
        if suffix not in suffixes or name.startswith("."):
            ignored[suffix or "no suffix"] += 1
            continue
        label = folder.rpartition("/")[2] or None if labels == "folders" else None
        entries.append(Entry(id=relative, path=os.path.join(root, relative), relative=relative,
                             label=label))
    if not entries:
        what, some = (("image files", ".jpg, .png or .webp") if images else
                      ("video files", ".mp4, .avi, .mkv or .webm"))
        found = ", ".join(f"{count} {suffix}" for suffix, count in ignored.most_common(5))
        raise UserError(f"{root} holds no {what}" + (f" (found {found})" if found else "")
                        + f"; name a folder with files such as {some}")
    if labels == "folders" and all(entry.label is None for entry in entries):
        raise UserError(f"--labels=folders, but all files lie in {root} itself; put each class "
                        "into a sub-folder of its own")
    return Manifest(sorted(entries, key=lambda entry: entry.id), ignored)


def walk_files(root: str, *, broken: bool = False) -> Iterator[str]:
    """Paths of the regular files below `root`, through links but into no folder twice.

    The listing of a folder says what is a file, so that large sets cost no call a file. Hidden
    folders are left out.

    Args:
      root: the folder.
      broken: also what is neither a file nor a folder, such as links that lead nowhere, so that
        it is reported when it is opened.

    Yields:
      Paths below `root`, with slashes.

    Raises:
      UserError: if a folder cannot be read.
    """
    seen = set()
    waiting = [""]
    while waiting:
        below = waiting.pop()
        folder = os.path.join(root, below)
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as listing:
                found = sorted(listing, key=lambda item: item.name)
        except OSError as error:
            raise UserError(f"the folder {folder} cannot be read ({error.strerror}); make it "
                            f"readable (chmod u+rx), or move it out of {root}") from error
        folders = []
        for item in found:
            if _is(item, os.DirEntry.is_file):
                yield below + item.name
            elif _is(item, os.DirEntry.is_dir):
                if not item.name.startswith("."):
                    folders.append(f"{below}{item.name}/")
            elif broken:
                yield below + item.name
        # The first by name is taken next: of two ways to a folder it is always the same that wins.
        waiting += reversed(folders)


def _is(item: os.DirEntry, kind: Callable[[os.DirEntry], bool]) -> bool:
    try:
        return kind(item)
    except OSError:  # A link that leads to itself.
        return False


def _read_csv(source: pathlib.Path, root: str, images: bool) -> Manifest:
    entries = []
    lines: dict[str, int] = {}
    try:
        with open(source, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            if "video_path" not in columns:
                raise UserError(f"{source} line 1: no column video_path (found: "
                                f"{', '.join(columns) or 'nothing'}); the header is "
                                "video_path,start,end,label,caption, of which only video_path is "
                                "needed")
            for row in reader:
                entry = _csv_entry(f"{source} line {reader.line_num}", root, row)
                if images and entry.id != entry.relative:
                    raise UserError(f"{source} line {reader.line_num}: an image has no start and "
                                    "end; leave them empty, or convert videos")
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
    beside = source.parent / schema.LABELS_FILE
    return Manifest(sorted(entries, key=lambda entry: entry.id), collections.Counter(),
                    beside if beside.exists() else None)


def _csv_entry(where: str, root: str, row: dict[str | None, str | None]) -> Entry:
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
    path = os.path.normpath(os.path.join(root, name))
    relative = os.path.normpath(name)
    if relative.startswith((os.pardir, os.sep)):  # Rare, and slow to resolve.
        relative = os.path.relpath(path, root)
        if os.path.isabs(name) and relative.startswith(os.pardir):
            relative = path
    relative = relative.replace(os.sep, "/")
    part = ""
    if start is not None or end is not None:
        part = f":{decimal(start or 0.0)}-" + ("" if end is None else decimal(end))
    return Entry(id=relative + part, path=path, relative=relative, start=start, end=end,
                 label=label, caption=(row.get("caption") or "").strip() or None)


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


def decimal(seconds: float) -> str:
    """Seconds as they stand in ids, to the microsecond: 2.5, 10."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def read_labels(path: str | os.PathLike) -> list[str] | None:
    """A label map: the name of label i at place i.

    Args:
      path: the file, or the folder of records whose label map it is.

    Returns:
      The names; None for a folder without a label map.

    Raises:
      UserError: if the file is missing, is empty, or repeats a name.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        path = path / schema.LABELS_FILE
        if not path.exists():
            return None
    if not path.is_file():
        raise UserError(f"the label map {path} does not exist; it lists one name a line")
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    labels = text.splitlines()
    if not labels or len(set(labels)) < len(labels) or not all(labels):
        raise UserError(f"{path} holds an empty or a repeated line, or none; it lists each label "
                        "once, one a line")
    return labels


def label_map(directory: str | os.PathLike, labels: Iterable[str],
              given: str | os.PathLike | None = None) -> dict[str, int]:
    """The index of each label.

    The label map of the folder rules, which the other splits use. In a new folder it is the one
    that is given, and without one the labels in sorted order. A split without labels has none.

    Args:
      directory: the folder of the records.
      labels: the labels that occur in a split.
      given: file with the names in order, such as `Manifest.label_file`.

    Returns:
      Indices by label; of all labels of the map, if any occurs.

    Raises:
      UserError: if the map lacks one of the labels, or is not the one that is given.
    """
    labels = sorted(set(labels))
    broken = [label for label in labels if len(label.splitlines()) > 1]
    if broken:
        raise UserError(f"the label {broken[0]!r} holds a line end; rename it")
    wanted = None if given is None else read_labels(given)
    if not labels:
        return {}
    own = pathlib.Path(directory)
    known = read_labels(own) if own.is_dir() else None
    where = own / schema.LABELS_FILE if known else given
    if known and wanted and where is not None and given is not None:
        check_same_labels(where, known, given, wanted)
    names = known or wanted or labels
    unknown = sorted(set(labels).difference(names))
    if unknown:
        shown = ", ".join(repr(label) for label in unknown[:5])
        raise UserError(
            f"{len(unknown)} of the split's {len(labels)} labels are not in the label map {where}: "
            f"{shown}{', ...' if unknown[5:] else ''}; mend them, or give a label map that has "
            "them (all splits of a folder share one)")
    return {label: index for index, label in enumerate(names)}


def check_same_labels(path: str | os.PathLike, names: list[str], other_path: str | os.PathLike,
                      others: list[str]) -> None:
    """Raises `UserError` with the first difference unless both label maps are the same."""
    for index, (name, other) in enumerate(itertools.zip_longest(names, others)):
        if name != other:
            raise UserError(
                f"the label maps {path} ({len(names)} labels) and {other_path} ({len(others)}) "
                f"differ: label {index} is {_shown(name)} in the first and {_shown(other)} in the "
                "second; use one of them for all splits, or a new folder")


def _shown(label: str | None) -> str:
    return "missing" if label is None else repr(label)


def write_labels(directory: str | os.PathLike, labels: dict[str, int]) -> None:
    """Saves a label map, unless the folder has one."""
    path = pathlib.Path(directory) / schema.LABELS_FILE
    if labels and not path.exists():
        text = "".join(f"{label}\n" for label in sorted(labels, key=labels.__getitem__))
        files.write_atomic(path, text.encode("utf-8", "surrogateescape"))
