r"""Saves an RGB encoder without training it: one drawn at random, or made of ImageNet's weights.

    python -m elo_tf.bin.initial --run_dir=imagenet --data=records \
        --gin_file=papers/elo_cvpr2020/imagenet.gin

The run directory gets `encoder/`, what bin/evaluate and bin/export take. With --data, batch-norm
statistics of what is drawn are estimated from its clips, as bin/pretrain does; without, they stay
at zero and one.
"""

import gin

from elo_tf import cli
from elo_tf.bin import configuration, gin_checks
from elo_tf.training import final, initial

configuration.define_data_flag()


def main(argv: list[str]) -> None:
    """Makes the encoder."""
    del argv
    run_dir = configuration.start()
    records = None
    if gin_checks.is_bound("Records.directory"):
        records = gin.get_configurable("Records")()
    initial.initial(str(run_dir), records=records)
    configuration.finish(run_dir)
    print(f"encoder: {run_dir / final.ENCODER}")


if __name__ == "__main__":
    cli.run(main)
