"""The server, as a process of its own, on a small exported model."""

import concurrent.futures
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import tensorflow as tf

from tests.docs import reading
from tests.serving import servers
from tests.serving.servers import V1, V2, b64, v1_jpeg, v2_binary, v2_jpeg, v2_raw

FLAGS = ("--max_body_mb=1", "--max_clips=8", "--max_queue=16", "--max_batch_size=4",
         "--batch_timeout_ms=20")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return servers.export_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(model_dir, tmp_path_factory):
    running = servers.Server(model_dir, tmp_path_factory.mktemp("log") / "log.txt", *FLAGS)
    try:
        running.wait()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def direct(model_dir):
    """Calls a signature of the SavedModel without a server."""
    model = tf.saved_model.load(str(model_dir / "1"))

    def call(signature, frames):
        outputs = model.signatures[signature](frames=tf.constant(frames))
        return {name: x.numpy() for name, x in outputs.items()}

    return call


@pytest.fixture(scope="module")
def clips():
    draw = np.random.Generator(np.random.PCG64(3))
    return [servers.jpeg_clip(draw, 5, 30, 40) for _ in range(3)]


@pytest.fixture(scope="module")
def frames():
    return np.random.Generator(np.random.PCG64(4)).integers(0, 256, [3, 4, 9, 11, 3], np.uint8)


def heavy(clip_count=8):
    """A request that takes a while, though it is small: large pictures of one colour."""
    picture = np.broadcast_to(np.uint8([200, 100, 50]), [1400, 1400, 3])
    return v1_jpeg([[servers.jpeg(picture, optimize=True)] * 4] * clip_count)


def test_tensorflow_servings_protocol_equals_direct_calls(server, direct, clips, frames):
    status, answer = server.post(V1, v1_jpeg(clips))
    assert status == 200, answer
    np.testing.assert_allclose(answer["predictions"], direct("embed_jpeg", clips)["embedding"],
                               atol=1e-5)
    # The default signature; the value alone where there is one input.
    expected = direct("serving_default", frames)["embedding"]
    for instances in (frames.tolist(), [{"frames": x} for x in frames.tolist()]):
        status, answer = server.post(V1, {"instances": instances})
        assert status == 200, answer
        np.testing.assert_allclose(answer["predictions"], expected, atol=1e-5)
    assert np.ptp(expected) > 0.01


def test_classes_have_names_and_probabilities(server, direct, clips):
    status, answer = server.post("/v1/models/elo/versions/1:predict",
                                 v1_jpeg(clips, "classify_jpeg"))
    assert status == 200, answer
    expected = direct("classify_jpeg", clips)["probabilities"]
    for row, probabilities in zip(answer["predictions"], expected, strict=True):
        assert row["labels"] == list(servers.CLASSES)
        np.testing.assert_allclose(row["probabilities"], probabilities, atol=1e-5)


def test_instances_may_differ_in_frames_and_size(server, direct):
    draw = np.random.Generator(np.random.PCG64(5))
    clips = [servers.jpeg_clip(draw, t, h, w) for t, h, w in ((1, 20, 30), (6, 33, 17), (2, 8, 8))]
    status, answer = server.post(V1, v1_jpeg(clips))
    assert status == 200, answer
    for clip, embedding in zip(clips, answer["predictions"], strict=True):
        np.testing.assert_allclose(embedding, direct("embed_jpeg", [clip])["embedding"][0],
                                   atol=1e-5)


def test_open_inference_equals_direct_calls(server, direct, clips, frames):
    raw, files = direct("embed", frames)["embedding"], direct("embed_jpeg", clips)["embedding"]
    nested = v2_raw(frames)
    nested["inputs"][0]["data"] = frames.tolist()
    for document, expected in ((v2_raw(frames), raw), (nested, raw), (v2_jpeg(clips), files)):
        status, answer = server.post(V2, document)
        assert status == 200, answer
        assert answer["model_name"] == "elo" and answer["model_version"] == "1"
        assert answer["id"] == document.get("id", "")
        output, = answer["outputs"]
        assert (output["name"], output["datatype"]) == ("embedding", "FP32")
        np.testing.assert_allclose(np.reshape(output["data"], output["shape"]), expected,
                                   atol=1e-5)


def test_open_inferences_binary_form(server, direct, clips, frames):
    for value, signature in ((frames, "embed"), (clips, "embed_jpeg")):
        body, headers = v2_binary(value, signature=signature)
        status, got, content = server.request("POST", V2, body, headers)
        assert status == 200, content
        length = int(got[servers.BINARY.lower()])
        output, = json.loads(content[:length])["outputs"]
        embedding = np.frombuffer(content[length:], "<f4").reshape(output["shape"])
        np.testing.assert_allclose(embedding, direct(signature, value)["embedding"], atol=1e-5)
    document = v2_jpeg(clips)
    document["parameters"]["signature_name"] = "classify_jpeg"
    document["outputs"] = [{"name": "labels"}]
    status, answer = server.post(V2, document)
    assert status == 200, answer
    output, = answer["outputs"]
    assert output["data"] == list(servers.CLASSES) * 3 and output["datatype"] == "BYTES"


def test_status_metadata_and_health(server):
    assert server.get("/v2/health/live") == (200, {"live": True})
    assert server.get("/v2/health/ready") == (200, {"ready": True})
    assert server.get("/v2/models/elo/ready") == (200, {"name": "elo", "ready": True})
    assert server.get("/v1/models") == server.get("/v2/models") == (200, {"models": ["elo"]})
    assert server.get("/v2")[1]["extensions"] == ["binary_tensor_data"]
    for path in ("/v1/models/elo", "/v1/models/elo/versions/1"):
        state, = server.get(path)[1]["model_version_status"]
        assert (state["version"], state["state"]) == ("1", "AVAILABLE")
    described = server.get("/v1/models/elo/metadata")[1]["metadata"]["signature_def"]
    frames = described["signature_def"]["embed"]["inputs"]["frames"]
    assert frames["dtype"] == "DT_UINT8"
    assert [x["size"] for x in frames["tensor_shape"]["dim"]] == ["-1"] * 4 + ["3"]
    described = server.get("/v2/models/elo/versions/1")[1]
    assert described["inputs"] == [
        {"name": "frames", "datatype": "UINT8", "shape": [-1, -1, -1, -1, 3]}]
    assert described["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 5]}]
    outputs = described["signatures"]["classify"]["outputs"]
    assert sorted(outputs, key=lambda x: x["name"]) == [
        {"name": name, "datatype": datatype, "shape": [-1, 3]}
        for name, datatype in (("labels", "BYTES"), ("probabilities", "FP32"))]


def test_what_the_documentation_sends(server, direct, clips, tmp_path, monkeypatch):
    blocks = [x for x in reading.blocks(servers.ROOT / "docs" / "serving.md") if x.run_by]
    assert [x.language for x in blocks] == ["shell", "python", "python"]
    (tmp_path / "frames").mkdir()
    for number, content in enumerate(clips[0]):
        (tmp_path / "frames" / f"{number}.jpg").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    texts = [x.text.replace("localhost:8080", f"127.0.0.1:{server.port}") for x in blocks]
    names: dict = {}
    for text in texts[1:]:
        exec(text, names)
    np.testing.assert_allclose(names["embedding"], direct("embed_jpeg", clips[:1])["embedding"][0],
                               atol=1e-5)
    np.testing.assert_allclose(names["embeddings"], direct("embed", names["frames"])["embedding"],
                               atol=1e-5)
    if shutil.which("curl") is None:
        pytest.skip("the commands with curl were not run: there is none")
    status, predicted = (
        json.loads(subprocess.run(["bash", "-c", x.replace("curl", "curl -sS")], check=True,
                                  capture_output=True, timeout=60).stdout)
        for x in texts[0].splitlines())
    assert status["ready"] and np.shape(predicted["predictions"]) == (1, 5)


def changed(document, **changes):
    """A request whose first input is another."""
    return {**document, "inputs": [{**document["inputs"][0], **changes}]}


def bomb(clip):
    """A JPEG file whose header says 60000 x 60000."""
    content = bytearray(clip[0])
    place = content.index(b"\xff\xc0")
    content[place + 5:place + 9] = (60000).to_bytes(2, "big") * 2
    return bytes(content)


def wrong_requests():
    """Path, body, status, and what the sentence says."""
    draw = np.random.Generator(np.random.PCG64(6))
    clip = servers.jpeg_clip(draw, 2, 20, 30)
    frames = draw.integers(0, 256, [1, 2, 4, 5, 3], np.uint8)
    v1, raw, files = v1_jpeg([clip]), v2_raw(frames), v2_jpeg([clip])
    long = np.zeros([1, 10_000, 1, 1, 3], np.uint8)

    def one(frame):
        return {"signature_name": "embed_jpeg", "instances": [[frame]]}

    yield "v1 no JSON", V1, b"{", 400, "not JSON"
    yield "v1 no object", V1, [], 400, "not a JSON object"
    yield "v1 no UTF-8", V1, b'{"instances": "\xff"}', 400, "not JSON"
    yield "v1 nested", V1, b"[" * 50_000, 400, "not JSON"
    yield "v1 no instances", V1, {}, 400, "instances, a list"
    yield "v1 columnar", V1, {"inputs": frames.tolist()}, 400, "columnar"
    yield "v1 unknown key", V1, {**v1, "signature": "embed"}, 400, "unknown key 'signature'"
    yield "v1 no clips", V1, {"instances": []}, 400, "no clip"
    yield "v1 many clips", V1, {"instances": [[]] * 9}, 400, "9 clips"
    yield "v1 signature", V1, {**v1, "signature_name": "x"}, 400, "no signature 'x'"
    yield "v1 signature's type", V1, {**v1, "signature_name": [1]}, 400, "no signature"
    yield "v1 input", V1, {"instances": [{"video": []}]}, 400, "no input 'video'"
    yield "v1 missing", V1, {"instances": [{}]}, 400, "frames is missing"
    yield "v1 no frames", V1, {"instances": [[]]}, 400, "at least one frame"
    yield "v1 no pixels", V1, {"instances": [[[]]]}, 400, "frames are nested lists"
    yield "v1 10,000 frames", V1, {"instances": long.tolist()}, 400, "10000 frames"
    yield "v1 10,000 files", V1, one(0) | {"instances": [[{"b64": ""}] * 10_000]}, 400, "10000"
    yield "v1 256", V1, {"instances": [[[[[256, 0, 0]]]]]}, 400, "from 0 to 255"
    yield "v1 float", V1, {"instances": [[[[[1.5, 0, 0]]]]]}, 400, "from 0 to 255"
    yield "v1 string", V1, {"instances": [[[["123"]]]]}, 400, "a pixel is a list"
    yield "v1 channels", V1, {"instances": [[[[[1, 2]]]]]}, 400, "3 numbers"
    yield "v1 ragged", V1, {"instances": [[[[[1, 2, 3]] * 2, [[1, 2, 3]]]]]}, 400, "rows"
    yield "v1 sizes", V1, {"instances": [[[[[1, 2, 3]]], [[[1, 2, 3]] * 2]]]}, 400, "differ"
    yield "v1 base64", V1, one({"b64": "%%%"}), 400, "not base64"
    yield "v1 padding", V1, one({"b64": "/9j/4AA"}), 400, "not base64"
    yield "v1 base64's type", V1, one({"b64": 5}), 400, "base64 is a string"
    yield "v1 plain string", V1, one("text"), 400, '{"b64": "..."}'
    yield "v1 PNG", V1, one({"b64": b64(b"\x89PNG\r\n\x1a\n" + bytes(50))}), 400, "not a JPEG"
    yield "v1 empty file", V1, one({"b64": ""}), 400, "not a JPEG"
    yield "v1 header alone", V1, one({"b64": b64(clip[0][:30])}), 400, "no header"
    yield "v1 cut off", V1, one({"b64": b64(clip[0][:-60])}), 400, "refuses this clip"
    yield "v1 bomb", V1, one({"b64": b64(bomb(clip))}), 400, "60000 x 60000"
    yield "v1 model", "/v1/models/other:predict", v1, 404, "no model 'other'"
    yield "v1 version", "/v1/models/elo/versions/9:predict", v1, 404, "no version '9'"
    yield "v1 verb", "/v1/models/elo:explain", v1, 405, "Not Allowed"
    yield "v2 model", "/v2/models/other/infer", raw, 404, "no model"
    yield "v2 unload", "/v2/repository/models/elo/unload", {}, 404, "Not Found"
    yield "v2 no inputs", V2, {}, 400, "inputs, a list"
    yield "v2 inputs", V2, {"inputs": [3]}, 400, "object with a name"
    yield "v2 id", V2, {**raw, "id": 3}, 400, "id is a string"
    yield "v2 parameters", V2, {**raw, "parameters": 3}, 400, "parameters is an object"
    yield "v2 twice", V2, {**raw, "inputs": raw["inputs"] * 2}, 400, "given twice"
    yield "v2 name", V2, changed(raw, name="video"), 400, "no input 'video'"
    yield "v2 type", V2, changed(raw, datatype="FP32"), 400, "UINT8, not 'FP32'"
    yield "v2 rank", V2, changed(raw, shape=[1, 2, 4, 5]), 400, "has shape"
    yield "v2 channels", V2, changed(raw, shape=[1, 2, 4, 15, 1]), 400, "has shape"
    yield "v2 negative", V2, changed(raw, shape=[-1, 2, 4, 5, 3]), 400, "has shape"
    yield "v2 overflow", V2, changed(raw, shape=[1, 2, 2**40, 2**40, 3]), 400, "pixels"
    yield "v2 count", V2, changed(raw, shape=[1, 2, 4, 6, 3]), 400, "144 elements, not 120"
    yield "v2 numbers", V2, changed(raw, data=["1"] * 120), 400, "whole numbers"
    yield "v2 10,000 frames", V2, changed(raw, shape=list(long.shape), data=[]), 400, "10000"
    yield "v2 no base64", V2, changed(files, parameters={}), 400, "content_type"
    yield "v2 no data", V2, changed(raw, data=None), 400, "no list data"
    yield "v2 output", V2, {**raw, "outputs": [{"name": "x"}]}, 400, "no output 'x'"
    yield "v2 binary size", V2, changed(raw, parameters={"binary_data_size": 5}), 400, "of 0 bytes"
    yield "path", "/nothing", {}, 404, "Not Found"


@pytest.mark.parametrize(("path", "document", "status", "says"), [
    pytest.param(*x[1:], id=x[0]) for x in wrong_requests()])
def test_wrong_requests_are_refused_with_a_sentence(server, path, document, status, says):
    got, answer = server.post(path, document)
    assert (got, list(answer)) == (status, ["error"]), answer
    assert says in answer["error"]
    assert len(answer["error"]) < 400


def test_wrong_heads_are_refused(server, frames):
    body, headers = v2_binary(frames, signature="embed")
    for length in ("x", "99999999", str(int(headers[servers.BINARY]) - 3)):
        status, answer = server.post(V2, body, {servers.BINARY: length})
        assert status == 400 and "error" in answer
    status, answer = server.post(V2, body + b"more", headers)
    assert status == 400 and "4 bytes follow" in answer["error"]
    status, answer = server.post(V1, b"x", {"Content-Encoding": "gzip"})
    assert status == 415 and "compressed" in answer["error"]
    # Any type of content will do, as with TensorFlow Serving.
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        assert server.post(V1, {"instances": frames.tolist()}, {"Content-Type": kind})[0] == 200


def test_a_body_that_is_too_long_is_refused_before_all_of_it_is_read(server):
    status, answer = server.post(V1, b"x" * (2**20 + 2**18))
    assert status == 413 and "longer than 1048576 bytes" in answer["error"]
    head = f"POST {V1} HTTP/1.1\r\nHost: x\r\n"
    for announced in ("Content-Length: 99999999999\r\n\r\n",
                      "Content-Length: 1500000\r\nExpect: 100-continue\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            connection.sendall((head + announced).encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 413")
    # Without a length: the server hangs up long before 200 MB.
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall((head + "Transfer-Encoding: chunked\r\n\r\n").encode())
        chunk = b"%x\r\n%s\r\n" % (2**16, bytes(2**16))
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 200 * 2**20:
                connection.sendall(chunk)
                sent += 2**16
    assert sent < 50 * 2**20
    assert server.metric("elo_held_bytes") == 0


def test_what_is_no_http_or_ends_early_does_no_harm(server):
    for content in (b"\x16\x03\x01\x02\x00", b"POST\r\n\r\n", b"GET / HTTP/9\r\n\r\n",
                    b"GET / HTTP/1.1\r\nA: " + b"b" * 200_000,
                    f"POST {V1} HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhalf".encode(),
                    f"POST {V1} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
                    .encode()):
        with (socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection,
              contextlib.suppress(ConnectionError)):
            connection.sendall(content)
            with contextlib.suppress(OSError):  # It may have hung up already.
                connection.shutdown(socket.SHUT_WR)
            assert b" 200 " not in connection.recv(100)
    assert server.get("/v2/health/ready")[0] == 200


def test_only_loopback_is_listened_on_and_no_grpc(server):
    listening = [x for x in psutil.Process(server.process.pid).connections("inet")
                 if x.status == psutil.CONN_LISTEN]
    assert [(x.laddr.ip, x.laddr.port) for x in listening] == [("127.0.0.1", server.port)]
    # A server on all addresses would take this one too.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.port), timeout=10)


def test_a_port_that_is_taken_is_a_user_error(server, model_dir):
    done = subprocess.run(
        [sys.executable, "-m", "elo_tf.bin.serve", f"--model_dir={model_dir}",
         f"--port={server.port}"], cwd=servers.ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot listen on 127.0.0.1, port {server.port}")
    assert "Traceback" not in done.stderr


def test_a_full_queue_says_when_to_try_again(server):
    body = json.dumps(heavy()).encode()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.request("POST", V1, body), range(8)))
    statuses = [x[0] for x in answers]
    assert set(statuses) == {200, 503}
    for status, headers, content in answers:
        if status == 503:
            assert headers["retry-after"] == "1" and "try again" in json.loads(content)["error"]


def test_damaged_requests_never_are_a_fault(server, direct):
    fuzzer = servers.Fuzzer(seed=1)
    statuses = []
    for _ in range(200):
        path, body, headers = fuzzer.request()
        status, _, content = server.request("POST", path, body, headers)
        servers.check_answered(status, content)
        statuses.append(status)
    assert statuses.count(400) > 100  # most are damaged for good
    status, answer = server.post(V1, v1_jpeg(fuzzer.clips))
    np.testing.assert_allclose(answer["predictions"],
                               direct("embed_jpeg", fuzzer.clips)["embedding"], atol=1e-5)
    assert server.metric("elo_requests_total", status="500") == 0


def test_parallel_clients_lose_nothing_and_share_calls(server, direct, clips, frames):
    """Bad clips among good ones: each good one is answered, and right."""
    good = [(V1, json.dumps(v1_jpeg([x])).encode(), direct("embed_jpeg", [x])["embedding"])
            for x in clips]
    good += [(V1, json.dumps({"instances": [x.tolist()]}).encode(),
              direct("embed", x[np.newaxis])["embedding"]) for x in frames]
    cut = json.dumps(v1_jpeg([[*clips[0][:4], clips[0][4][:-60]]])).encode()
    before = {name: server.metric(name)
              for name in ("elo_batch_clips_count", "elo_batch_clips_sum")}
    deadline = time.monotonic() + 10

    def client(number):
        draw, answered, refused = np.random.Generator(np.random.PCG64(number)), 0, 0
        while time.monotonic() < deadline:
            if draw.integers(8) == 0:
                status, answer = server.post(V1, cut)
                assert status == 400 and "refuses this clip" in answer["error"]
                refused += 1
                continue
            path, body, expected = good[draw.integers(len(good))]
            status, answer = server.post(path, body)
            assert status == 200, answer
            np.testing.assert_allclose(answer["predictions"], expected, atol=1e-5)
            answered += 1
        return answered, refused

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        counts = np.sum(list(pool.map(client, range(6))), axis=0)
    assert counts.min() > 0
    calls = server.metric("elo_batch_clips_count") - before["elo_batch_clips_count"]
    called = server.metric("elo_batch_clips_sum") - before["elo_batch_clips_sum"]
    assert called == counts[0]
    assert calls < called
    assert server.metric("elo_queue_clips") == 0 and server.metric("elo_held_bytes") == 0


def test_from_start_to_sigterm(model_dir, direct, frames, tmp_path):
    """Ready only when warm; gRPC where it is asked for; open requests are answered at the end."""
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs

    with socket.create_server(("127.0.0.1", 0)) as free:
        grpc_port = free.getsockname()[1]
    server = servers.Server(model_dir, tmp_path / "log.txt", f"--grpc_port={grpc_port}",
                            "--max_batch_size=2")
    try:
        # It listens before it loads the model, which takes seconds.
        while True:
            with contextlib.suppress(ConnectionError):
                assert server.get("/v2/health/live") == (200, {"live": True})
                break
        status, headers, _ = server.request("GET", "/v2/health/ready")
        assert (status, headers["retry-after"]) == (503, "5")
        status, answer = server.post(V1, {"instances": frames.tolist()})
        assert status == 503 and "being loaded" in answer["error"]
        assert server.get("/v1/models/elo")[1]["model_version_status"][0]["state"] == "LOADING"
        server.wait()
        assert "is ready after 5 warm-up requests" in server.log.read_text()

        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            stub = stubs.GRPCInferenceServiceStub(channel)
            tensor = messages.ModelInferRequest.InferInputTensor(
                name="frames", datatype="UINT8", shape=frames.shape)
            request = messages.ModelInferRequest(
                model_name="elo", id="9", inputs=[tensor], raw_input_contents=[frames.tobytes()])
            answer = stub.ModelInfer(request)
            np.testing.assert_allclose(
                np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(3, 5),
                direct("embed", frames)["embedding"], atol=1e-5)
            assert answer.id == "9"
            with pytest.raises(grpc.RpcError, match="elements, not"):
                stub.ModelInfer(messages.ModelInferRequest(
                    model_name="elo", inputs=[tensor], raw_input_contents=[b"xx"]))
            with pytest.raises(grpc.RpcError, match="after a restart"):
                stub.RepositoryModelUnload(messages.RepositoryModelUnloadRequest(model_name="elo"))

        body = json.dumps(heavy()).encode()
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            answers = [pool.submit(server.request, "POST", V1, body) for _ in range(3)]
            while server.metric("elo_queue_clips") < 24:
                assert not any(x.done() for x in answers), "a heavier request is needed"
            server.process.send_signal(signal.SIGTERM)
            embeddings = [json.loads(x.result()[2])["predictions"] for x in answers]
        assert np.ptp(embeddings, axis=(0, 1)).max() < 1e-5 and np.shape(embeddings) == (3, 8, 5)
        assert server.process.wait(60) == 0
        with pytest.raises(ConnectionRefusedError):
            server.get("/")
        assert "every accepted request is answered" in server.log.read_text()
        assert "Traceback" not in server.log.read_text()
    finally:
        server.stop(signal.SIGKILL)
