"""Which devices train, and how batches reach them."""

import tensorflow as tf
from absl import logging

from elo_tf import cli, model_garden
from elo_tf.errors import UserError


def make_strategy() -> tf.distribute.Strategy:
    """MirroredStrategy over all local GPUs, or over the CPU where there is none."""
    gpus = len(tf.config.list_logical_devices("GPU"))
    strategy = model_garden.distribution().get_distribution_strategy(
        "mirrored", num_gpus=gpus)
    logging.info("training on %d %s", strategy.num_replicas_in_sync, "GPU(s)" if gpus else "CPU")
    return strategy


def fix_threads(intra_op: int) -> None:
    """Fixes the number of threads of an operation, on which the last bits of a sum depend.

    Args:
      intra_op: 0 leaves TensorFlow's default, the number of cores.
    """
    if tf.config.threading.get_intra_op_parallelism_threads() != intra_op:
        tf.config.threading.set_intra_op_parallelism_threads(intra_op)


def distribute(strategy: tf.distribute.Strategy,
               dataset: tf.data.Dataset) -> tf.distribute.DistributedDataset:
    """Splits each global batch of the dataset over the strategy's replicas, in order.

    Raises:
      UserError: if the batch cannot be split evenly.
    """
    batch_size = dataset.element_spec["key"].shape[0]
    if batch_size is not None and batch_size % strategy.num_replicas_in_sync:
        raise UserError(f"a batch_size of {batch_size} cannot be split evenly over "
                        f"{strategy.num_replicas_in_sync} devices")
    if strategy.num_replicas_in_sync > 1 or tf.config.list_logical_devices("GPU"):
        return strategy.experimental_distribute_dataset(dataset)
    # One CPU needs no copies to devices. Autotuning, whose thread sleeps for up to a minute, would
    # hold up the end of every `fit` until it wakes.
    plain = tf.data.Options()
    plain.autotune.enabled = False
    dataset = dataset.with_options(plain)
    return strategy.distribute_datasets_from_function(
        lambda _: dataset, tf.distribute.InputOptions(
            experimental_replication_mode=tf.distribute.InputReplicationMode.PER_REPLICA,
            experimental_fetch_to_device=False))


class StepProgress(tf.keras.callbacks.Callback):
    """A progress bar over steps that never waits for the device."""

    def __init__(self, total: int, desc: str, initial: int = 0):
        """Opens the bar.

        Args:
          total: steps.
          desc: what is trained.
          initial: steps already done.
        """
        super().__init__()
        self._supports_tf_logs = True  # logs are not fetched for this callback
        self._bar = cli.progress(total=total, desc=desc, unit="step")
        self._bar.update(initial)

    def on_train_batch_end(self, batch, logs=None):
        """One step more."""
        self._bar.update()

    def show(self, note: str):
        """Adds a note behind the bar."""
        self._bar.set_postfix_str(note, refresh=False)

    def close(self):
        """Ends the bar's line."""
        self._bar.close()
