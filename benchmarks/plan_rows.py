"""What every row of the paper's tables costs: a line for each, counted as benchmarks.plan counts.

    python -m benchmarks.plan_rows > docs/results/tables/plan.txt
    python -m benchmarks.plan_rows --rows=avts,opn --utilisation=0.3

The files are those of gin/papers/elo_cvpr2020; --gin_file and --gin_bindings are read after each.
A step is built and traced on the CPU, and never run. With all losses that takes minutes a row.
"""

import copy
import pathlib
import sys
from typing import NamedTuple

import gin
from absl import flags

from benchmarks import plan
from elo_tf import cli
from elo_tf.bin import configuration, gin_checks
from elo_tf.errors import UserError
from elo_tf.training import costs

PAPER = configuration.ROOT / "gin" / "papers" / "elo_cvpr2020"
NO_ROWS = ("final", "search")
MADE = ("scratch", "imagenet")  # by bin/initial
ROWS = flags.DEFINE_list("rows", [], "Names of rows; all by default.")


class Line(NamedTuple):
    """What a row costs.

    Attributes:
      row: its name.
      losses: how many are trained.
      parameters: trainable numbers, with heads.
      flops: of a clip, forward and backward.
      batch: clips of a step.
      clips: of the whole training.
    """

    row: str
    losses: int
    parameters: int
    flops: float
    batch: int
    clips: int


def trained_losses(space) -> tuple[str, ...]:
    """The losses of a row; of a searched one, those that its search moves."""
    if not gin_checks.is_bound("pretrain.loss_weights"):
        return gin.get_configurable("SearchSpace")().searched
    return space.active(copy.deepcopy(plan.query("pretrain.loss_weights")))


def line_of(row: str, counted: dict) -> Line:
    """Reads a row's file and counts.

    Args:
      row: its name.
      counted: what other rows with the same losses came to; gets this one's.
    """
    gin.clear_config()
    configuration.parse([str(PAPER / f"{row}.gin"), *configuration.GIN_FILE.value],
                        configuration.GIN_BINDINGS.value)
    if row in MADE:
        made = [copy.deepcopy(plan.query(f"initial.make_{x}")) for x in ("untrained", "encoder")]
        encoder = next(x for x in made if x)(3, name="rgb")
        return Line(row, 0, costs.count_variables(encoder.trainable_variables)[0], 0.0, 0, 0)
    of = gin.get_configurable
    names = trained_losses(of("LossSpace")())
    recompute, batch = plan.query("PretrainingModel.recompute"), plan.BATCH.value
    key = (names, recompute, of("ClipSpec")())
    if key not in counted:
        counted[key] = plan.count(batch, [recompute], names)
    counts = counted[key]
    size = plan.query("pretrain.batch_size")
    return Line(row, len(names), sum(counts.parameters.values()),
                counts.by_recompute[recompute].flops / batch, size,
                size * plan.query("pretrain.steps"))


def print_table(lines: list[Line]) -> None:
    """Prints the counts and the forecast."""
    devices = plan.devices()
    print(f"{'':20}" + "".join(f"{x:>16}" for x in (
        "losses", "M parameters", "GFLOPs a clip", "TFLOPs a step", "M clips", "FLOPs", *devices)))
    for x in lines:
        total = x.clips * x.flops
        days = [plan.device_seconds(total, peak, plan.UTILISATION.value) / 86400
                for peak in devices.values()]
        numbers = (x.losses, x.parameters / 1e6, x.flops / 1e9, x.batch * x.flops / 1e12,
                   x.clips / 1e6, total, *days)
        print(f"{x.row:20}" + "".join(f"{n:16.4g}" for n in numbers))
    print("\nThe last columns are days of one device, at "
          f"{plan.UTILISATION.value:.0%} of its peak, an assumption: of "
          + ", ".join(f"{peak:g}" for peak in devices.values())
          + " TFLOP/s.\nWhat is recomputed counts. The rows elo, elo_weak and elo_no_distillation "
          "need a search as well:\ndocs/results/training/plan_search.txt.")


def main(argv):
    """Counts all rows."""
    del argv
    known = sorted(x.stem for x in PAPER.glob("*.gin") if x.stem not in NO_ROWS)
    unknown = [x for x in ROWS.value if x not in known]
    if unknown:
        raise UserError(f"--rows: there is no {unknown[0]!r}; the rows are: {', '.join(known)}")
    counted: dict = {}
    lines = [line_of(row, counted)
             for row in cli.progress(ROWS.value or known, desc="rows", unit="row")]
    program = pathlib.Path(sys.argv[0]).stem
    print(f"$ python -m benchmarks.{' '.join([program, *sys.argv[1:]])}\n")
    print_table(lines)


if __name__ == "__main__":
    cli.run(main)
