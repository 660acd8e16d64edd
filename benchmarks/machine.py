"""What the machine can do, and what it did: the rate of matrix products, and a profile."""

import collections
import os
import pathlib
import platform
import re
import tempfile
import time

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

SIZE = 4096
REPEATS = 3


def describe() -> str:
    """The processor, and the number of cores that may be used."""
    model = platform.processor() or "unknown processor"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    gpus = tf.config.list_physical_devices("GPU")
    return f"{len(gpus)} GPU(s)" if gpus else f"{len(os.sched_getaffinity(0))} cores of {model}"


@tf.function
def _product(matrix: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matmul(matrix, matrix)


def matmul_rate(dtype: tf.DType = tf.float32) -> float:
    """FLOP/s of products of 4096 x 4096 matrices."""
    matrix = tf.cast(tf.random.stateless_normal([SIZE, SIZE], [1, 2]), dtype)
    _fetch(_product(matrix))
    started = time.perf_counter()
    for _ in range(REPEATS):
        product = _product(matrix)
    _fetch(product)
    return REPEATS * 2 * SIZE ** 3 / (time.perf_counter() - started)


def _fetch(matrix: tf.Tensor) -> None:
    tf.cast(matrix[0, 0], tf.float32).numpy()


def profile(call, most: int = 20) -> str:
    """Runs a call under TensorFlow's profiler; a table of time by kind of operation.

    Operations run at the same time on several threads: their times add up to more than the wall's.
    """
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        started = time.perf_counter()
        call()
        wall = time.perf_counter() - started
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        path, = pathlib.Path(folder).rglob("*.xplane.pb")
        space.ParseFromString(path.read_bytes())
    seconds, counts = collections.Counter(), collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                # An operation's event is called "name:Type".
                name = plane.event_metadata[event.metadata_id].name
                if kind := re.fullmatch(r"[^:]+:(_?[A-Z]\w+)", name):
                    seconds[kind[1]] += event.duration_ps / 1e12
                    counts[kind[1]] += 1
    total = sum(seconds.values())
    rows = [f"a step under the profiler: {wall:.2f} s of wall time, {total:.2f} s of operations",
            f"{'operation':36} {'count':>6} {'s':>8} {'share':>6}"]
    for kind, value in seconds.most_common(most):
        rows.append(f"{kind:36} {counts[kind]:6} {value:8.3f} {value / total:6.1%}")
    return "\n".join(rows)
