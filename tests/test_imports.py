"""Every library imports, without an error that is only logged; and what the user sees of it."""

import logging
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from elo_tf import quiet

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Where the name of the package is not that of its module.
MODULES = {
    "absl-py": "absl", "gin-config": "gin", "opencv-python-headless": "cv2", "pillow": "PIL.Image",
    "protobuf": "google.protobuf", "scikit-image": "skimage", "scikit-learn": "sklearn",
    "setuptools": "pkg_resources",
    "tensorflow-io": "tensorflow_io", "tensorflow-serving-api": "tensorflow_serving.apis",
    "tf-models-official": "official.vision.ops.preprocess_ops_3d",
}
LOOKS_LIKE_AN_ERROR = re.compile(
    r"(Import|ModuleNotFound|Attribute|Type|Name|Runtime)Error|Traceback|cannot import|"
    r"undefined symbol|unable to open file|numpy\.core\.multiarray failed", re.IGNORECASE)


def packages() -> list[str]:
    lines = (ROOT / "requirements.in").read_text().splitlines()
    return [re.match(r"[A-Za-z0-9_.-]+", line)[0] for line in lines
            if line.strip() and not line.lstrip().startswith(("#", "-"))]


def run(program: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          timeout=200, check=False)


def test_every_direct_dependency_imports_without_a_logged_error():
    names = packages()
    assert {"tensorflow", "tensorflow-addons", "cma", "keras-cv", "pyarrow"} <= set(names)
    modules = [MODULES.get(x, x.replace("-", "_")) for x in names if x != "ruff"]
    modules += [x for x in ("tensorflow_datasets", "pyarrow") if x not in modules]
    # Not through elo_tf: nothing is to be filtered here.
    done = run("import importlib\n"
               f"for name in {modules}:\n    importlib.import_module(name)\n"
               "import tensorflow_datasets as tfds, pyarrow as pa\n"
               "assert tfds.core.DatasetBuilder and tfds.features.Video\n"
               "assert pa.array([1, 2]).to_pylist() == [1, 2]\n")
    assert done.returncode == 0, done.stderr[-3000:]
    bad = [x for x in (done.stdout + done.stderr).splitlines() if LOOKS_LIKE_AN_ERROR.search(x)]
    assert not bad, bad


def test_starting_is_quiet():
    done = run("import elo_tf, tensorflow, keras_cv, tensorflow_addons, tensorflow_io\n"
               "from elo_tf import model_garden\n"
               "model_garden.clip_ops(), model_garden.distribution(), model_garden.schedules()")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_lines_that_are_not_known_pass_the_filter(tmp_path):
    (tmp_path / "noisy_module.py").write_text(
        "import os, sys, warnings\n"
        "print('to stdout')\n"
        "os.write(2, b'Unable to register cuDNN factory: twice\\n')\n"
        "os.write(2, b'E0000 the GPU is on fire\\n')\n"
        "sys.stderr.write('ImportError: half of it\\n')\n"
        "warnings.warn('TensorFlow Addons (TFA) has ended development')\n"
        "warnings.warn('this one matters')\n")
    done = run("import sys\n"
               f"sys.path.insert(0, {str(tmp_path)!r})\n"
               "from elo_tf import quiet\n"
               "quiet.NOISY_IMPORTS = (*quiet.NOISY_IMPORTS, 'noisy_module')\n"
               "import noisy_module\n")
    assert done.returncode == 0
    assert done.stdout == "to stdout\n"
    assert "the GPU is on fire" in done.stderr and "ImportError: half of it" in done.stderr
    assert "this one matters" in done.stderr
    assert "cuDNN" not in done.stderr and "Addons" not in done.stderr


def test_what_an_import_that_fails_prints_is_shown(tmp_path):
    (tmp_path / "broken_module.py").write_text(
        "import os\nos.write(2, b'the reason\\n')\nraise ImportError('no such thing')\n")
    done = run("import sys\n"
               f"sys.path.insert(0, {str(tmp_path)!r})\n"
               "from elo_tf import quiet\n"
               "quiet.NOISY_IMPORTS = (*quiet.NOISY_IMPORTS, 'broken_module')\n"
               "import broken_module\n")
    assert done.returncode == 1
    assert "the reason" in done.stderr and "no such thing" in done.stderr


@pytest.mark.parametrize("line", [
    "E external/local_xla: Unable to initialise the driver",
    "W tensorflow: All-reduce fell back to one device", "Could not find libfoo.so.1",
    "Unable to register gradient", "Using TensorFlow backend with care"])
def test_real_warnings_are_not_among_the_harmless(line):
    assert not quiet.HARMLESS_LINES.search(line)


def test_the_log_shows_our_notes_and_everybodys_warnings():
    wanted = quiet._OwnNotesOnly().filter

    def record(path, level, text="x"):
        return logging.LogRecord("absl", level, path, 1, text, (), None)

    ours = f"{quiet.ROOT}/tools/make_videos.py"
    theirs = f"{quiet.ROOT}/.venv/lib/python3.11/site-packages/official/x.py"
    assert wanted(record(ours, logging.INFO)) and not wanted(record(theirs, logging.INFO))
    assert wanted(record(ours, logging.WARNING)) and wanted(record(theirs, logging.WARNING))
    assert wanted(record(theirs, logging.ERROR))


def test_ctrl_c_amid_an_import_waits_for_its_end():
    done = run("import signal, threading, os, sys, elo_tf\n"
               "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
               "try:\n    import tensorflow\n"
               "except KeyboardInterrupt:\n"  # The last that it imports of itself.
               "    print('interrupted', 'tensorflow._api.v2.xla' in sys.modules)\n"
               "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n")
    assert (done.returncode, done.stdout) == (0, "interrupted True\nTrue\n"), done.stderr


def test_ctrl_c_amid_an_import_still_ends_a_process_that_has_no_handler():
    done = run("import signal, threading, os, elo_tf\n"
               "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
               "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
               "import tensorflow\nprint('went on')\n")
    assert (done.returncode, done.stdout) == (-signal.SIGINT, ""), done.stderr
