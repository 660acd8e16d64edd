"""Training on several hosts, as several processes on loopback: this file is their program too."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from elo_tf.bin import supervisor
from elo_tf.errors import UserError
from elo_tf.models.normalization import batch_norm
from elo_tf.tasks.contrastive import unit
from elo_tf.tasks.task import across_replicas, own_rows, sum_over_replicas
from elo_tf.training import devices, workers

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BATCH, WIDTH, STEPS = 8, 6, 3


class Toy(tf.keras.Model):
    """Synchronised batch norm and negatives from the whole batch: what replicas must share."""

    def __init__(self):
        super().__init__()
        tf.keras.utils.set_random_seed(1)
        self.hidden = tf.keras.layers.Dense(WIDTH, use_bias=False)
        self.norm = batch_norm()
        self.out = tf.keras.layers.Dense(4)
        self.hidden.build((None, WIDTH))
        self.norm.build((None, WIDTH))
        self.out.build((None, WIDTH))

    def train_step(self, data):
        with tf.GradientTape() as tape:
            x = unit(self.out(tf.nn.relu(self.norm(self.hidden(data["x"]), training=True))))
            everybody = across_replicas(x)
            logits = 5.0 * tf.matmul(x, everybody, transpose_b=True)
            own = own_rows(x)
            # Each clip's partner is the next of the global batch.
            partner = (own + 1) % tf.shape(everybody)[0]
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(partner, logits)
            count = sum_over_replicas(tf.cast(tf.shape(x)[0], tf.float32))
            loss = tf.reduce_sum(losses) / count
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"total": sum_over_replicas(loss), "rows": across_replicas(tf.identity(data["key"]))}


def batches(share=(0, 1)):
    """Global batches of noise, or a worker's rows of them."""
    rows = BATCH // share[1]
    x = np.random.Generator(np.random.PCG64(3)).normal(size=(STEPS * BATCH, WIDTH))
    key = np.arange(STEPS * BATCH)
    own = (key % BATCH) // rows == share[0]
    return tf.data.Dataset.from_tensor_slices(
        {"x": x[own].astype("f"), "key": key[own]}).batch(rows, drop_remainder=True)


def train(strategy, share):
    """Trains the toy; what each step said, and all its variables."""
    with strategy.scope():
        model = Toy()
        model.compile(optimizer=tf.keras.optimizers.legacy.SGD(0.5, momentum=0.9))
    step = tf.function(lambda batch: strategy.run(model.train_step, args=(batch,)))
    said = []
    for batch in devices.distribute(strategy, batches(share)):
        said.append({name: np.array(strategy.experimental_local_results(x)[0]).tolist()
                     for name, x in step(batch).items()})
    return {"steps": said, "variables": [x.numpy().tolist() for x in model.weights]}


# --- the program of a worker ----------------------------------------------------------------------


def say(**what):
    print(json.dumps(what), flush=True)


def started_before(folder, index):
    """Whether this worker was; from now on it was."""
    mark = pathlib.Path(folder) / f"worker{index}"
    before = mark.exists()
    mark.touch()
    return before


def program(mode, folder=None):
    if mode == "links":
        workers.BEAT, workers.SILENCE = 0.2, 1.5
        names = ["a:1", "b:2"]
        pair = socket.socketpair()
        for link in pair:
            link.settimeout(workers.SILENCE)
        both = [workers.Watch({1 - i: pair[i]}, i, names) for i in range(2)]
        time.sleep(2 * workers.SILENCE)  # signs of life keep them
        for watch in both:
            with contextlib.suppress(UserError), watch:
                raise UserError("the same on all")
        time.sleep(1.0)
        say(alive=True)
        here, _other = socket.socketpair()  # whose other end says nothing
        here.settimeout(workers.SILENCE)
        with workers.Watch({1: here}, 0, names):
            time.sleep(100)
    if mode == "logical_cpus":
        say(**train(devices.make_strategy(logical_cpus=2), (0, 1)))
        return
    if mode == "two_replicas_each":
        # Without GPUs, TensorFlow gives a worker a single device: here it gets two.
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        from tensorflow.python.distribute import collective_all_reduce_strategy as module
        module.CollectiveAllReduceExtended._initialize_local_devices = lambda self, _, place: (
            tuple(f"{place}/device:CPU:{i}" for i in range(2)), "CPU")
    if mode == "supervised" and "CHILD" not in os.environ:
        os.environ["CHILD"] = "yes"
        # One host starts again seconds later than the other.
        delay = (4.0, 0.5)[workers.cluster()[1]]
        sys.exit(supervisor.supervise(supervisor.own_command(), 1, first_delay=delay))
    strategy = devices.make_strategy()
    own, _ = share = workers.share(strategy)
    with workers.watch(strategy):
        if mode == "supervised" and not started_before(folder, own):
            workers.barrier(strategy)
            if own == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(100)
        if mode in ("train", "two_replicas_each", "supervised"):
            say(share=share, chief=workers.is_chief(strategy),
                replicas=strategy.num_replicas_in_sync,
                any=[workers.any_worker(strategy, flag) for flag in (False, own == 1, True)],
                **train(strategy, share))
            workers.barrier(strategy)
        else:
            say(ready=True)
        if mode == "wait":  # outside of collectives, where TensorFlow notices nothing
            time.sleep(100)
        while mode == "steps":  # inside of collectives
            workers.barrier(strategy)
        if mode == "fail":
            if own == 1:
                raise UserError("the disk is full")
            workers.barrier(strategy)
    # One end comes later than the others, which is no loss.
    time.sleep(2.0 if own == int(mode == "train") else 0.0)


def environment(**more):
    return os.environ | {"PYTHONPATH": str(ROOT), "TF_CONFIG": "{}"} | more


class Cluster:
    """Processes of this file, one for each worker."""

    def __init__(self, mode, count=2, folder=""):
        servers = [socket.create_server(("localhost", 0)) for _ in range(count)]
        self.hosts = [f"localhost:{x.getsockname()[1]}" for x in servers]
        for server in servers:
            server.close()
        self.processes = []
        for index in range(count):
            config = {"cluster": {"worker": self.hosts}, "task": {"type": "worker", "index": index}}
            self.processes.append(subprocess.Popen(
                [sys.executable, __file__, mode, str(folder)], stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True, env=environment(TF_CONFIG=json.dumps(config))))
        # Where they wait for each other forever, the test is to fail.
        self._timer = threading.Timer(150, self._kill)
        self._timer.start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._timer.cancel()
        self._kill()
        for process in self.processes:
            process.communicate()

    def _kill(self):
        for process in self.processes:
            process.kill()

    def read(self):
        """A line of every worker."""
        return [json.loads(process.stdout.readline() or process.stderr.read())
                for process in self.processes]

    def end(self, timeout=60):
        """(exit code, standard error) of every worker, and the seconds until all had ended."""
        begun = time.monotonic()
        results = []
        for process in self.processes:
            _, text = process.communicate(timeout=max(timeout - time.monotonic() + begun, 0.1))
            results.append((process.returncode, text))
        return results, time.monotonic() - begun


@pytest.fixture(scope="module")
def one():
    """What one device computes of the same global batches."""
    return train(tf.distribute.MirroredStrategy(["CPU:0"]), (0, 1))


def assert_same(one, other):
    for a, b in zip(one["steps"], other["steps"], strict=True):
        assert a["rows"] == b["rows"]
        assert a["total"] == pytest.approx(b["total"], rel=1e-5)
    for a, b in zip(one["variables"], other["variables"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


# --- what they compute ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode, replicas", (("train", 2), ("two_replicas_each", 4)))
def test_two_workers_compute_what_one_device_does(mode, replicas, one):
    assert one["steps"][0]["total"] > one["steps"][-1]["total"]
    with Cluster(mode) as cluster:
        said = cluster.read()
        ended, _ = cluster.end()
    for index, worker in enumerate(said):
        assert worker["share"] == [index, 2]
        assert worker["chief"] == (index == 0)
        assert worker["replicas"] == replicas
        assert worker["any"] == [False, True, True]
        assert_same(one, worker)
    assert [code for code, _ in ended] == [0, 0], ended
    assert not any("lost" in text for _, text in ended), ended


def test_logical_cpus_compute_what_one_device_does(one):
    done = run("logical_cpus")
    assert done.returncode == 0, done.stderr
    assert_same(one, json.loads(done.stdout))


def run(mode):
    return subprocess.run([sys.executable, __file__, mode], capture_output=True, text=True,
                          check=False, timeout=60, env=environment())


# --- what ends them -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode, count, victim", (
    ("wait", 3, 2),  # worker 1 has no connection with it: the chief says so
    ("steps", 2, 0),
))
def test_where_a_worker_is_killed_all_end_and_name_it(mode, count, victim):
    with Cluster(mode, count) as cluster:
        assert cluster.read() == [{"ready": True}] * count
        time.sleep(1.0)  # they are in the midst of it
        cluster.processes[victim].send_signal(signal.SIGKILL)
        ended, seconds = cluster.end()
        assert seconds < 30
    assert ended[victim][0] == -signal.SIGKILL
    for index, (code, text) in enumerate(ended):
        if index != victim:
            assert code == workers.LOST_EXIT_CODE, text
            assert (f"error: worker {victim} ({cluster.hosts[victim]}) is lost: its process has "
                    f"ended; worker {index} ends too\n") in text


def test_supervisors_start_all_workers_again(tmp_path, one):
    with Cluster("supervised", folder=tmp_path) as cluster:
        said = cluster.read()
        ended, _ = cluster.end()
    for worker in said:
        assert_same(one, worker)
    assert [code for code, _ in ended] == [0, 0], ended
    assert "the run ended with exit code 75; starting it again in 4 s (1 of" in ended[0][1]
    assert "the run was ended by SIGKILL; starting it again in 0.5 s (1 of" in ended[1][1]


def test_an_error_of_the_user_on_one_worker_is_that_of_all():
    """Also its exit code, after which no supervisor starts them again."""
    with Cluster("fail") as cluster:
        (chief, other), seconds = cluster.end()
    assert (chief[0], other[0]) == (2, 1)  # the second raises: its main turns that into 2
    assert (f"error: worker 1 ({cluster.hosts[1]}) has failed: the disk is full; worker 0 ends "
            "too\n") in chief[1]
    assert seconds < 50


def test_silence_is_a_loss_and_the_same_error_on_all_is_none():
    done = run("links")
    assert done.stdout == '{"alive": true}\n', done.stderr
    assert done.returncode == workers.LOST_EXIT_CODE
    assert done.stderr.endswith(
        "error: worker 1 (b:2) is lost: no sign of life for 2 s; worker 0 ends too\n")


def test_strangers_are_no_workers():
    server = workers._listen("localhost", 0)
    port = server.getsockname()[1]
    strangers = [socket.create_connection(("localhost", port)) for _ in range(3)]
    strangers[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
    strangers[1].sendall(b"12346 2\n")
    strangers[2].close()
    links = {}

    def connect():
        links[1] = workers._connect("localhost", port, 12345, 1)

    thread = threading.Thread(target=connect)
    thread.start()
    accepted = workers._accept(server, 12345, 2)
    thread.join()
    assert list(accepted) == [1]
    accepted[1].sendall(b"hello")
    assert links[1].recv(5) == b"hello"
    for each in (server, *strangers, *links.values(), *accepted.values()):
        each.close()


def test_a_chief_that_nobody_reaches_says_so(monkeypatch):
    monkeypatch.setattr(workers, "SILENCE", 0.2)
    with workers._listen("localhost", 0) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=rf"workers \[1, 2\] did not connect to port {port}"):
            workers._accept(server, 1, 3)
        with pytest.raises(UserError, match=f"--watch_port={port} cannot be used"):
            workers._listen("localhost", port)
    with pytest.raises(UserError, match=f"worker 1 cannot connect to port {port} of the chief"):
        workers._connect("localhost", port, 1, 1)


# --- who takes part -------------------------------------------------------------------------------

HOSTS = ["a:1", "b:2", "c:3"]


def config(task, index, **jobs):
    return json.dumps({"cluster": jobs, "task": {"type": task, "index": index}})


@pytest.mark.parametrize("text, expected", (
    ("", ((), 0)),
    ("{}", ((), 0)),
    (config("worker", 2, worker=HOSTS), (tuple(HOSTS), 2)),
    (config("worker", 1, chief=HOSTS[:1], worker=HOSTS[1:]), (tuple(HOSTS), 2)),
    (config("chief", 0, chief=HOSTS[:1], worker=HOSTS[1:]), (tuple(HOSTS), 0)),
))
def test_the_cluster_of_tf_config(text, expected, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    assert workers.cluster() == expected


@pytest.mark.parametrize("text, message", (
    ("{", "TF_CONFIG cannot be read"),
    (json.dumps({"cluster": {"worker": HOSTS}}), "TF_CONFIG cannot be read"),
    (json.dumps(["worker"]), "TF_CONFIG cannot be read"),
    (config("worker", 3, worker=HOSTS), "makes this worker 3, which is no chief or worker"),
    (config("evaluator", 0, worker=HOSTS), "makes this evaluator 0"),
))
def test_a_wrong_tf_config_is_named(text, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=message):
        workers.cluster()


@pytest.fixture
def set_flags(monkeypatch):
    """Defines the flags for one test; the function sets them."""
    monkeypatch.setenv("TF_CONFIG", "")
    workers.define_flags()
    parsed = flags.FLAGS.is_parsed()
    flags.FLAGS.mark_as_parsed()

    def set_them(hosts=(), index=None):
        flags.FLAGS.worker_hosts, flags.FLAGS.task_index = list(hosts), index

    yield set_them
    for name in ("worker_hosts", "task_index", "watch_port"):
        delattr(flags.FLAGS, name)
    if not parsed:
        flags.FLAGS.unparse_flags()


@pytest.mark.parametrize("given, expected", (
    (((), None), ((), 0)),
    ((HOSTS, 2), (tuple(HOSTS), 2)),
    ((HOSTS[:1], None), (("a:1",), 0)),
))
def test_flags_become_tf_config(given, expected, set_flags):
    set_flags(*given)
    workers.configure_from_flags()
    assert workers.cluster() == expected
    workers.configure_from_flags()  # as in a child of the supervisor


@pytest.mark.parametrize("given, message", (
    (((), 1), "--task_index=1 is of no use without --worker_hosts"),
    ((HOSTS, None), "--task_index is not set; say which of the 3"),
    ((HOSTS, 3), "--task_index is 3; with 3 --worker_hosts it must be less than 3"),
    ((["a:1", "b"], 0), "'b'; each is host:port"),
    ((["a:1", "b:99999"], 0), "'b:99999'; each is host:port"),
    ((["a:1", "a:1"], 0), "names a worker twice"),
))
def test_wrong_flags_are_named(given, message, set_flags):
    set_flags(*given)
    with pytest.raises(UserError, match=message):
        workers.configure_from_flags()


def test_flags_against_tf_config_are_refused(set_flags, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config("worker", 1, worker=HOSTS))
    set_flags(HOSTS, 0)
    with pytest.raises(UserError, match="say different things"):
        workers.configure_from_flags()


def test_one_host_has_nothing_to_agree_on(two_replicas):
    assert workers.share(two_replicas) == (0, 1) and workers.is_chief(two_replicas)
    assert workers.any_worker(two_replicas, True) and not workers.any_worker(two_replicas, False)
    workers.barrier(two_replicas)
    with pytest.raises(UserError, match="passes"), workers.watch(two_replicas) as watch:
        watch.stop()
        raise UserError("passes")


# --- which devices --------------------------------------------------------------------------------


def test_the_cpu_is_one_device_or_as_many_as_it_was_split_into(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert devices.make_strategy().num_replicas_in_sync == 1
    assert devices.make_strategy(logical_cpus=2).num_replicas_in_sync == 2
    with pytest.raises(UserError, match="logical_cpus is 3, but TensorFlow has begun to use"):
        devices.make_strategy(logical_cpus=3)
    with pytest.raises(UserError, match="logical_cpus is 0; it must be 1 or more"):
        devices.make_strategy(logical_cpus=0)
    monkeypatch.setenv("TF_CONFIG", config("worker", 0, worker=HOSTS))
    with pytest.raises(UserError, match="each of the 3 hosts trains on its whole CPU"):
        devices.make_strategy(logical_cpus=2)


@pytest.mark.parametrize("rows", (BATCH, BATCH - 1))
def test_a_batch_is_split_evenly_or_refused(rows, two_replicas):
    dataset = batches().map(lambda batch: {name: x[:rows] for name, x in batch.items()})
    if rows % 2:
        with pytest.raises(UserError, match="a batch_size of 7 cannot be split evenly over 2"):
            devices.distribute(two_replicas, dataset)
        return
    keys = [np.stack(two_replicas.experimental_local_results(batch["key"])).tolist()
            for batch in devices.distribute(two_replicas, dataset)]
    assert np.array_equal(keys, np.arange(STEPS * BATCH).reshape(STEPS, 2, BATCH // 2))


if __name__ == "__main__":
    program(*sys.argv[1:])
