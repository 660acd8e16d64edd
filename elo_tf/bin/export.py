r"""Exports a trained RGB encoder as a SavedModel: frames of any number and size in, embedding out.

    python -m elo_tf.bin.export --encoder=pretrain/encoder --run_dir=export \
        --head=evaluate/heads/linear --evaluation=evaluate/evaluation.json

The version's folder (export/elo/1, then 2, ...) needs none of this code. With --head, a classifier
that bin/evaluate kept, it also returns class probabilities (signatures `classify`,
`classify_jpeg`). With --head=evaluate/heads/finetune the embedding too is that of the fine-tuned
network. Its model_card.md says what it was trained on, what it scored and what it takes.
"""

from absl import flags

from elo_tf import cli
from elo_tf.bin import configuration
from elo_tf.serving import export, model_card

ENCODER = flags.DEFINE_string(
    "encoder", None, "The folder `encoder` of a finished run of bin/pretrain.", required=True)
EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Folder of the served model; the version is written below it. By default "
    "`elo` in --run_dir.")
HEAD = flags.DEFINE_string(
    "head", None, "A folder below `heads` of a run of bin/evaluate with this encoder, such as "
    "evaluate/heads/linear: adds the signatures classify and classify_jpeg.")
EVALUATION = flags.DEFINE_string(
    "evaluation", None, "evaluation.json of a run of bin/evaluate with this encoder, or its "
    "folder: what the model card says of accuracy.")


def main(argv: list[str]) -> None:
    """Exports, and prints where the version is."""
    del argv
    run_dir = configuration.start()
    path = export.export_encoder(ENCODER.value, EXPORT_DIR.value or run_dir / "elo",
                                 head_dir=HEAD.value, evaluation=EVALUATION.value)
    configuration.finish(run_dir)
    print(f"SavedModel: {path}")
    print(f"model card: {path}/{model_card.FILE}")


if __name__ == "__main__":
    cli.run(main)
