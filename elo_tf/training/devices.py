"""Which devices train, and how batches reach them."""

from collections.abc import Mapping

import gin
import tensorflow as tf
from absl import logging
from tensorflow.python.util import deprecation

from elo_tf import model_garden
from elo_tf.errors import UserError
from elo_tf.training import workers


@gin.configurable
def make_strategy(logical_cpus: int = 1) -> tf.distribute.Strategy:
    """The devices that train: all GPUs of this host, or its CPU; with a cluster, of all its hosts.

    Call it before anything else uses TensorFlow, which can neither split its CPU nor join a
    cluster later.

    Args:
      logical_cpus: parts of the CPU that act as devices, on one host without GPUs. They are no
        faster than one, and compute what as many GPUs would.

    Raises:
      UserError: if the CPU cannot be split so.
    """
    hosts, _ = workers.cluster()
    gpus = len(tf.config.list_physical_devices("GPU"))
    if logical_cpus != 1:
        _split_cpu(logical_cpus, gpus, len(hosts))
    make = model_garden.distribution().get_distribution_strategy
    if len(hosts) > 1:
        with deprecation.silence():  # Model Garden asks for it by its former name.
            strategy = make("multi_worker_mirrored")
    elif logical_cpus > 1:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(logical_cpus)])
    else:
        strategy = make("mirrored", num_gpus=gpus)
    logging.info("training on %d %s%s", strategy.num_replicas_in_sync, "GPU(s)" if gpus else "CPU",
                 f" of {len(hosts)} hosts" if len(hosts) > 1 else "")
    return strategy


def _split_cpu(parts: int, gpus: int, hosts: int) -> None:
    wanted = f"make_strategy.logical_cpus is {parts}"
    if parts < 1:
        raise UserError(f"{wanted}; it must be 1 or more")
    if gpus:
        raise UserError(f"{wanted}, but this host has {gpus} GPU(s), which train; leave it at 1, "
                        "or hide them with CUDA_VISIBLE_DEVICES=-1")
    if hosts > 1:
        raise UserError(f"{wanted}, but each of the {hosts} hosts trains on its whole CPU; leave "
                        "it at 1")
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) == parts:
        return
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * parts)
    except RuntimeError as error:
        raise UserError(f"{wanted}, but TensorFlow has begun to use the CPU as it is; this is to "
                        "be said before anything else is computed") from error


def fix_threads(intra_op: int) -> None:
    """Fixes the number of threads of an operation, on which the last bits of a sum depend.

    Args:
      intra_op: 0 leaves TensorFlow's default, the number of cores.
    """
    if tf.config.threading.get_intra_op_parallelism_threads() != intra_op:
        tf.config.threading.set_intra_op_parallelism_threads(intra_op)


def distribute(strategy: tf.distribute.Strategy,
               dataset: tf.data.Dataset) -> tf.distribute.DistributedDataset:
    """Splits each global batch over the strategy's replicas, in order.

    Args:
      strategy: of `make_strategy`.
      dataset: of global batches; on several hosts of this worker's rows of each, as
        `training_clips` gives them with `share=workers.share(strategy)`.

    Raises:
      UserError: if the batch cannot be split evenly.
    """
    _, hosts = workers.share(strategy)
    rows = dataset.element_spec["key"].shape[0]
    replicas = strategy.num_replicas_in_sync // hosts  # of this host
    if rows is not None and rows % replicas:
        raise UserError(f"a batch_size of {rows * hosts} cannot be split evenly over "
                        f"{strategy.num_replicas_in_sync} devices")
    on_cpu = not tf.config.list_logical_devices("GPU")
    if hosts == 1 and not (replicas == 1 and on_cpu):
        return strategy.experimental_distribute_dataset(dataset)
    if on_cpu:
        # Autotuning, whose thread sleeps for up to a minute, would hold up the end of every
        # training until it wakes.
        plain = tf.data.Options()
        plain.autotune.enabled = False
        dataset = dataset.with_options(plain)
    if hosts > 1:
        # Replica after replica takes an element.
        return strategy.distribute_datasets_from_function(
            lambda _: dataset if replicas == 1 else _split(dataset, replicas))
    # One CPU needs no copies to devices.
    return strategy.distribute_datasets_from_function(
        lambda _: dataset, tf.distribute.InputOptions(
            experimental_replication_mode=tf.distribute.InputReplicationMode.PER_REPLICA,
            experimental_fetch_to_device=False))


def _split(dataset: tf.data.Dataset, parts: int) -> tf.data.Dataset:
    """Cuts every batch, of known shape, into so many smaller ones, in order."""
    def cut(batch: Mapping[str, tf.Tensor]) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices({
            name: tf.reshape(x, [parts, x.shape[0] // parts, *x.shape[1:]])
            for name, x in batch.items()})

    return dataset.flat_map(tf.autograph.experimental.do_not_convert(cut)).prefetch(parts)
