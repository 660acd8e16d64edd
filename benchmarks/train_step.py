"""The supervised step of R(2+1)D-18 beside PyTorch's and Model Garden's, and beside the limit.

    python -m benchmarks.train_step --peer_python=/path/to/python

Batches of 4 x 16 x 112 x 112, batch normalisation in training mode, SGD with momentum, 400 classes;
in float32 and in mixed precision (bfloat16). In each round, one after the other:

  matmul          products of 4096 x 4096 matrices of the same type, the machine's limit
  ours            elo_tf.models.video_resnet
  PyTorch         torchvision's r2plus1d_18, in PyTorch's default layout of memory and in
                  channels_last_3d; --peer_python is an environment with torch and torchvision
  Model Garden    its ResNet3D-101 with all frames kept, which has nearly our FLOPs (it has no 18)

and prints medians of the rounds. FLOPs are of convolutions and products alone, two a multiply-add:
from the graphs of the two in TensorFlow, from PyTorch's own counter there. The networks differ a
little in them, so speeds are compared at equal FLOPs: as ratios of FLOP/s, within a round. (The
limit is not strict: in bfloat16 oneDNN's convolutions can run faster than its products.)
"""

import json
import pathlib
import statistics
import subprocess
import time

import elo_tf  # noqa: F401  (first, so that TensorFlow starts quietly)

# isort: split

import tensorflow as tf
from absl import flags
from official.vision.modeling.backbones import resnet_3d

from benchmarks import machine
from elo_tf import cli
from elo_tf.errors import UserError
from elo_tf.models.video_resnet import video_encoder
from elo_tf.training.costs import count_costs

PEER_PYTHON = flags.DEFINE_string(
    "peer_python", None, "A Python with torch and torchvision; without it PyTorch is left out.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "How often all are run in turn.", lower_bound=1)
PRECISIONS = flags.DEFINE_multi_enum(
    "precision", ["float32", "bfloat16"], ["float32", "bfloat16"], "What to measure.")

BATCH, FRAMES, SIZE, CLASSES = 4, 16, 112, 400
# Kernels over time of every other unit, as Model Garden's own configurations have them.
GARDEN_UNITS = (3, 4, 23, 3)
GARDEN_KERNELS = [tuple(3 if i % 2 == 0 else 1 for i in range(n)) for n in GARDEN_UNITS]


class InTensorFlow:
    """A backbone with a classifier, trained in this process."""

    def __init__(self, build, precision: str):
        policy = tf.keras.mixed_precision.global_policy()
        tf.keras.mixed_precision.set_global_policy(
            "mixed_bfloat16" if precision == "bfloat16" else precision)
        try:
            self._step = self._make_step(build())
        finally:
            tf.keras.mixed_precision.set_global_policy(policy)
        self._batch = (tf.random.stateless_normal([BATCH, FRAMES, SIZE, SIZE, 3], [1, 2]),
                       tf.range(BATCH))
        self.flops = count_costs(self._step.get_concrete_function(*self._batch)).flops
        for _ in range(2):
            self.seconds()

    @staticmethod
    def _make_step(network: tf.keras.Model):
        head = tf.keras.layers.Dense(CLASSES, dtype="float32")
        head.build(network.output_shape)
        variables = network.trainable_variables + head.trainable_variables
        optimizer = tf.keras.optimizers.legacy.SGD(0.01, momentum=0.9)
        optimizer._create_all_weights(variables)

        @tf.function
        def step(frames, labels):
            with tf.GradientTape() as tape:
                logits = head(tf.cast(network(frames, training=True), tf.float32))
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels, logits))
            gradients = tape.gradient(loss, variables)
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return loss

        return step

    def seconds(self) -> float:
        """Runs one step."""
        started = time.perf_counter()
        self._step(*self._batch).numpy()
        return time.perf_counter() - started


def ours() -> tf.keras.Model:
    """From clips to the embedding."""
    encoder = video_encoder(3)
    return tf.keras.Model(encoder.input, encoder.output["embedding"])


def model_garden() -> tf.keras.Model:
    """From clips to the mean of the last block."""
    backbone = resnet_3d.ResNet3D(
        101, [1, 1, 1, 1], GARDEN_KERNELS, stem_conv_temporal_stride=1, stem_pool_temporal_stride=1,
        input_specs=tf.keras.layers.InputSpec(shape=[None, FRAMES, SIZE, SIZE, 3]))
    pooled = tf.keras.layers.GlobalAveragePooling3D(dtype="float32")(backbone.output["5"])
    return tf.keras.Model(backbone.input, pooled)


class InPyTorch:
    """A process of the other environment, which stays warm."""

    def __init__(self, python: str):
        script = pathlib.Path(__file__).with_name("peer_torch.py")
        try:
            self._process = subprocess.Popen([python, str(script)], stdin=subprocess.PIPE,
                                             stdout=subprocess.PIPE, text=True)
        except OSError as error:
            raise UserError(f"--peer_python={python}: {error.strerror}") from error
        self.about = self._answer()

    def step(self, precision: str, channels_last: bool) -> tuple[float, int]:
        """Seconds and FLOPs of one step; the first of a kind builds and warms it up before."""
        request = {"precision": precision, "channels_last": channels_last}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return answer["seconds"], answer["flops"]

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise UserError("the process of --peer_python ended; its message is above")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def measure(precision: str, torch: InPyTorch | None) -> None:
    """Runs everything in turn in one precision, and prints the table."""
    trained = {"ours": InTensorFlow(ours, precision),
               "Model Garden": InTensorFlow(model_garden, precision)}
    steps = {name: (lambda one=one: (one.seconds(), one.flops)) for name, one in trained.items()}
    if torch is not None:
        for name, last in (("PyTorch", False), ("PyTorch, channels_last", True)):
            steps[name] = lambda last=last: torch.step(precision, last)
            steps[name]()
    seconds, rates, limits, flops = {n: [] for n in steps}, {n: [] for n in steps}, [], {}
    for _ in cli.progress(range(ROUNDS.value), desc=precision, unit="round"):
        limits.append(machine.matmul_rate(tf.dtypes.as_dtype(precision)))
        for name, step in steps.items():
            elapsed, flops[name] = step()
            seconds[name].append(elapsed)
            rates[name].append(flops[name] / elapsed)
    limit = statistics.median(limits)
    print(f"\n{precision}: median of {ROUNDS.value} rounds (lowest, highest); matmul "
          f"{limit / 1e9:.0f} ({min(limits) / 1e9:.0f}, {max(limits) / 1e9:.0f}) GFLOP/s")
    print(f"  {'':24}{'GFLOP':>7}{'s a step':>10}{'':17}{'GFLOP/s':>8}{'of matmul':>11}"
          f"{'ours is, at equal FLOPs':>26}")
    for name, values in seconds.items():
        rate = statistics.median(rates[name])
        spread = f"({min(values):.2f}, {max(values):.2f})"
        ratios = [a / b for a, b in zip(rates["ours"], rates[name], strict=True)]
        faster = "" if name == "ours" else f"{statistics.median(ratios):.2f} times as fast"
        print(f"  {name:24}{flops[name] / 1e9:7.0f}{statistics.median(values):10.2f} {spread:16}"
              f"{rate / 1e9:8.0f}{rate / limit:11.0%}{faster:>26}", flush=True)


def main(argv):
    """Measures."""
    del argv
    torch = InPyTorch(PEER_PYTHON.value) if PEER_PYTHON.value else None
    print(f"{machine.describe()}; TensorFlow {tf.__version__}; "
          + (f"PyTorch {torch.about['torch']}, {torch.about['threads']} threads" if torch
             else "PyTorch left out: give --peer_python"))
    try:
        for precision in dict.fromkeys(PRECISIONS.value):
            measure(precision, torch)
    finally:
        if torch is not None:
            torch.close()


if __name__ == "__main__":
    cli.run(main)
