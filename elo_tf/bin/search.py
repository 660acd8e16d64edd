"""Searches for the weights of all losses by their Zipf fitness; no label is read.

    python -m elo_tf.bin.search --data=records --run_dir=search --gin_file=my.gin

The run directory gets `journal.jsonl`, a line for every candidate, and at the end `best_loss.gin`,
which bin/pretrain takes. A search that is killed goes on where it was.
"""

from elo_tf import cli
from elo_tf.bin import configuration
from elo_tf.search import search

configuration.define_data_flag()


def main(argv: list[str]) -> None:
    """Searches, and prints where the best loss is."""
    del argv
    run_dir = configuration.start(configuration.NEEDS_RECORDS)
    path = search.search(str(run_dir))
    configuration.finish(run_dir)
    print(f"best loss: {path}")


if __name__ == "__main__":
    cli.run(main)
