"""Conversions that are killed, or that find no room, and what remains of them."""

import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from elo_tf import parallel
from elo_tf.data import conversion, encoding, media
from elo_tf.data.conversion import shards as conversion_shards
from elo_tf.data.conversion import state as conversion_state
from elo_tf.data.media import write as media_write
from elo_tf.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Twelve videos of six seconds of noise that moves, by their names in a random order."""
    folder = tmp_path_factory.mktemp("videos")
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 256, (16, 24, 24, 3), np.uint8)
        frames = np.stack([np.roll(noise[k % 16], k, 1).repeat(4, 0).repeat(4, 1)
                           for k in range(60)])
        media_write.write_video(folder / f"{index}.mp4", frames, 10)
        for copy in range(1, 4):
            shutil.copy(folder / f"{index}.mp4", folder / f"{index}_{copy}.mp4")
    return folder


def shards(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("train-*.tfrecord"))}


@pytest.fixture(scope="module")
def calm(videos, tmp_path_factory):
    """The shards of a conversion that nothing disturbed, in this process."""
    output = tmp_path_factory.mktemp("calm")
    options = encoding.VideoOptions(fps=10, min_side=64, clip_seconds=1.5, stride_seconds=1.0)
    summary = conversion.convert(conversion.Conversion(
        str(videos), str(output), "train", shards=4, options=options, workers=0))
    assert (summary["converted"], summary["clips"]) == (12, 72)
    return shards(output)


def start(videos, output, **settings):
    return subprocess.Popen(
        [sys.executable, "-m", "tools.convert_videos", f"--input={videos}", f"--output={output}",
         "--shards=4", "--fps=10", "--min_side=64", "--clip_seconds=1.5", "--stride_seconds=1",
         "--workers=2"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        **settings)


def workers_of(process):
    """The processes that decode for this one."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == process.pid and b"spawn_main" in command:
            found.append(int(folder.name))
    return found


def wait_for(process, condition):
    deadline = time.monotonic() + 120
    while not (found := condition()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    return found


def test_kills_of_a_worker_and_of_the_conversion_change_nothing(videos, calm, tmp_path):
    process = start(videos, tmp_path)
    # Both are within a video: a shard is begun, and none is whole.
    wait_for(process, lambda: list(tmp_path.glob(".train-*.tmp.tfrecord")))
    os.kill(wait_for(process, lambda: workers_of(process))[0], signal.SIGKILL)
    wait_for(process, lambda: shards(tmp_path))
    process.kill()
    process.wait()
    first = shards(tmp_path)
    assert 0 < len(first) < 4 and first.items() <= calm.items()
    process = start(videos, tmp_path)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.splitlines()[-1] == "train: 12 converted, 0 rejected"
    assert shards(tmp_path) == calm
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "rejects.csv").exists()


@pytest.mark.parametrize("delay", [0.1, 1.0])
def test_ctrl_c_is_one_line_and_leaves_nothing(videos, tmp_path, delay):
    process = start(videos, tmp_path, start_new_session=True)
    workers = wait_for(process, lambda: workers_of(process))
    time.sleep(delay)  # Processes that still import, and perhaps ones that decode.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; the same command resumes where it stopped"
    assert "Traceback" not in errors
    assert not any(pathlib.Path(f"/proc/{pid}").exists() for pid in workers)
    assert not list(tmp_path.glob(".*.tfrecord"))


def test_a_second_conversion_of_a_split_waits_for_its_turn(videos, calm, tmp_path):
    first = start(videos, tmp_path)
    wait_for(first, lambda: list(tmp_path.glob(".train-*.tmp.tfrecord")))
    second = start(videos, tmp_path)
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 2
    assert errors.splitlines()[-1] == (
        f"error: another process converts the split 'train' into {tmp_path}; wait for it to end, "
        "or choose another --output or --split")
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 0, errors
    assert shards(tmp_path) == calm
    assert not list(tmp_path.glob(".*"))


def test_a_kill_before_the_first_shard_is_known(videos, calm, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    # The shard is there, what says so is not yet.
    monkeypatch.setattr(conversion_state.SplitState, "add", killed)
    job = conversion.Conversion(
        str(videos), str(tmp_path), "train", shards=4, workers=1, options=encoding.VideoOptions(
            fps=10, min_side=64, clip_seconds=1.5, stride_seconds=1.0))
    with pytest.raises(KeyboardInterrupt):
        conversion.convert(job)
    assert len(shards(tmp_path)) == 1
    monkeypatch.undo()
    assert conversion.convert(job)["converted"] == 12
    assert shards(tmp_path) == calm


def test_a_full_disk_is_told_and_nothing_half_written_remains(videos, calm, tmp_path):
    job = conversion.Conversion(
        str(videos), str(tmp_path), "train", shards=4, workers=0, options=encoding.VideoOptions(
            fps=10, min_side=64, clip_seconds=1.5, stride_seconds=1.0))
    sizes = [len(content) for content in calm.values()]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(sizes) // 2, before[1]))
    try:
        with pytest.raises(UserError) as error:
            conversion.convert(job)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.message.startswith(f"cannot write {tmp_path}/train-0000")
    assert "File too large; free the space" in error.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["train.json"]
    conversion.convert(job)
    assert shards(tmp_path) == calm


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 512 kB; a function that makes it read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield folder, lambda: subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_or_read_only(videos, small_disk):
    disk, make_read_only = small_disk
    process = start(videos, disk / "out")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    last = errors.splitlines()[-1]
    assert last.startswith(f"error: cannot write {disk}/out/train-0000")
    assert "No space left on device; free the space" in last and "Traceback" not in errors
    assert not list((disk / "out").glob(".*"))
    make_read_only()
    for output in (disk / "out", disk / "new"):
        process = start(videos, output)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2
        assert errors.splitlines()[-1].startswith(f"error: cannot write to --output={output}: "
                                                  "Read-only file system")
        assert "Traceback" not in errors


def test_what_failed_is_told_by_a_word_and_a_line():
    limits = conversion_shards.Limits(seconds=7, gigabytes=2)

    def reason(error):
        return conversion_shards.reject_reason(error, limits)

    assert reason(media.MediaError("odd", "two\nlines")) == ("odd", "two lines")
    assert reason(parallel.WorkerHungError("x")) == ("timeout", "no clip came for 7 s")
    assert reason(parallel.WorkerDiedError("exit code -11")) == ("crashed", "exit code -11, twice")
    assert reason(MemoryError("no")) == ("out_of_memory", "more than 2 GB are needed (no)")
    assert reason(KeyError("a")) == ("failed", "KeyError: 'a'")
