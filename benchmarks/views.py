"""What sharing views saves: one step of all losses beside the steps of each loss trained alone.

    python -m benchmarks.views --gin_file=demo.gin --data=demo/records

Each loss alone is a model of its own that was built without everything it does not need. All take
the same batches, from memory, in one program; the table has medians of steady steps, without
tracing and compiling. Steps of all losses are timed between those of the single ones, so that a
slow minute of the machine is in both; it is also the search's, which skips losses of weight 0 as it
runs, with every weight above 0.
"""

import itertools
import statistics
import time

import elo_tf  # noqa: F401  (first, so that TensorFlow starts quietly)

# isort: split

import gin
from absl import flags

from benchmarks import machine
from elo_tf import cli
from elo_tf.bin import configuration
from elo_tf.data.pipeline import training_clips
from elo_tf.training.data_wait import DataWait
from elo_tf.training.devices import distribute, fix_threads, make_strategy
from elo_tf.training.optimization import create_slots

DATA = flags.DEFINE_string("data", None, "Folder of records.", required=True)
BATCH = flags.DEFINE_integer("batch", 16, "Clips in a batch.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 6, "Timed steps of each loss alone.", lower_bound=1)
THREADS = flags.DEFINE_integer("threads", 0, "Of every operation; 0 takes all cores.")
BATCHES = 4
WARM_UP = 2
BETWEEN = 8  # losses alone, between two steps of all
flags.FLAGS.set_default("run_dir", "")  # nothing is written


class Step:
    """A model's compiled train step over batches in memory, and the seconds that it took."""

    def __init__(self, strategy, clip, space, names, batches):
        with strategy.scope():
            model = gin.get_configurable("PretrainingModel")(clip, space, names=names, seed=1)
            model.set_weights_by_name(dict.fromkeys(model.names, 0.5))
            model.compile(optimizer=gin.get_configurable("make_optimizer")(100, BATCH.value))
            create_slots(model.optimizer, model.trainable_variables)
        DataWait(model)  # as in training: compiled for a batch, not for an iterator
        self._step = model.train_function
        self._batches = itertools.cycle(batches)
        self.seconds = []

    def warm_up(self):
        """Compiles; after all models are built, since seeding one makes TensorFlow forget."""
        for _ in range(WARM_UP):
            self.run()
        self.seconds.clear()

    def run(self):
        """A step on the next batch, timed."""
        batch = iter((next(self._batches),))
        started = time.perf_counter()
        self._step(batch)["total"].numpy()
        self.seconds.append(time.perf_counter() - started)

    @property
    def median(self):
        """Seconds of a step."""
        return statistics.median(self.seconds)


def main(argv):
    """Measures."""
    del argv
    configuration.parse(configuration.GIN_FILE.value, configuration.GIN_BINDINGS.value)
    fix_threads(THREADS.value)
    of = gin.get_configurable
    space, clip, strategy = of("LossSpace")(), of("ClipSpec")(), make_strategy()
    clips = training_clips(of("Records")(DATA.value), "unlabelled", clip, batch_size=BATCH.value,
                           seed=1)
    batches = list(distribute(strategy, clips.take(BATCHES)))
    together = Step(strategy, clip, space, None, batches)
    alone = {name: Step(strategy, clip, space, (name,), batches) for name in space.names}
    together.warm_up()
    for step in cli.progress(alone.values(), desc="compiling", unit="loss"):
        step.warm_up()
    for _ in cli.progress(range(ROUNDS.value), desc="rounds", unit="round"):
        for number, step in enumerate(alone.values()):
            step.run()
            if number % BETWEEN == 0:
                together.run()
    total = sum(step.median for step in alone.values())
    print(f"{len(alone)} losses, clips of {clip.frames} + {clip.next_frames} frames of {clip.size} "
          f"x {clip.size}, batch {BATCH.value}; {machine.describe()}\n")
    print("a loss alone                      s")
    for name, step in alone.items():
        print(f"  {name:28} {step.median:7.4f}")
    print(f"all, each alone, one after other  {total:7.3f}\n"
          f"all in one step                   {together.median:7.3f}  "
          f"({min(together.seconds):.3f}-{max(together.seconds):.3f})\n"
          f"ratio                             {together.median / total:7.3f}")


if __name__ == "__main__":
    cli.run(main)
