"""Real kills of the real program: what it loses, what it keeps, and what it is in the end."""

import hashlib
import json
import signal
import subprocess

import pytest

from elo_tf.training import encoder_files

# A few losses: what is compiled in every process should be small.
FEW = """
pretrain.loss_weights = {'rgb/shuffle': 1.0, 'audio/reconstruct': 0.5, 'distill/audio/block1': 0.2}
pretrain.steps = 20
pretrain.average_decay = 0.9
pretrain.intra_op_threads = 1
pretrain.deterministic = True
"""
ARTEFACTS = ("heldout.json", f"encoder/{encoder_files.TRAINED}",
             f"encoder/{encoder_files.UNTRAINED}")


@pytest.fixture(scope="module")
def command(workshop):
    return workshop.pretrain("few", FEW)


@pytest.fixture(scope="module")
def whole(workshop, command):
    """The folder of a run that nothing disturbed."""
    workshop.run(command("whole"))
    return workshop.root / "whole"


def steps_of(run_dir):
    """The checkpoints on disk."""
    return sorted(int(x.name[5:]) for x in (run_dir / "checkpoints").glob("step-*"))


def digests(run_dir):
    """SHA-256 of all that must be the same, bit for bit."""
    paths = [run_dir / name for name in ARTEFACTS]
    newest = run_dir / "checkpoints" / f"step-{steps_of(run_dir)[-1]:08}"
    paths += sorted(newest.glob("variables.*"))
    assert len(paths) == len(ARTEFACTS) + 2
    return {str(x.relative_to(run_dir)): hashlib.sha256(x.read_bytes()).hexdigest() for x in paths}


def log_of(run_dir):
    """The log without what is measured."""
    entries = [json.loads(line) for line in (run_dir / "losses.jsonl").read_text().splitlines()]
    for entry in entries:
        if "heldout" not in entry:
            assert entry.pop("measured")["clips_per_second"] > 0
    return entries


def test_a_run_disturbed_in_every_way_ends_with_the_same_bits(workshop, command, whole):
    run_dir = workshop.root / "disturbed"
    checkpoints, log = run_dir / "checkpoints", run_dir / "losses.jsonl"

    def logged(step):
        return lambda: log.exists() and f'"step": {step},' in log.read_text()

    # Inside an epoch: the next checkpoint is due two steps later.
    workshop.kill_when(command("disturbed"), logged(6))
    assert steps_of(run_dir) == [0, 4]
    assert not list(checkpoints.glob(".*"))
    # Inside a save.
    workshop.kill_when(command("disturbed"), lambda: any(checkpoints.glob(".saving-*")))
    assert list(checkpoints.glob(".saving-*"))
    saved = steps_of(run_dir)
    with open(log, "a") as file:  # as a kill in the middle of a write leaves it
        file.write('{"step": 99, "tot')
    # Asked to stop, between checkpoints: nothing is lost.
    said = workshop.kill_when(command("disturbed"), logged(saved[-1] + 6), signal.SIGTERM)
    stopped = steps_of(run_dir)[-1]
    assert stopped % 4 and stopped > saved[-1] + 4
    assert f"stopped by SIGTERM after step {stopped}, which is saved" in said
    assert f"step-{saved[-1]:08}" in said  # what it had gone on from
    # The newest checkpoint damaged: it is named, and the one before is used.
    data = checkpoints / f"step-{stopped:08}" / "variables.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    done = workshop.run(command("disturbed"))
    assert f"step-{stopped:08}" in done.stderr and "variables.data-00000-of-00001" in done.stderr

    assert digests(run_dir) == digests(whole)
    assert log_of(run_dir) == log_of(whole)
    assert len(steps_of(run_dir)) <= 3 and steps_of(run_dir)[-1] == 20  # two newest, one best
    assert not list(checkpoints.glob(".*"))


def test_a_diverged_run_names_the_loss_and_keeps_the_last_good_checkpoint(workshop, command):
    done = subprocess.run(
        command("diverged", "--gin_bindings=make_optimizer.learning_rate = 1e30"),
        capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: the" in done.stderr and "at step 2: the training has diverged" in done.stderr
    assert "make_optimizer.learning_rate" in done.stderr
    assert steps_of(workshop.root / "diverged") == [0]


@pytest.mark.soak
def test_a_run_can_start_from_a_part_of_another(workshop, command, whole):
    """For fine-tuning: the encoder is the other's, the rest is new."""
    done = workshop.run(command(
        "fine_tuned", f"--gin_bindings=pretrain.initial = '{whole}'",
        "--gin_bindings=pretrain.initial_parts = ('encoders/rgb',)",
        "--gin_bindings=pretrain.steps = 2"))
    assert "2/2" in done.stderr
    mine = encoder_files.load_encoder(workshop.root / "fine_tuned" / "encoder",
                                      encoder_files.UNTRAINED)
    # Of the whole run, the checkpoint holds the weights and the encoder their averages.
    other = encoder_files.load_encoder(whole / "encoder", encoder_files.UNTRAINED)
    kernels = [(a, b) for a, b in zip(mine.trainable_weights, other.trainable_weights, strict=True)
               if "kernel" in a.name]
    assert all((a.numpy() != b.numpy()).any() for a, b in kernels)
