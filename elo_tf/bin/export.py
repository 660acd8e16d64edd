"""Exports a trained RGB encoder as a SavedModel: frames of any number and size in, embedding out.

    python -m elo_tf.bin.export --encoder=pretrain/encoder --export_dir=model/elo --run_dir=export
"""

from absl import flags

from elo_tf import cli
from elo_tf.bin import configuration
from elo_tf.serving import export

ENCODER = flags.DEFINE_string(
    "encoder", None, "The folder `encoder` of a finished run of bin/pretrain.", required=True)
EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Folder of the served model; the version is written below it. By default "
    "`elo` in --run_dir.")


def main(argv: list[str]) -> None:
    """Exports, and prints where the version is."""
    del argv
    run_dir = configuration.start()
    path = export.export_encoder(ENCODER.value, EXPORT_DIR.value or run_dir / "elo")
    configuration.finish(run_dir)
    print(f"SavedModel: {path}")


if __name__ == "__main__":
    cli.run(main)
