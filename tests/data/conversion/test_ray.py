"""Conversion by a real Ray cluster of two cores on this machine."""

import os
import re
import signal
import threading
import time

import numpy as np
import pytest

from elo_tf import parallel_ray
from elo_tf.data import conversion, encoding
from elo_tf.data.media import write as media_write


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Eight videos of four seconds, and a file that is none."""
    folder = tmp_path_factory.mktemp("videos")
    for index in range(8):
        noise = np.random.default_rng(index).integers(0, 256, (40, 48, 48, 3), np.uint8)
        media_write.write_video(folder / f"{index}.mp4", noise, 10)
    (folder / "text.mp4").write_text("text")
    return folder


def convert(videos, output, engine):
    options = encoding.VideoOptions(fps=10, min_side=48, clip_seconds=1.0)
    return conversion.convert(conversion.Conversion(
        str(videos), str(output), "train", shards=2, options=options, engine=engine, workers=2))


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())
            if path.suffix in (".tfrecord", ".csv")}


def kill_one_that_writes(output, killed):
    """Kills the process that writes a shard, known by its temporary file's name."""
    deadline = time.monotonic() + 100
    while not killed and time.monotonic() < deadline:
        for path in output.glob(".train-*.tmp.tfrecord"):
            killed.append(int(re.search(r"\.(\d+)\.tmp", path.name)[1]))
            os.kill(killed[0], signal.SIGKILL)
            return
        time.sleep(0.001)


def test_ray_writes_the_same_bytes_though_a_worker_is_killed(videos, tmp_path):
    local, ray = tmp_path / "local", tmp_path / "ray"
    expected = convert(videos, local, "local")
    assert (expected["converted"], expected["clips"], expected["rejected"]) == (8, 32, 1)
    killed = []
    killer = threading.Thread(target=kill_one_that_writes, args=(ray, killed))
    killer.start()
    # In the main thread, as a program would.
    with parallel_ray.cluster(cpus=2):
        summary = convert(videos, ray, "ray")
    killer.join()
    assert killed and killed[0] != os.getpid()
    assert files(ray) == files(local)
    assert set(files(ray)) == {"rejects.csv", "train-00000-of-00002.tfrecord",
                               "train-00001-of-00002.tfrecord"}
    assert not list(ray.glob(".*"))
    timings = {"wall_seconds", "stage_seconds", "shards"}
    assert ({key: value for key, value in summary.items() if key not in timings}
            == {key: value for key, value in expected.items() if key not in timings})
    # The state is the same, whoever wrote it.
    assert convert(videos, ray, "local")["unchanged"]
