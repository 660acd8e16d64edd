"""A server process for tests, a model for it, requests, and damaged requests."""

import base64
import dataclasses
import hashlib
import http.client
import io
import json
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import psutil

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
START_SECONDS = 240
CLASSES = ("jump", "rün", "sit")
V1, V2 = "/v1/models/elo:predict", "/v2/models/elo/infer"
BINARY = "Inference-Header-Content-Length"


def export_model(folder: pathlib.Path) -> pathlib.Path:
    """A small encoder with a classifier, exported by the project's own code."""
    import tensorflow as tf

    from elo_tf.data.clip_spec import ClipSpec
    from elo_tf.evaluation import heads
    from elo_tf.serving import export

    encoder = folder / "encoder"
    encoder.mkdir()
    tf.keras.utils.set_random_seed(5)
    inputs = tf.keras.Input([None, None, None, 3])
    block = tf.keras.layers.Conv3D(6, 3, strides=(1, 2, 2), padding="same")(inputs)
    pooled = tf.keras.layers.GlobalAveragePooling3D()(tf.keras.layers.ReLU()(block))
    outputs = {"embedding": tf.keras.layers.Dense(5)(pooled)}
    tf.keras.Model(inputs, outputs).save(encoder / "rgb.keras")
    (encoder / "clip.json").write_text(json.dumps({
        **dataclasses.asdict(ClipSpec(frames=4, size=16)), "mean": 0.45, "scale": 0.225,
        "commit": "abc", "config": "f00d"}))
    draw = np.random.Generator(np.random.PCG64(5))
    facts = heads.HeadFacts(
        kind="linear", encoder=hashlib.sha256((encoder / "rgb.keras").read_bytes()).hexdigest(),
        classes=CLASSES, training_clips=[3] * 3, train_split="train", test_split="test",
        test_clips=6, test_accuracy=0.5, chance=0.3, windows=1, crops=1, seed=0,
        recipe={"layer": "logistic regression", "C": 1.0}, of=[])
    heads.save_head(folder / "head", draw.normal(size=[5, 3]), np.zeros(3), facts)
    export.export_encoder(encoder, folder / "elo", head_dir=folder / "head")
    return folder / "elo"


class Server:
    """A process of bin/serve."""

    def __init__(self, model_dir: pathlib.Path, log: pathlib.Path, *flags: str):
        self.log = log
        with open(log, "w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "elo_tf.bin.serve", f"--model_dir={model_dir}", "--port=0",
                 *flags], cwd=ROOT, stdout=output, stderr=output)
        deadline = time.monotonic() + START_SECONDS
        while (found := re.search(r"http://127\.0\.0\.1:(\d+): loading", log.read_text())) is None:
            assert self.process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        self.port = int(found[1])

    def request(self, method: str, path: str, body=None, headers=None):
        """Status, headers (in lower case) and body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content = response.read()
            return (response.status, {key.lower(): x for key, x in response.getheaders()}, content)
        finally:
            connection.close()

    def get(self, path: str):
        """Status and JSON of the answer."""
        status, _, content = self.request("GET", path)
        return status, json.loads(content)

    def post(self, path: str, document, headers=None):
        """Status and JSON of the answer to JSON, or to a body as it is."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        status, _, content = self.request("POST", path, body, headers)
        return status, json.loads(content)

    def wait(self) -> None:
        """Until it is ready."""
        deadline = time.monotonic() + START_SECONDS
        while self.request("GET", "/v2/health/ready")[0] != 200:
            assert self.process.poll() is None and time.monotonic() < deadline, (
                self.log.read_text())
            time.sleep(0.05)

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples with these labels."""
        text = self.request("GET", "/metrics")[2].decode()
        total = 0.0
        for line in text.splitlines():
            sample = re.fullmatch(re.escape(name) + r"(\{.*\})? (\S+)", line)
            if sample and all(f'{key}="{x}"' in (sample[1] or "") for key, x in labels.items()):
                total += float(sample[2])
        return total

    def memory(self) -> int:
        """Bytes of resident memory."""
        return psutil.Process(self.process.pid).memory_info().rss

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal, if it still runs; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def jpeg(image: np.ndarray, **options) -> bytes:
    """An image uint8 [H, W, 3] as a file."""
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


def jpeg_clip(draw: np.random.Generator, frames: int, height: int, width: int) -> list[bytes]:
    """A clip of smooth colours."""
    small = draw.integers(0, 256, [frames, 4, 5, 3], np.uint8)
    return [jpeg(np.asarray(PIL.Image.fromarray(x).resize((width, height)))) for x in small]


def b64(content: bytes) -> str:
    """base64 of bytes."""
    return base64.b64encode(content).decode()


def v1_jpeg(clips, signature: str = "embed_jpeg") -> dict:
    """A request of TensorFlow Serving's protocol."""
    return {"signature_name": signature,
            "instances": [{"frames": [{"b64": b64(x)} for x in clip]} for clip in clips]}


def v2_raw(frames: np.ndarray) -> dict:
    """A request of the Open Inference protocol, all in JSON."""
    return {"id": "7", "parameters": {"signature_name": "embed"}, "inputs": [
        {"name": "frames", "datatype": "UINT8", "shape": list(frames.shape),
         "data": frames.ravel().tolist()}]}


def v2_jpeg(clips) -> dict:
    """The same of JPEG files, in base64."""
    return {"parameters": {"signature_name": "embed_jpeg"}, "inputs": [
        {"name": "frames", "datatype": "BYTES", "shape": [len(clips), len(clips[0])],
         "parameters": {"content_type": "base64"}, "data": [b64(x) for clip in clips
                                                            for x in clip]}]}


def v2_binary(value, *, signature: str, output: bool = True) -> tuple[bytes, dict]:
    """Body and headers of the binary form, of an array or of clips of files."""
    if isinstance(value, np.ndarray):
        datatype, shape, data = "UINT8", list(value.shape), value.tobytes()
    else:
        datatype, shape = "BYTES", [len(value), len(value[0])]
        data = b"".join(len(x).to_bytes(4, "little") + x for clip in value for x in clip)
    head = json.dumps({
        "parameters": {"signature_name": signature, "binary_data_output": output},
        "inputs": [{"name": "frames", "datatype": datatype, "shape": shape,
                    "parameters": {"binary_data_size": len(data)}}]}).encode()
    return head + data, {BINARY: str(len(head))}


HOSTILE = (None, True, False, -1, 0, 1, 2.5, 256, 2**40, 2**70, "", "x", "frames", "embed_jpeg",
           "/9j/", "\u0000", [], [[]], {}, {"b64": 3}, {"b64": "/9j/"}, [None], ["x"],
           [[[[1, 2, 3]]]], [1] * 300, {"name": "frames"}, "A" * 5000)


class Fuzzer:
    """Damages good requests, the same ways for the same seed."""

    def __init__(self, seed: int):
        self._draw = np.random.Generator(np.random.PCG64(seed))
        draw = self._draw
        self.clips = [jpeg_clip(draw, 3, 24, 32), jpeg_clip(draw, 3, 24, 32)]
        self.frames = draw.integers(0, 256, [2, 2, 5, 6, 3], np.uint8)
        self._good = [
            (V1, json.dumps(v1_jpeg(self.clips)).encode(), {}),
            (V1, json.dumps({"instances": self.frames.tolist()}).encode(), {}),
            (V1, json.dumps(v1_jpeg(self.clips, "classify_jpeg")).encode(), {}),
            (V2, json.dumps(v2_raw(self.frames)).encode(), {}),
            (V2, json.dumps(v2_jpeg(self.clips)).encode(), {}),
            (V2, *v2_binary(self.frames, signature="embed")),
            (V2, *v2_binary(self.clips, signature="embed_jpeg", output=False))]

    def request(self) -> tuple[str, bytes, dict]:
        """Path, body and headers of one damaged request."""
        draw = self._draw
        path, body, headers = self._good[draw.integers(len(self._good))]
        kind = draw.integers(4)
        if kind == 0 and not headers:
            document = json.loads(body)
            for _ in range(draw.integers(1, 3)):
                document = self._replaced(document)
            return path, json.dumps(document).encode(), headers
        if kind == 1 and not headers:
            return path, json.dumps(v1_jpeg([[self._bytes(x) for x in self.clips[0]]])
                                    if path == V1 else
                                    v2_jpeg([[self._bytes(x) for x in self.clips[0]]])
                                    ).encode(), headers
        if kind == 2 and headers:
            length = int(headers[BINARY]) + int(draw.integers(-20, 20))
            return path, body, {BINARY: str(draw.choice([str(length), "", "x", "-1", "9" * 30]))}
        return path, self._bytes(body), headers

    def _bytes(self, content: bytes) -> bytes:
        """Some bytes changed, left out, doubled or cut off."""
        draw, content = self._draw, bytearray(content)
        for _ in range(draw.integers(1, 6)):
            kind, place = draw.integers(4), int(draw.integers(len(content) + 1))
            length = int(draw.integers(1, 40))
            if kind == 0:
                content[place:place + 1] = bytes([draw.integers(256)])
            elif kind == 1:
                del content[place:place + length]
            elif kind == 2:
                content[place:place] = content[place:place + length]
            elif draw.integers(4) == 0:
                del content[place:]
        return bytes(content)

    def _replaced(self, document):
        """A document one of whose parts, drawn at random, is something else."""
        places = [((), document)]
        for path, value in places:
            keys = (value if isinstance(value, dict) else
                    range(min(len(value), 4)) if isinstance(value, list) else ())
            places.extend(((*path, key), value[key]) for key in keys)
        path, _ = places[self._draw.integers(len(places))]
        new = HOSTILE[self._draw.integers(len(HOSTILE))]
        if not path:
            return new
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        if self._draw.integers(5) == 0 and isinstance(holder, dict):
            del holder[path[-1]]
        else:
            holder[path[-1]] = new
        return document


def check_answered(status: int, content: bytes) -> None:
    """Right, or refused with a sentence: never a fault."""
    if status == 200:
        return
    assert 400 <= status < 500, (status, content)
    document = json.loads(content)
    assert list(document) == ["error"] and len(document["error"]) > 10, content
    assert len(content) < 1000, content
