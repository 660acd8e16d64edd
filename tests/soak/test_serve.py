"""Damaged requests, and parallel clients for minutes. Run by `make soak`; see docs/results/soak."""

import collections
import concurrent.futures
import json
import time

import numpy as np
import pytest
import tensorflow as tf

from tests.serving import servers
from tests.serving.servers import V1, V2, v1_jpeg, v2_binary

pytestmark = pytest.mark.soak

DAMAGED = 2000
SECONDS, CLIENTS, SAMPLE_SECONDS = 300, 8, 5
# After a minute the allocator has what it needs; from then on, in five minutes.
GROWTH = 48 * 2**20


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return servers.export_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(model_dir, tmp_path_factory):
    running = servers.Server(model_dir, tmp_path_factory.mktemp("log") / "log.txt")
    try:
        running.wait()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def good(model_dir):
    """Requests of many shapes: path, body, headers, and the right answer [B, D]."""
    model = tf.saved_model.load(str(model_dir / "1"))
    draw = np.random.Generator(np.random.PCG64(2))
    requests = []
    for number in range(48):
        count, frames = (int(x) for x in draw.integers(1, 7, 2))
        height, width = (int(x) for x in draw.integers(8, 200, 2))
        if number % 2:
            value = [servers.jpeg_clip(draw, frames, height, width) for _ in range(count)]
            signature = "embed_jpeg"
        else:
            value = draw.integers(0, 256, [count, frames, height, width, 3], np.uint8)
            signature = "embed"
        expected = model.signatures[signature](frames=tf.constant(value))["embedding"].numpy()
        if signature == "embed_jpeg" and number % 4 == 1:
            requests.append((V1, json.dumps(v1_jpeg(value)).encode(), {}, expected))
        else:
            requests.append((V2, *v2_binary(value, signature=signature, output=False), expected))
    return requests


def embeddings(path, content):
    document = json.loads(content)
    if path == V1:
        return np.array(document["predictions"])
    output, = document["outputs"]
    return np.reshape(output["data"], output["shape"])


def test_damaged_requests_never_are_a_fault(server, good):
    fuzzer = servers.Fuzzer(seed=3)
    statuses = collections.Counter()
    before = server.memory()
    for number in range(DAMAGED):
        path, body, headers = fuzzer.request()
        status, _, content = server.request("POST", path, body, headers)
        servers.check_answered(status, content)
        statuses[status] += 1
        if number % 50 == 0:  # and it still answers what is right
            path, body, headers, expected = good[number // 50 % len(good)]
            status, _, content = server.request("POST", path, body, headers)
            assert status == 200, content
            np.testing.assert_allclose(embeddings(path, content), expected, atol=1e-5)
    print(f"{DAMAGED} damaged requests: answers {dict(statuses)}; memory "
          f"{before / 2**20:.0f} -> {server.memory() / 2**20:.0f} MiB")
    assert server.metric("elo_requests_total", status="500") == 0


def test_parallel_clients_for_minutes_lose_nothing_and_memory_stays(server, good):
    fuzzer = servers.Fuzzer(seed=4)
    damaged = [fuzzer.request() for _ in range(200)]
    answered = server.metric("elo_requests_total")
    deadline = time.monotonic() + SECONDS
    memory = []

    def client(number):
        draw, sent = np.random.Generator(np.random.PCG64(number)), collections.Counter()
        while time.monotonic() < deadline:
            if draw.integers(5) == 0:
                path, body, headers = damaged[draw.integers(len(damaged))]
                status, _, content = server.request("POST", path, body, headers)
                servers.check_answered(status, content)
                sent["damaged"] += 1
                continue
            path, body, headers, expected = good[draw.integers(len(good))]
            status, _, content = server.request("POST", path, body, headers)
            assert status == 200, content
            np.testing.assert_allclose(embeddings(path, content), expected, atol=1e-5)
            sent["good"] += 1
        return sent

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, number) for number in range(CLIENTS)]
        while time.monotonic() < deadline and not any(x.done() for x in clients):
            memory.append(server.memory())
            time.sleep(SAMPLE_SECONDS)
        sent = sum((x.result() for x in clients), collections.Counter())
    minute = 60 // SAMPLE_SECONDS
    settled, last = max(memory[minute:2 * minute]), max(memory[-minute:])
    clips, calls = (server.metric(f"elo_batch_clips_{x}") for x in ("sum", "count"))
    print(f"{CLIENTS} clients, {SECONDS} s: {sent['good']} good and {sent['damaged']} damaged "
          f"requests, {clips / calls:.1f} clips a call; memory {memory[0] / 2**20:.0f} MiB at "
          f"first, {settled / 2**20:.0f} in the second minute, {last / 2**20:.0f} in the last")
    assert server.metric("elo_requests_total") - answered == sum(sent.values())
    assert server.metric("elo_requests_total", status="500") == 0
    assert server.metric("elo_queue_clips") == server.metric("elo_held_bytes") == 0
    assert sent["good"] > 1000
    assert last < settled + GROWTH
