"""A training that is killed again and again. Run by `make soak`; see docs/results/soak."""

import hashlib
import os
import signal
import subprocess
import time

import numpy as np
import pytest

pytestmark = pytest.mark.soak

FEW = """
pretrain.loss_weights = {'rgb/shuffle': 1.0, 'audio/reconstruct': 0.5, 'distill/audio/block1': 0.2}
pretrain.steps = 240
pretrain.checkpoint_every = 3
pretrain.intra_op_threads = 1
pretrain.deterministic = True
"""
KILLS = 20


def digests(run_dir):
    paths = [run_dir / "heldout.json", *sorted((run_dir / "encoder").glob("*.keras")),
             *sorted((run_dir / "checkpoints" / "step-00000240").glob("variables.*"))]
    assert len(paths) == 5
    return [hashlib.sha256(x.read_bytes()).hexdigest() for x in paths]


def test_a_training_killed_twenty_times_ends_with_the_same_bits(workshop):
    command = workshop.pretrain("soak", FEW)
    workshop.run(command("soak_whole"))
    generator = np.random.Generator(np.random.PCG64(11))
    checkpoints = workshop.root / "soak_killed" / "checkpoints"
    kills = in_saves = in_epochs = 0
    while kills < KILLS:
        before = set(checkpoints.glob("step-*"))
        process = subprocess.Popen(command("soak_killed"), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        # From the first checkpoint of its own on, at a random moment of the next few.
        deadline = time.monotonic() + 120
        while set(checkpoints.glob("step-*")) <= before:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 1.0))
        assert process.poll() is None, "the training was over before all kills"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        in_saves += any(checkpoints.glob(".saving-*"))
        in_epochs += not any(checkpoints.glob(".*"))
    print(f"{kills} kills: {in_saves} inside a save, {in_epochs} between saves")
    assert in_epochs
    workshop.run(command("soak_killed"))
    assert digests(workshop.root / "soak_killed") == digests(workshop.root / "soak_whole")
