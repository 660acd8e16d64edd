"""What a search spends around its training steps, and whether its step costs more than pretrain's.

    python -m benchmarks.search_overhead --data=demo/records --journal=demo/search/journal.jsonl

Prints the share of each candidate's time that goes into training and features ("train" holds the
reset of the variables and the overhead of `fit` too; the first candidate's, compiling), and the
time of one step of the search beside the same step of bin/pretrain (all 40 losses), run in turn.
"""

import statistics
import time

import gin
from absl import flags

from elo_tf import cli
from elo_tf.bin import configuration
from elo_tf.data.pipeline import training_clips
from elo_tf.search.journal import read_journal
from elo_tf.training.devices import distribute
from elo_tf.training.optimization import create_slots

DATA = flags.DEFINE_string("data", None, "Folder of records.", required=True)
JOURNAL = flags.DEFINE_string("journal", None, "Journal of a finished search.", required=True)
ROUNDS = flags.DEFINE_integer("rounds", 20, "How often the two steps are run in turn.")
flags.FLAGS.set_default("run_dir", "")  # nothing is written


def print_shares(path: str) -> None:
    """Prints a line for every candidate of a journal."""
    print("candidate  seconds  steps+features  share")
    for candidate in read_journal(path).candidates:
        seconds = candidate.seconds
        useful = seconds["train"] + seconds["features"]
        print(f"{candidate.generation}.{candidate.index:<8} {seconds['total']:7.2f} "
              f"{useful:15.2f}  {useful / seconds['total']:.1%}")


def main(argv):
    """Measures."""
    del argv
    print_shares(JOURNAL.value)
    configuration.parse(["gin/demo.gin"], [f"Records.directory = '{DATA.value}'"])
    of = gin.get_configurable
    space, clip = of("LossSpace")(), of("ClipSpec")()
    proxy = of("Proxy")(space=space)
    strategy = proxy.model.distribute_strategy
    weights = dict.fromkeys(space.names, 0.5)
    with strategy.scope():
        final = of("PretrainingModel")(clip, space, names=space.active(weights), seed=1)
        final.compile(optimizer=of("make_optimizer")(100))
        create_slots(final.optimizer, final.trainable_variables)
    # A few batches, over and over: no decoding beside the steps.
    batches = training_clips(of("Records")(), "unlabelled", clip, batch_size=16, seed=1)
    iterator = iter(distribute(strategy, batches.take(4).cache().repeat()))
    times = {}
    for name, model in (("search", proxy.model), ("pretrain", final)):
        model.set_weights_by_name(weights)
        model.make_train_function()
        for _ in range(4):
            model.train_function(iterator)
        times[name] = []
    for _ in range(ROUNDS.value):
        for name, model in (("search", proxy.model), ("pretrain", final)):
            started = time.perf_counter()
            model.train_function(iterator)["total"].numpy()
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"\nstep of the search   {medians['search']:.4f} s\n"
          f"step of pretrain     {medians['pretrain']:.4f} s\n"
          f"ratio                {medians['search'] / medians['pretrain']:.3f}")


if __name__ == "__main__":
    cli.run(main)
