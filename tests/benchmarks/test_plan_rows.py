"""The table of what rows cost, at a tiny size: what it prints follows from what it counts."""

import pathlib
import subprocess
import sys

import pytest

from elo_tf.models.video_resnet import video_encoder

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINDINGS = (
    "ClipSpec.frames = 4", "ClipSpec.next_frames = 2", "ClipSpec.size = 16",
    "ClipSpec.host_size = 0", "video_encoder.depth = 10", "video_encoder.width = 0.0625",
    "PretrainingModel.recompute = 'none'", "Classify.classes = 7",
    "pretrain.steps = 5_000_000", "pretrain.batch_size = 40")


def plan(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.plan_rows", *arguments,
         *(f"--gin_bindings={x}" for x in BINDINGS)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_a_line_for_each_row():
    done = plan("--rows=scratch,kinetics", "--peak_tflops=0.5", "--utilisation=0.25")
    assert done.returncode == 0, done.stderr[-2000:]
    table = [x.split() for x in done.stdout.splitlines()]
    lines = {x[0]: list(map(float, x[1:])) for x in table if x and x[0] in ("scratch", "kinetics")}
    encoder = sum(v.shape.num_elements() for v in video_encoder(
        3, depth=10, width=0.0625).trainable_variables)
    assert lines["scratch"] == pytest.approx([0, encoder / 1e6] + [0] * 8, rel=1e-3)

    losses, parameters, gigaflops, a_step, clips, total, *days = lines["kinetics"]
    assert losses == 1 and len(days) == 4
    assert parameters == pytest.approx((encoder + 32 * 7 + 7) / 1e6, rel=1e-3)
    assert clips == 200 and gigaflops > 0
    assert total == pytest.approx(gigaflops * 1e9 * 200e6, rel=1e-3)
    assert a_step == pytest.approx(gigaflops * 40 / 1000, rel=1e-3)
    assert days[-1] == pytest.approx(total / (0.5e12 * 0.25) / 86400, rel=1e-3)


def test_an_unknown_row_is_named():
    done = plan("--rows=opm")
    assert done.returncode == 2 and "there is no 'opm'; the rows are: audio_rgb" in done.stderr
