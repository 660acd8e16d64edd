"""The plan of a small configuration: its forecasts follow from the counts that it prints."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINDINGS = ("LossSpace.families = (@Shuffle, @Reverse)", "pretrain.steps = 100_000",
            "pretrain.batch_size = 40", "Proxy.steps = 50_000", "Proxy.batch_size = 40")
# Both plans from one trace: `main` makes one for each.
BOTH = """
import sys
from absl import flags
from benchmarks import plan
from elo_tf.bin import configuration
flags.FLAGS(sys.argv)
configuration.parse(configuration.GIN_FILE.value, configuration.GIN_BINDINGS.value)
counts = plan.count(2, ["none"])
for part in (plan.print_counts, plan.print_final, plan.print_search):
    part(counts, 2, "none")
"""


def numbers(line_start: str, text: str) -> list[float]:
    """What stands behind a line's title."""
    line = next(x for x in text.splitlines() if x.strip().startswith(line_start))
    rest = line.strip()[len(line_start):].replace(",", "")
    return [float(x) for x in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", rest)]


def test_forecasts_follow_from_the_counts():
    done = subprocess.run(
        [sys.executable, "-c", BOTH, "--gin_file=demo.gin", "--devices=3", "--peak_tflops=0.5",
         "--utilisation=0.25", *(f"--gin_bindings={x}" for x in BINDINGS)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    final, search = done.stdout.split("a candidate:")

    forward, = numbers("GFLOPs forward", final)
    backward, = numbers("GFLOPs backward, what is recomputed too", final)
    total, = numbers("GFLOPs  ", final)
    assert total == pytest.approx(forward + backward, abs=0.02)
    assert 1.5 < backward / forward < 2
    parts = [numbers(name, final)[0] for name in ("rgb", "flow", "gray", "audio", "heads")]
    assert numbers("total", final)[0] == pytest.approx(sum(parts), abs=0.03)
    assert "8 losses, float32, 2 clip(s) a pass" in final
    _, days, on_three = numbers("0.5 TFLOP/s", final)
    wanted = total * 1e9 * 4e6 / (0.5e12 * 0.25) / 86400
    assert days == pytest.approx(wanted, abs=0.05 + 0.01 * wanted)
    assert on_three == pytest.approx(wanted / 3, abs=0.05 + 0.01 * wanted)
    assert numbers("the paper  ", final)[:2] == [64 * 3, 3]

    each, devices, *readings = numbers("0.5 TFLOP/s", search)
    hours = total * 1e9 * 2e6 / (0.5e12 * 0.25) / 3600
    assert devices == 3 and each == pytest.approx(hours / 3, rel=0.01)
    # The demo's population is 6: 250 candidates, 250 generations of them, 2,000 candidates.
    expected = [x for n in (250, 250 * 6, 2000) for x in (n * hours, n * hours / 3 / 24)]
    assert readings == pytest.approx(expected, rel=0.01)
    paper = numbers("the paper's figure", search)
    assert paper == pytest.approx(
        [4, 8, 8000, 41.7, 250 * 6 * 32, 250.0, 64000, 333.3], abs=0.05)
