"""Finds listed videos in a folder, whatever became of the names on the way.

Files are unpacked into other folders, transcoded to another suffix, and renamed in case or in
Unicode's composition by file systems. All that is followed where only one video can be meant, and
reported.
"""

import os
import unicodedata
from collections.abc import Sequence

from elo_tf.data import manifest
from elo_tf.data.splits.official_lists import Listed, without_suffix

SUFFIX = "with another suffix"
SPELLING = "with another case or Unicode form"
FOLDER = "in another folder"


class VideoFolder:
    """The video files below a folder, listed once, by path and by name."""

    def __init__(self, root: str | os.PathLike):
        """Lists the files below `root`; opens none of them."""
        self.root = os.path.abspath(root)
        self.count = 0
        self._by_path: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for path in manifest.walk_files(self.root):
            name = os.path.basename(path)
            if name.startswith(".") or name == without_suffix(name):
                continue
            self.count += 1
            self._by_path.setdefault(_folded(without_suffix(path)), []).append(path)
            self._by_stem.setdefault(_folded(without_suffix(name)), []).append(path)

    def first(self) -> list[str]:
        """The first few files, for error messages."""
        return sorted(min(paths) for paths in self._by_path.values())[:3]

    def find(self, video: Listed) -> tuple[str | None, str]:
        """Finds one video.

        Args:
          video: what the list says.

        Returns:
          Its path below the folder (absolute if the list has an absolute path outside), or None;
          and how the file differs from the list: "" or one of the constants above.
        """
        path = os.path.normpath(video.path)
        if os.path.isabs(path):
            below = os.path.relpath(path, self.root)
            if below.startswith(os.pardir):
                return (path, "") if os.path.isfile(path) else (None, "")
            path = below
        elif path.startswith(os.pardir):
            return (path, "") if os.path.isfile(os.path.join(self.root, path)) else (None, "")
        bare = without_suffix(path)
        near = self._by_path.get(_folded(bare), ())
        if path in near:
            return path, ""
        same = [x for x in near if without_suffix(x) == bare]
        if same:
            return _best(same, video), "" if bare == path else SUFFIX
        if near and not video.case_matters:
            return _best(near, video), SPELLING
        if video.stem is None:
            return None, ""
        near = self._by_stem.get(_folded(video.stem), ())
        same = [x for x in near if without_suffix(os.path.basename(x)) == video.stem]
        if same:
            # Without a folder in the list any will do.
            return _best(same, video), FOLDER if "/" in video.path else ""
        if near and not video.case_matters:
            return _best(near, video), FOLDER
        return None, ""


def _best(paths: Sequence[str], video: Listed) -> str:
    """Of files of one name, the one below the class or the split; of these the first."""
    wanted = {x for x in (video.label, (video.label or "").replace(" ", "_"), video.split) if x}
    return min(paths, key=lambda path: (-len(wanted.intersection(path.split("/")[:-1])), path))


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()
