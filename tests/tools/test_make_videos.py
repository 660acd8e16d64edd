"""The command line of make_videos, run as a user runs it."""

import pathlib
import subprocess
import sys

import pytest

from elo_tf.data import procedural
from elo_tf.errors import UserError
from tools import make_videos

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "tools.make_videos", *arguments], cwd=ROOT,
                          capture_output=True, text=True, timeout=120, check=False)


def test_a_small_set_and_a_second_run(tmp_path):
    arguments = (f"--output={tmp_path}", "--clips=unlabelled:3,train:4,test:2", "--seconds=1",
                 "--size=32", "--fps=8", "--classes=2", "--workers=2")
    first = _run(*arguments)
    assert first.returncode == 0, first.stderr
    assert "9 made now, 0 kept" in first.stderr
    assert len(list(tmp_path.rglob("*.mp4"))) == 9
    second = _run(*arguments)
    assert second.returncode == 0 and "0 made now, 9 kept" in second.stderr
    refused = _run(*(argument.replace("--fps=8", "--fps=10") for argument in arguments))
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ") and "fps was 8.0, is 10.0" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_help_names_the_classes():
    shown = _run("--help").stdout
    for word in ("--output", "--clips", "--workers", "speed_up", "truth.json"):
        assert word in shown.replace("--[no]", "--")


def test_clips_are_one_number_or_a_list():
    assert make_videos.parse_clips("7", None) == {"unlabelled": 7, "train": 7, "test": 7}
    assert make_videos.parse_clips("7", ["test"]) == {"test": 7}
    assert make_videos.parse_clips("test:2, train:5", None) == {"train": 5, "test": 2}
    assert make_videos.parse_clips("test:2,train:5", ["train"]) == {"train": 5}


@pytest.mark.parametrize(("text", "splits", "message"), [
    ("0", None, "'0' is not a number"), ("train:x", None, "'x' is not a number"),
    ("train:-3", None, "'-3' is not"), ("val:3", None, "one number, or each split once"),
    ("train:3,train:4", None, "each split once"), ("", None, "each split once"),
    ("5", ["val"], "--splits names val"), ("train:5", ["test"], "says nothing about test"),
])
def test_bad_clips_are_refused(text, splits, message):
    with pytest.raises(UserError, match=message):
        make_videos.parse_clips(text, splits)


def test_classes_are_a_number_or_names():
    assert make_videos.parse_classes("12") == procedural.DEFAULT_CLASSES
    assert make_videos.parse_classes("bounce, expand") == ("bounce", "expand")
    for text in ("1", "99", "-3"):
        with pytest.raises(UserError, match="--classes is"):
            make_videos.parse_classes(text)
