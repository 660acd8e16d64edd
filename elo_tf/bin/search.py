"""Searches for the weights of all losses by their Zipf fitness; no label guides it.

    python -m elo_tf.bin.search --data=records --run_dir=search --gin_file=my.gin

Before it begins it says what it will cost. The run directory gets `journal.jsonl`, a line for
everything that happens; `report.html`, renewed while it runs; `tensorboard/`; and at the end
`best_loss.gin`, which bin/pretrain takes. A search that is killed goes on where it was.

CMA-ES is the strategy unless another gin file is given: --gin_file=search/tournament.gin,
search/random.gin or search/grid.gin. Candidates are evaluated in this process, in local processes
(--workers=4; each with a GPU, where there are some) or by Ray (--workers=ray): their number and
kind change how long it takes and nothing else.
"""

from absl import flags

from elo_tf import cli
from elo_tf.bin import cluster_clips, configuration, registered
from elo_tf.reporting.live import LiveReport
from elo_tf.search import search

configuration.define_data_flag()
WORKERS = flags.DEFINE_string(
    "workers", "0", "What evaluates candidates: 0, this process; a number of local processes; or "
    "ray, one actor for each GPU or share of the CPUs.")
RAY_ADDRESS = flags.DEFINE_string(
    "ray_address", None, "Of a running Ray cluster, with --workers=ray; by default Ray is started "
    "on this machine.")


def main(argv: list[str]) -> None:
    """Searches, and prints where the best loss is."""
    del argv
    run_dir = configuration.start(configuration.NEEDS_RECORDS)
    path = search.search(
        str(run_dir), workers=WORKERS.value, ray_address=RAY_ADDRESS.value,
        imports=[registered.__name__],
        watchers=[LiveReport(run_dir, read_clips=cluster_clips.cluster_clips)])
    configuration.finish(run_dir)
    print(f"best loss: {path}")


if __name__ == "__main__":
    cli.run(main)
