"""Files that appear only when they are whole."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary name beside `path`; on success what was written there takes its place.

    The data is flushed to the disk before the rename, and the folder after it, so that a crash
    leaves either the old file or the new one. On an exception the temporary file is removed and
    `path` is untouched.

    Args:
      path: the file's final name; missing parent folders are made.

    Yields:
      The temporary path to write to. It keeps the suffix of `path`, since writers look at it.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        # What broke before, such as a folder that cannot be written, is the error to show.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def flush(path: str | os.PathLike) -> None:
    """Makes a file's content, or the renames in a folder, last through a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Some network file systems cannot, and need not.
            raise
    finally:
        os.close(descriptor)


def write_atomic(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes `content` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        if isinstance(content, bytes):
            temporary.write_bytes(content)
        else:
            temporary.write_text(content, encoding="utf-8")
