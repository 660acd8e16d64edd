"""What the server keeps of the model's own speed, in batches of 1 to 16 clips, JPEG and raw.

    python -m benchmarks.serve --work=/tmp/serve_benchmark

The model is an untrained (2+1)D ResNet, exported by bin/export's code. A clip is 16 frames: JPEG
files of 320 x 240 in TensorFlow Serving's JSON (base64), or raw frames of 112 x 112 in the binary
form of Open Inference. In each round, one after the other:

  limit    the SavedModel's signature called in this process, with batches that are there already
  server   bin/serve with --max_batch_size of that batch, under twice as many clients in threads of
           this process; each sends one clip at a time over a connection that it keeps

on as many clips each. The table has medians of the rounds; the ratio is that of clips a second
within a round. CPU: processor time of a clip, of the limit over the server's (without the clients,
who share the machine): what the ratio would be where only processor time counted, less disturbed
by other work on the machine.
"""

import base64
import concurrent.futures
import contextlib
import dataclasses
import http.client
import io
import itertools
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import elo_tf  # noqa: F401  (first, so that TensorFlow starts quietly)

# isort: split

import numpy as np
import PIL.Image
import psutil
import tensorflow as tf
from absl import flags

from benchmarks import machine
from elo_tf import cli
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.models.video_resnet import video_encoder
from elo_tf.serving.export import export_encoder
from elo_tf.training import encoder_files

WORK = flags.DEFINE_string("work", None, "Folder for the model and the server's log.",
                           required=True)
DEPTH = flags.DEFINE_integer("depth", 18, "Layers of the network.")
WIDTH = flags.DEFINE_float("width", 0.25, "Its width.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "How often both are run in turn.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 3.0, "Of a run, about; at least three batches.")
BATCHES = flags.DEFINE_multi_integer("batch", [1, 2, 4, 8, 16], "What to measure.")

FRAMES, SIZE, HEIGHT, WIDE = 16, 112, 240, 320
LEAST = 3
CLIPS = 8  # different ones


@dataclasses.dataclass(frozen=True)
class Kind:
    """How clips are given.

    Attributes:
      name: in the table.
      signature: of the model.
      clips: as the signature takes them, without the batch.
      path: of requests.
      headers: of requests.
      bodies: of requests of one clip each.
    """

    name: str
    signature: str
    clips: list
    path: str
    headers: dict[str, str]
    bodies: list[bytes]


@dataclasses.dataclass
class Run:
    """What one side did in one round: clips a second, processor seconds of a clip, latencies."""

    rate: float
    cpu: float
    seconds: list[float]


def make_model(folder: pathlib.Path) -> pathlib.Path:
    """Exports the model, if it is not there."""
    served = folder / f"resnet{DEPTH.value}_{WIDTH.value:g}" / "elo"
    if not served.exists():
        encoder_dir = served.parent / "encoder"
        tf.keras.utils.set_random_seed(1)
        encoder_files.save_encoder(video_encoder(3, depth=DEPTH.value, width=WIDTH.value),
                                   encoder_dir)
        encoder_files.save_clip(ClipSpec(frames=FRAMES, size=SIZE), encoder_dir, "")
        export_encoder(encoder_dir, served)
    return served


def make_kinds() -> list[Kind]:
    """Clips of smooth colours that move, and their requests."""
    draw = np.random.Generator(np.random.PCG64(1))
    files, raw = [], []
    for _ in range(CLIPS):
        small = draw.integers(0, 256, [HEIGHT // 10, WIDE // 10, 3], np.uint8)
        frames = [np.asarray(PIL.Image.fromarray(np.roll(small, t, axis=1)).resize((WIDE, HEIGHT)))
                  for t in range(FRAMES)]
        files.append(np.array([jpeg(x) for x in frames], object))
        raw.append(np.stack([x[:SIZE, :SIZE] for x in frames]))
    as_json = [json.dumps({"signature_name": "embed_jpeg", "instances": [
        [{"b64": base64.b64encode(x).decode()} for x in clip]]}).encode() for clip in files]
    head = json.dumps({"parameters": {"signature_name": "embed"}, "inputs": [
        {"name": "frames", "datatype": "UINT8", "shape": [1, FRAMES, SIZE, SIZE, 3],
         "parameters": {"binary_data_size": raw[0].nbytes}}]}).encode()
    return [Kind("JPEG", "embed_jpeg", files, "/v1/models/elo:predict", {}, as_json),
            Kind("raw", "embed", raw, "/v2/models/elo/infer",
                 {"Inference-Header-Content-Length": str(len(head))},
                 [head + x.tobytes() for x in raw])]


def jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "JPEG", quality=90)
    return file.getvalue()


@contextlib.contextmanager
def server(model_dir: pathlib.Path, batch: int) -> Iterator[tuple[int, psutil.Process]]:
    """A server's port and process."""
    path = model_dir.parent / f"serve_{batch}.log"
    with open(path, "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "elo_tf.bin.serve", f"--model_dir={model_dir}", "--port=0",
             f"--max_batch_size={batch}"], stdout=log, stderr=log)
    try:
        while not (found := re.search(r":(\d+): elo, .* is ready", path.read_text())):
            if process.poll() is not None:
                raise RuntimeError(path.read_text())
            time.sleep(0.1)
        yield int(found[1]), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def limit(call: Callable, batches: list[tf.Tensor], calls: int) -> Run:
    """The model alone."""
    seconds = []
    started, cpu = time.perf_counter(), time.process_time()
    for batch in itertools.islice(itertools.cycle(batches), calls):
        before = time.perf_counter()
        call(frames=batch)["embedding"].numpy()
        seconds.append(time.perf_counter() - before)
    clips = calls * batches[0].shape[0]
    return Run(clips / (time.perf_counter() - started), (time.process_time() - cpu) / clips,
               seconds)


def served(kind: Kind, port: int, process: psutil.Process, clients: int, clips: int) -> Run:
    """The same number of clips through the server."""
    bodies = itertools.islice(itertools.cycle(kind.bodies), clips)

    def client(_: int) -> list[float]:
        seconds = []
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        # Drawing from an iterator that all share needs no lock: it is one step of the interpreter.
        for body in bodies:
            before = time.perf_counter()
            connection.request("POST", kind.path, body, kind.headers)
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                raise RuntimeError(content.decode())
            seconds.append(time.perf_counter() - before)
        connection.close()
        return seconds

    started, cpu = time.perf_counter(), sum(process.cpu_times()[:2])
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        seconds = list(itertools.chain.from_iterable(pool.map(client, range(clients))))
    wall = time.perf_counter() - started
    return Run(clips / wall, (sum(process.cpu_times()[:2]) - cpu) / clips, seconds)


def line(batch: int, bare: list[Run], through: list[Run]) -> str:
    """A row of the table."""
    def columns(runs: list[Run]) -> str:
        seconds = [x for run in runs for x in run.seconds]
        middle, high = 1000 * np.percentile(seconds, [50, 99])
        return f"{statistics.median(x.rate for x in runs):8.2f} {middle:7.0f} {high:7.0f}"

    def ratio(name: str, turned: bool = False) -> float:
        return statistics.median(
            (getattr(a, name) / getattr(b, name)) ** (-1 if turned else 1)
            for a, b in zip(through, bare, strict=True))

    return (f"{batch:5} {columns(bare)}   {columns(through)}   {ratio('rate'):5.2f} "
            f"{ratio('cpu', turned=True):5.2f}")


def main(argv):
    """Measures."""
    del argv
    served_dir = make_model(pathlib.Path(WORK.value))
    model = tf.saved_model.load(str(served_dir / "1"))
    kinds = make_kinds()
    rows = {kind.name: [] for kind in kinds}
    steps = cli.progress(total=len(BATCHES.value) * len(kinds) * ROUNDS.value, desc="measuring",
                         unit="round")
    for batch in BATCHES.value:
        with server(served_dir, batch) as (port, process):
            for kind in kinds:
                call = model.signatures[kind.signature]
                batches = [tf.constant(np.stack([kind.clips[(i + j) % CLIPS]
                                                 for j in range(batch)])) for i in range(2)]
                limit(call, batches, 1)
                once = limit(call, batches, 1).seconds[0]
                calls = max(LEAST, round(SECONDS.value / once))
                served(kind, port, process, 2 * batch, 2 * batch)
                bare, through = [], []
                for _ in range(ROUNDS.value):
                    bare.append(limit(call, batches, calls))
                    through.append(served(kind, port, process, 2 * batch, calls * batch))
                    steps.update()
                rows[kind.name].append(line(batch, bare, through))
    steps.close()
    load = os.getloadavg()[1]
    print(f"(2+1)D ResNet-{DEPTH.value} of width {WIDTH.value:g}, clips of {FRAMES} x {SIZE} x "
          f"{SIZE}; {machine.describe()}, which had {load:.1f} processes to run on average\n")
    for kind in kinds:
        size = statistics.mean(map(len, kind.bodies)) / 1000
        print(f"{kind.name} clips, requests of {size:.0f} kB to {kind.path}\n"
              "            limit, a call            server, a request       server/limit\n"
              "batch  clips/s  p50 ms  p99 ms    clips/s  p50 ms  p99 ms    rate   CPU\n"
              + "\n".join(rows[kind.name]) + "\n")


if __name__ == "__main__":
    cli.run(main)
