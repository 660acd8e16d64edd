import pathlib
import subprocess
import sys

import numpy as np
import pytest

from elo_tf.data import media_write

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def run(*flags):
    return subprocess.run([sys.executable, "-m", "tools.convert_videos", *map(str, flags)],
                          cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    noise = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    for index in range(2):
        media_write.write_video(folder / f"{index}.mp4", noise, 10)
    (folder / "bad.mp4").write_text("text")
    return folder


def test_counts_are_on_the_last_line(videos, tmp_path):
    flags = [f"--input={videos}", f"--output={tmp_path}", "--split=unlabelled", "--fps=10",
             "--min_side=16", "--workers=2", "--shards=3"]
    first = run(*flags)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1] == "unlabelled: 2 converted, 1 rejected"
    assert "rejected as undecodable: 1" in first.stdout
    assert len(list(tmp_path.glob("unlabelled-*-of-00003.tfrecord"))) == 3
    assert "Traceback" not in first.stderr
    again = run(*flags)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert again.stdout.splitlines()[-1] == "unlabelled: 2 converted, 1 rejected"
    other = run(*flags, "--fps=5")
    assert other.returncode == 2
    assert "fps: 10.0 there, 5.0 asked for" in other.stderr
    assert "Traceback" not in other.stderr


def test_errors_are_one_line(videos, tmp_path):
    (tmp_path / "empty").mkdir()
    for flags, words in (
            ((f"--input={tmp_path}/none", f"--output={tmp_path}/o"), "does not exist"),
            ((f"--input={tmp_path}/empty", f"--output={tmp_path}/o"), "no video files"),
            ((f"--input={videos}", f"--output={tmp_path}/o", "--split=a/b"), "--split='a/b'"),
            ((f"--input={videos}", f"--output={tmp_path}/o", "--split=summary"), "summary.json"),
            ((f"--input={videos}", f"--output={tmp_path}/o", "--shards=4"), "only 3 videos"),
            ((f"--input={videos}", f"--output={tmp_path}/o", "--stride_seconds=4"),
             "give --clip_seconds"),
            ((f"--input={videos}", f"--output={videos}/0.mp4/o"), "Not a directory"),
            ((f"--input={videos}", f"--output={videos}/0.mp4"), "is a file")):
        result = run(*flags)
        assert result.returncode == 2
        assert words in result.stderr
        assert result.stderr.startswith("error: ")
        assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "o").exists()
