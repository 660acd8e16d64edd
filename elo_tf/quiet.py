"""Keeps known harmless noise from the user, and nothing else.

Starting TensorFlow prints lines that every user asks about and none needs: the CUDA factories
registered twice, TensorRT not found, the end of life of TensorFlow Addons. Each is listed below;
any other line printed during an import is passed on as it is. Of the log, the libraries' progress
notes are left out, their warnings are not.
"""

import contextlib
import importlib.abc
import importlib.machinery
import logging as python_logging
import os
import pathlib
import re
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from typing import TextIO

from absl import logging

HARMLESS_LINES = re.compile("|".join((
    r"Unable to register cu(DNN|FFT|BLAS) factory",
    r"This TensorFlow binary is optimized to use available CPU instructions",
    r"To enable the following instructions: .* rebuild TensorFlow",
    r"Could not find (cuda drivers|TensorRT)",
    r"TF-TRT Warning: Could not find TensorRT",
    r"oneDNN custom operations are on",
    r"All log messages before absl::InitializeLog\(\) is called",
    r"^Using TensorFlow backend$",
)))
HARMLESS_WARNINGS = (
    r"[\s\S]*TensorFlow Addons \(TFA\) has ended",
    r"pkg_resources is deprecated as an API",
    r"You are using a Python version .* which Google will stop supporting",
)
HARMLESS_RECORDS = re.compile("|".join((
    # Encoders are compiled by the model that trains them, not on their own.
    r"Compiled the loaded model, but the compiled metrics have yet to be built",
)))
NOISY_IMPORTS = ("tensorflow", "keras_core")
# Not resolved: the log knows a file by the name that it was imported by, which may be a link.
ROOT = pathlib.Path(__file__).absolute().parent.parent
OWN_CODE = tuple(str(ROOT / folder) for folder in ("elo_tf", "tools", "benchmarks"))


@contextlib.contextmanager
def _filtered(stream: TextIO, descriptor: int) -> Iterator[None]:
    """Holds back what is written to a standard stream, then writes all but the harmless lines."""
    stream.flush()
    saved = os.dup(descriptor)
    with tempfile.TemporaryFile() as capture:
        # Most lines come from C++: only the file descriptor itself can be filtered.
        os.dup2(capture.fileno(), descriptor)
        try:
            yield
        finally:
            stream.flush()
            os.dup2(saved, descriptor)
            os.close(saved)
            capture.seek(0)
            lines = capture.read().decode(errors="replace").splitlines(keepends=True)
            stream.write("".join(x for x in lines if not HARMLESS_LINES.search(x)))


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits for the end: amid an import, C++ code swallows it or makes it another error."""
    # Only the main thread sets handlers; None is one that Python did not set, and cannot restore.
    if (threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGINT) is None):
        yield
        return
    held = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: held.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held.is_set():
            signal.raise_signal(signal.SIGINT)  # Whatever it means to that handler.


class _QuietLoader(importlib.abc.Loader):
    """Runs a module's own loader while what it prints is filtered."""

    def __init__(self, loader: importlib.abc.Loader):
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        with _interrupts_held(), _filtered(sys.stdout, 1), _filtered(sys.stderr, 2):
            self._loader.exec_module(module)


class _QuietFinder(importlib.abc.MetaPathFinder):
    """Finds the noisy packages as Python would, and wraps their loaders."""

    def find_spec(self, fullname, path, target=None):
        if fullname not in NOISY_IMPORTS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


class _OwnNotesOnly(python_logging.Filter):
    """Keeps warnings, and notes that this project's code made."""

    def filter(self, record):
        if record.levelno >= python_logging.WARNING:
            return not HARMLESS_RECORDS.search(record.getMessage())
        return record.pathname.startswith(OWN_CODE)


def install() -> None:
    """Filters what importing the libraries prints."""
    # Level 1 hides INFO lines of the C++ side; warnings and errors are shown.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    for message in HARMLESS_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    if not any(isinstance(finder, _QuietFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuietFinder())


def configure_logging() -> None:
    """Shows this project's notes and everybody's warnings."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(_OwnNotesOnly())
    python_logging.getLogger("tensorflow").setLevel(python_logging.WARNING)
