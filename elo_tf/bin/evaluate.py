"""Scores a trained RGB encoder on labelled records by every protocol of the configuration.

    python -m elo_tf.bin.evaluate --encoder=pretrain/encoder --data=records --run_dir=evaluate

The run directory gets `evaluation.json` and `.md`, and `heads/`: the classifiers that it trained,
of which bin/export takes one with --head=evaluate/heads/linear. `heads/finetune` is there where the
configuration has evaluate.finetune = @Finetune().
"""

from absl import flags, logging

from elo_tf import cli
from elo_tf.bin import configuration
from elo_tf.evaluation import evaluate, heads, table

configuration.define_data_flag()
ENCODER = flags.DEFINE_string(
    "encoder", None, "The folder `encoder` of a finished run of bin/pretrain.", required=True)


def main(argv: list[str]) -> None:
    """Evaluates, and prints the table."""
    del argv
    run_dir = configuration.start(configuration.NEEDS_RECORDS, inputs={"encoder": ENCODER.value})
    result = evaluate.evaluate(str(run_dir), ENCODER.value)
    configuration.finish(run_dir)
    print(f"{result['test_clips']} clips of split {result['split']}, {len(result['classes'])} "
          f"classes, chance {result['chance']:.1%}")
    for line in table.lines(result):
        print(line)
    for warning in result["warnings"]:
        logging.warning("%s", warning)
    for path in sorted((run_dir / heads.HEADS).glob(f"*/{heads.FACTS}")):
        print(f"classifier: {path.parent}")
    print(f"table: {run_dir / evaluate.TABLE}")


if __name__ == "__main__":
    cli.run(main)
