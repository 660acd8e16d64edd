"""Keeps known harmless start-up noise from the user, and nothing else.

Importing TensorFlow prints lines that every user asks about and none needs: the CUDA factories
registered twice, TensorRT not found, the end of life of TensorFlow Addons. Each is listed below;
any other line printed during the import is passed on as it is.
"""

import importlib.abc
import importlib.machinery
import os
import re
import sys
import tempfile
import warnings

HARMLESS_LINES = re.compile(
    "|".join(
        (
            r"Unable to register cu(DNN|FFT|BLAS) factory",
            r"This TensorFlow binary is optimized to use available CPU instructions",
            r"To enable the following instructions: .* rebuild TensorFlow",
            r"Could not find (cuda drivers|TensorRT)",
            r"TF-TRT Warning: Could not find TensorRT",
            r"oneDNN custom operations are on",
            r"All log messages before absl::InitializeLog\(\) is called",
        )
    )
)


class _QuietLoader(importlib.abc.Loader):
    """Runs a module's own loader while its standard error is filtered."""

    def __init__(self, loader: importlib.abc.Loader):
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        # The lines come from C++: only the file descriptor itself can be filtered.
        sys.stderr.flush()
        saved = os.dup(2)
        with tempfile.TemporaryFile() as capture:
            os.dup2(capture.fileno(), 2)
            try:
                self._loader.exec_module(module)
            finally:
                sys.stderr.flush()
                os.dup2(saved, 2)
                os.close(saved)
                capture.seek(0)
                lines = capture.read().decode(errors="replace").splitlines(keepends=True)
                sys.stderr.write("".join(x for x in lines if not HARMLESS_LINES.search(x)))


class _QuietTensorFlow(importlib.abc.MetaPathFinder):
    """Finds `tensorflow` once, as Python would, and wraps its loader."""

    def find_spec(self, fullname, path, target=None):
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


def install() -> None:
    """Filters what the first import of TensorFlow, and TensorFlow Addons, print."""
    # Level 1 hides INFO lines of the C++ side; warnings and errors are shown.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    warnings.filterwarnings("ignore", message=r"[\s\S]*TensorFlow Addons \(TFA\) has ended")
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _QuietTensorFlow())
