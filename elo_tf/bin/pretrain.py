"""Trains the final network with a fixed loss and saves its RGB encoder.

    python -m elo_tf.bin.pretrain --data=records --gin_file=search/best_loss.gin --run_dir=pretrain

The run directory gets `encoder/` (what bin/evaluate and bin/export take), `losses.jsonl` and
`tensorboard/`, `heldout.json` (each loss on unseen clips, before and after) and `checkpoints/`.

SIGTERM and Ctrl-C save and stop; the same command goes on. With --restarts=3 the program is started
again where it fails. On several hosts, start it on each of them, with a run directory that they
share, --worker_hosts=a:2222,b:2222 and its own --task_index.
"""

from absl import flags

from elo_tf import cli
from elo_tf.bin import configuration, supervisor
from elo_tf.errors import UserError
from elo_tf.training import final, workers

configuration.define_data_flag()
workers.define_flags()
RESTARTS = flags.DEFINE_integer(
    "restarts", 0, "How often to start again from the last checkpoint where the training fails.",
    lower_bound=0)


def main(argv: list[str]) -> int | None:
    """Trains, and prints how the losses on unseen clips changed."""
    del argv
    if RESTARTS.value:
        return supervisor.supervise(supervisor.own_command(), RESTARTS.value)
    workers.configure_from_flags()
    run_dir = configuration.start(configuration.NEEDS_RECORDS | {
        "pretrain.loss_weights": "give --gin_file=best_loss.gin, which bin/search wrote"})
    try:
        result = final.pretrain(str(run_dir))
    except FloatingPointError as error:
        # gin has put its call chain below the message.
        raise UserError(
            f"{str(error).splitlines()[0]}: the training has diverged; its last good checkpoint is "
            f"in {run_dir / final.CHECKPOINTS}. Lower make_optimizer.learning_rate, in another "
            "--run_dir") from error
    configuration.finish(run_dir)
    print(f"{'loss on unseen clips':28} weight  before   after")
    for name, before in result["before"].items():
        after, weight = result["after"][name], result["weights"][name]
        print(f"{name:28} {weight:6.3f} {before:7.3f} {after:7.3f}"
              + ("" if after < before else "  (did not fall)"))
    print(f"encoder: {run_dir / final.ENCODER}")
    return None


if __name__ == "__main__":
    cli.run(main)
