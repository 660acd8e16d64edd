import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from elo_tf.data.media import write as media_write

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


def test_every_option_reaches_the_conversion(videos, tmp_path):
    (tmp_path / "list.csv").write_text("video_path,label\n0.mp4,walk\n1.mp4,run\n")
    (tmp_path / "map.txt").write_text("walk\njump\nrun\n")
    done = run(f"--input={tmp_path}/list.csv", f"--video_root={videos}", "--split=clips",
               f"--output={tmp_path}/out", f"--label_map={tmp_path}/map.txt", "--fps=10",
               "--min_side=24", "--clip_seconds=0.3", "--stride_seconds=0.2", "--flow=farneback",
               "--jpeg_quality=80", "--melspec", "--min_frames=3", "--max_pixels=5000",
               "--max_frames=70", "--seed=5", "--shards=2", "--workers=1", "--timeout=60",
               "--max_memory_gb=2", "--noimages", "--engine=local", "--region=0,0.5,0.5,0.5")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "labels.txt").read_text() == "walk\njump\nrun\n"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["splits"]["clips"]
    videos = summary["options"].pop("videos")
    assert videos.startswith("2 (")
    assert summary["options"] == {
        "fps": 10.0, "min_side": 24, "clip_seconds": 0.3, "stride_seconds": 0.2,
        "flow": "farneback", "jpeg_quality": 80, "melspec": True, "min_frames": 3,
        "max_seconds": 6 * 3600.0, "max_pixels": 5000, "max_frames": 70, "seed": 5, "shards": 2,
        "images": False, "dataset": "list", "region": [0.0, 0.5, 0.5, 0.5]}
    # Six frames: clips of three that begin at 0 and 2; of the third only two are left.
    assert summary["clips"] == 4


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
            ((f"--input={videos}", f"--output={tmp_path}/o", "--fps=nan"), "--fps=nan is not"),
            ((f"--input={videos}", f"--output={tmp_path}/o", "--region=0,0,1"), "four numbers"),
            ((f"--input={videos}", f"--output={tmp_path}/o", "--region=0.5,0,0.6,1"),
             "as shares of the picture"),
            ((f"--input={videos}", f"--output={tmp_path}/o", "--images", "--clip_seconds=4"),
             "--clip_seconds=4 is for videos"),
            ((f"--input={videos}", f"--output={tmp_path}/o", "--ray_address=10.0.0.1:6379"),
             "give --engine=ray"),
            ((f"--input={videos}", f"--output={videos}/0.mp4/o"), "Not a directory"),
            ((f"--input={videos}", f"--output={videos}/0.mp4"), "is a file")):
        result = run(*flags)
        assert result.returncode == 2
        assert words in result.stderr
        assert result.stderr.startswith("error: ")
        assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "o").exists()
