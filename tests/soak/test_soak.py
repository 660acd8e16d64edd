"""What takes long: many kills and much damaged input. Run by `make soak`; see docs/results/soak."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from elo_tf.data import media
from elo_tf.data.procedural import video_set as procedural_set
from elo_tf.data.schema import REJECTS_FILE

pytestmark = pytest.mark.soak

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def start(*command: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_after(process: subprocess.Popen, seconds: float) -> bool:
    """Kills a process where it has not ended by then; says whether it did."""
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True


def workers_of(process: subprocess.Popen) -> list[int]:
    """The processes that decode for a conversion."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("cut", [(), ("--clip_seconds=0.7", "--stride_seconds=0.4")])
def test_a_conversion_killed_ten_times_gives_the_same_bytes(tmp_path, cut):
    settings = procedural_set.Settings(seed=3, seconds=2.0, size=48, fps=8.0)
    procedural_set.make_set(str(tmp_path / "videos"), settings, {"unlabelled": 80}, workers=2)

    def convert(output: str) -> subprocess.Popen:
        return start("-m", "tools.convert_videos", f"--input={tmp_path / 'videos'}",
                     f"--output={tmp_path / output}", "--split=unlabelled", "--shards=8",
                     "--fps=8", "--min_side=48", "--workers=2", *cut)

    def shards(output: str) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in (tmp_path / output).glob("*.tfrecord")}

    started = time.monotonic()
    assert convert("calm").wait(300) == 0
    whole = time.monotonic() - started
    calm = shards("calm")
    assert len(calm) == 8
    generator = np.random.Generator(np.random.PCG64(8))
    kills = of_workers = 0
    for i in range(12):
        output = f"killed_{i}"
        process = convert(output)
        # A worker first, whose video another one takes up; then all of it.
        time.sleep(generator.uniform(0.1, 0.5) * whole)
        for worker in generator.permutation(workers_of(process))[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
                of_workers += 1
        kills += kill_after(process, generator.uniform(0, 0.5) * whole)
        assert convert(output).wait(300) == 0
        assert calm == shards(output)
        assert not (tmp_path / output / REJECTS_FILE).exists()
    print(f"{kills} kills, and {of_workers} of a worker, within {whole:.1f} s of work")
    assert kills >= 8 and of_workers >= 8


def test_damaged_files_are_decoded_or_named_never_a_crash(tmp_path):
    settings = procedural_set.Settings(seed=4, seconds=2.0, size=48, fps=8.0)
    procedural_set.make_set(str(tmp_path / "videos"), settings, {"unlabelled": 6}, workers=2)
    originals = [p.read_bytes() for p in sorted((tmp_path / "videos").rglob("*.mp4"))]
    generator = np.random.Generator(np.random.PCG64(9))
    counts = {"decoded": 0}
    for i in range(300):
        content = bytearray(originals[i % len(originals)])
        if i % 3 == 0:
            content = content[:generator.integers(1, len(content))]
        for place in generator.integers(0, len(content), generator.integers(1, 60)):
            content[place] = generator.integers(256)
        path = tmp_path / "damaged.mp4"
        path.write_bytes(content)
        try:
            (clip,) = media.decode_clips(str(path), fps=8.0, min_side=32)
            assert len(clip.frames) >= 2
            counts["decoded"] += 1
        except (media.MediaError, MemoryError) as error:
            reason = getattr(error, "reason", "out_of_memory")
            counts[reason] = counts.get(reason, 0) + 1
    print(counts)
    assert sum(counts.values()) == 300


def test_ten_hostile_videos_among_a_hundred_good_ones_cost_ten(tmp_path):
    settings = procedural_set.Settings(seed=5, seconds=1.5, size=48, fps=8.0)
    procedural_set.make_set(str(tmp_path / "videos"), settings, {"unlabelled": 100}, workers=2)
    for i in range(10):
        (tmp_path / "videos" / "unlabelled" / f"bad_{i}.mp4").write_bytes(
            [b"", b"#EXTM3U\nfile:///etc/hostname\n", b"text", b"\0" * 4096,
             b"ffconcat version 1.0\nfile /etc/hostname\n"][i % 5])
    process = start("-m", "tools.convert_videos", f"--input={tmp_path / 'videos'}",
                    f"--output={tmp_path / 'records'}", "--split=unlabelled", "--fps=8",
                    "--min_side=48", "--workers=2")
    assert process.wait(300) == 0
    rejects = (tmp_path / "records" / REJECTS_FILE).read_text().splitlines()
    assert len(rejects) == 11 and all("bad_" in line for line in rejects[1:])
