"""Checkpoints as folders that are there whole or not at all; what is wrong with those that are not.

    step-00000500/
        variables.index, variables.data-00000-of-00001      written by TensorFlow
        complete.json                                       the manifest, written last

A checkpoint is written under another name, flushed to the disk and renamed. What a kill leaves is
told by its name:

    .saving-step-00000500-<pid>      not whole; removed by the next run
    .replaced-step-00000500          the former one of this step; put back if the new one is missing
    .removed-step-00000500           pruned, but not yet deleted
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence

from absl import logging

from elo_tf import files

MANIFEST = "complete.json"
_STEP_FOLDER = re.compile(r"step-(\d{8,})")


class UnusableError(Exception):
    """A checkpoint that cannot be restored; the message says what did not match."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What complete.json says: nothing in it differs between two saves of the same values.

    Attributes:
      step: that it was saved at.
      score: lower is better; None if none was measured.
      commit: of the code that wrote it.
      config: hash of the configuration; "" if none was given.
      parts: names of the parts, such as "encoders/rgb".
      variables: dtype and shape, such as "float32[3, 64]", by TensorFlow's key.
      files: `size` in bytes and `sha256`, by file name.
    """

    step: int
    score: float | None
    commit: str
    config: str
    parts: Sequence[str]
    variables: Mapping[str, str]
    files: Mapping[str, Mapping[str, int | str]]


def step_folder(folder: pathlib.Path, step: int) -> pathlib.Path:
    """Where the checkpoint of a step is."""
    return folder / f"step-{step:08d}"


def find_steps(folder: pathlib.Path) -> list[int]:
    """Steps of the checkpoints in `folder`, oldest first, usable or not."""
    if not folder.is_dir():
        return []
    matches = (_STEP_FOLDER.fullmatch(x.name) for x in folder.iterdir() if x.is_dir())
    return sorted(int(match[1]) for match in matches if match)


@contextlib.contextmanager
def new_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary folder; on success it takes the place of `path`.

    Its files must have been flushed (`write_manifest` does). On an exception it is removed, and
    what was at `path` is untouched.

    Args:
      path: the folder's final name; missing parents are made.

    Yields:
      The temporary folder, empty.
    """
    temporary = path.with_name(f".saving-{path.name}-{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        replaced = path.with_name(f".replaced-{path.name}")
        if path.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            path.rename(replaced)
        temporary.rename(path)
        files.flush(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        # Also where the new one's rename failed after the old one's.
        _put_back(path.parent)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def remove(path: pathlib.Path) -> None:
    """Deletes a checkpoint so that a kill leaves none that is half deleted."""
    removed = path.with_name(f".removed-{path.name}")
    try:
        shutil.rmtree(removed, ignore_errors=True)
        path.rename(removed)
        shutil.rmtree(removed)
    except OSError as error:
        logging.warning("cannot delete the old checkpoint %s: %s", path, error.strerror)


def clear_leftovers(folder: pathlib.Path) -> None:
    """Removes what killed runs left in `folder`, and says so."""
    _put_back(folder)
    for path in sorted(folder.glob(".*-step-*")):
        if path.name.startswith(".saving-"):
            logging.warning("removing %s: a run was killed while it saved", path)
        shutil.rmtree(path, ignore_errors=True)


def _put_back(folder: pathlib.Path) -> None:
    for replaced in folder.glob(".replaced-step-*"):
        path = folder / replaced.name.removeprefix(".replaced-")
        if not path.exists():
            logging.warning("putting %s back: what should have replaced it is not there", path)
            replaced.rename(path)


def write_manifest(folder: pathlib.Path, *, step: int, score: float | None, commit: str,
                   config: str, parts: Sequence[str], variables: Mapping[str, str]) -> None:
    """Hashes and flushes the files of a checkpoint, then says that it is whole.

    For the arguments see `Manifest`.
    """
    paths = sorted(x for x in folder.iterdir() if x.is_file())
    with concurrent.futures.ThreadPoolExecutor() as pool:
        flushed = pool.map(files.flush, paths)  # while they are hashed
        digests = list(pool.map(_sha256, paths))
        list(flushed)
    manifest = Manifest(
        step, score, commit, config, sorted(parts), dict(sorted(variables.items())),
        {path.name: {"size": path.stat().st_size, "sha256": digest}
         for path, digest in zip(paths, digests, strict=True)})
    path = folder / MANIFEST
    path.write_text(json.dumps(dataclasses.asdict(manifest), indent=1) + "\n", encoding="utf-8")
    files.flush(path)
    files.flush(folder)


def read_manifest(folder: pathlib.Path) -> Manifest:
    """Reads complete.json and compares the files' sizes with it.

    Raises:
      UnusableError: if it, or a file that it names, is missing or not as it should be.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest = Manifest(**content)
        sizes = {name: int(entry["size"]) for name, entry in manifest.files.items()}
    except FileNotFoundError:
        raise UnusableError(f"{MANIFEST} is missing, so it was not written to its end") from None
    except OSError as error:
        raise UnusableError(f"{MANIFEST} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnusableError(f"{MANIFEST} is damaged: {error}") from error
    named = _STEP_FOLDER.fullmatch(folder.name)
    if named and int(named[1]) != manifest.step:
        raise UnusableError(f"{MANIFEST} is of step {manifest.step}")
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            raise UnusableError(f"{name} is missing")
        if path.stat().st_size != size:
            raise UnusableError(f"{name} has {path.stat().st_size:,} bytes, not {size:,}")
    return manifest


def verify_hashes(folder: pathlib.Path, manifest: Manifest) -> None:
    """Reads all files.

    Raises:
      UnusableError: naming the first whose content is not what was written.
    """
    for name, entry in manifest.files.items():
        try:
            digest = _sha256(folder / name)
        except OSError as error:
            raise UnusableError(f"{name} cannot be read: {error.strerror}") from error
        if digest != entry["sha256"]:
            raise UnusableError(f"{name} is damaged: its SHA-256 begins with {digest[:12]}, "
                                f"not {str(entry['sha256'])[:12]}")


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
