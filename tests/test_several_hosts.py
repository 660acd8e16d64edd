"""The real program on two hosts, as two processes on loopback: killed, started again, and right."""

import json
import os
import re
import signal
import socket
import subprocess
import time

import numpy as np
import pytest

from elo_tf.training import encoder_files

# All kinds of losses that look at other clips, and a modality that some clips lack.
FEW = """
pretrain.loss_weights = {'rgb/shuffle': 1.0, 'rgb/align': 0.5, 'audio/contrast': 0.5}
pretrain.steps = 8
pretrain.batch_size = 8
pretrain.checkpoint_every = 4
pretrain.heldout_steps = 1
"""


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [x.getsockname()[1] for x in sockets]
    for x in sockets:
        x.close()
    return ports


@pytest.fixture(scope="module")
def command(workshop):
    return workshop.pretrain("hosts", FEW)


def children_of(process):
    """The programs that a supervisor has started."""
    path = f"/proc/{process.pid}/task/{process.pid}/children"
    with open(path) as file:
        return [int(x) for x in file.read().split()]


def test_two_hosts_killed_and_started_again_end_as_one(workshop, command):
    workshop.run(command("one_host"))
    hosts = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    run_dir = workshop.root / "two_hosts"
    logs = [workshop.root / f"host{i}.txt" for i in range(2)]
    processes = []
    for index, path in enumerate(logs):
        with open(path, "w") as output:
            processes.append(subprocess.Popen(
                command("two_hosts", f"--worker_hosts={hosts}", f"--task_index={index}",
                        "--restarts=1"),
                stdout=output, stderr=output))
    try:
        first = run_dir / "checkpoints" / "step-00000004"
        deadline = time.monotonic() + 240
        while not first.exists():
            assert time.monotonic() < deadline and processes[0].poll() is None, logs[0].read_text()
            time.sleep(0.005)
        killed, = children_of(processes[1])
        os.kill(killed, signal.SIGKILL)
        at = time.monotonic()
        assert [x.wait(240) for x in processes] == [0, 0], "\n".join(x.read_text() for x in logs)
    finally:
        for process in processes:
            process.kill()
    said = [path.read_text() for path in logs]
    assert "supervisor: the run was ended by SIGKILL" in said[1]
    assert re.search(r"error: worker 1 \(127\.0\.0\.1:\d+\) is lost", said[0])
    assert "supervisor: the run ended with exit code 75; starting it again" in said[0]
    assert "training on 2 CPU of 2 hosts" in said[0]
    assert time.monotonic() - at < 240

    one, two = workshop.root / "one_host", run_dir
    entries = [{x["step"]: x for x in map(json.loads, (folder / "losses.jsonl").open())
                if "losses" in x} for folder in (one, two)]
    assert entries[0].keys() == entries[1].keys()
    for step, entry in entries[0].items():
        other = entries[1][step]
        for name, loss in entry["losses"].items():
            np.testing.assert_allclose(other["losses"][name], loss, rtol=2e-3 * step)
        np.testing.assert_allclose(other["gradient_norm"], entry["gradient_norm"], rtol=0.02 * step)
    # Only the chief's is kept.
    for folder in (one, two):
        assert sorted(x.name for x in (folder / "encoder").iterdir()) == [
            encoder_files.CLIP, encoder_files.DATA, encoder_files.TRAINED, encoder_files.UNTRAINED]
    before = [json.loads((x / "heldout.json").read_text())["before"] for x in (one, two)]
    for name, loss in before[0].items():
        np.testing.assert_allclose(before[1][name], loss, rtol=1e-3)
