"""Checkpoints: what is restored, what is refused, what is kept, what kills and full disks leave."""

import hashlib
import json
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.errors import UserError
from elo_tf.training import checkpoint_parts
from elo_tf.training.checkpoints import Checkpoints, restore_parts
from elo_tf.training.optimization import create_slots, make_optimizer

NAMES = ("rgb/reconstruct", "rgb/shuffle")
LOOP = pathlib.Path(__file__).with_name("checkpoint_loop.py")
DATA = "variables.data-00000-of-00001"


@pytest.fixture(scope="module")
def make_model(make_tiny_model):
    def make(names=NAMES, seed=1):
        model = make_tiny_model(names=names, seed=seed)
        model.compile(optimizer=make_optimizer(10))
        create_slots(model.optimizer, model.trainable_variables)
        model.set_weights_by_name(dict.fromkeys(names, 0.5))
        return model

    return make


def variables_of(model):
    return [*model.variables, *model.optimizer.variables()]


def state(model):
    return [v.numpy() for v in variables_of(model)]


def fill(model, seed=0):
    generator = np.random.default_rng(seed)
    for variable in variables_of(model):
        if variable.dtype.is_floating:
            variable.assign(generator.normal(size=variable.shape))


def parts_of(model):
    return {"encoders": model.encoders, "tasks": dict(zip(model.names, model.tasks, strict=True)),
            "loss_weights": model.loss_weights, "optimizer": model.optimizer}


@pytest.fixture(scope="module")
def trained(make_model):
    """A model whose variables and slots are no longer what they were made as."""
    model = make_model()
    fill(model)
    return model


@pytest.fixture(scope="module")
def other(make_model):
    """The same model with other values."""
    return make_model(seed=9)


@pytest.fixture
def warnings(caplog):
    """The texts of the warnings so far."""
    return lambda: [x.getMessage() for x in caplog.records if x.levelno == logging.WARNING]


class Small:
    """A run of two variables, which are set to the step that is saved."""

    def __init__(self, folder, shape=(300,), **options):
        self.one = tf.Variable(tf.zeros(shape))
        self.two = tf.Variable(tf.zeros(shape, tf.bfloat16))
        self.checkpoints = Checkpoints({"group": {"one": self.one}, "two": self.two}, folder,
                                       **options)

    def save(self, *steps, **options):
        for step in steps:
            self.one.assign(tf.fill(self.one.shape, float(step)))
            self.two.assign(tf.fill(self.two.shape, tf.cast(step, tf.bfloat16)))
            self.checkpoints.save(step, **options)

    def restored(self):
        """The step, after making sure that all values are of it."""
        step = self.checkpoints.restore()
        assert np.all(self.one.numpy() == step) and np.all(self.two.numpy() == step)
        return step


def digests(folder):
    return {x.name: hashlib.sha256(x.read_bytes()).hexdigest() for x in folder.iterdir()}


def test_restoring_gives_back_every_variable_and_slot(trained, other, tmp_path):
    Checkpoints(parts_of(trained), tmp_path).save(8)
    fill(other, seed=5)
    differ = [not np.array_equal(a, b) for a, b in zip(state(other), state(trained), strict=True)]
    assert sum(differ) == sum(v.dtype.is_floating for v in variables_of(trained)) > 100
    assert Checkpoints(parts_of(other), tmp_path).restore() == 8
    for mine, saved in zip(state(other), state(trained), strict=True):
        assert np.array_equal(mine, saved)


def test_the_manifest_names_files_and_variables(trained, tmp_path):
    checkpoints = Checkpoints(parts_of(trained), tmp_path, config="abc")
    checkpoints.save(8, score=0.25)
    folder = tmp_path / "step-00000008"
    manifest = json.loads((folder / "complete.json").read_text())
    found = digests(folder)
    del found["complete.json"]
    assert {k: v["sha256"] for k, v in manifest["files"].items()} == found
    assert {k: v["size"] for k, v in manifest["files"].items()} == {
        name: (folder / name).stat().st_size for name in found}
    assert (manifest["step"], manifest["score"], manifest["config"]) == (8, 0.25, "abc")
    assert manifest["parts"] == ["encoders/rgb", "loss_weights", "optimizer",
                                 "tasks/rgb/reconstruct", "tasks/rgb/shuffle"]
    end = "/.ATTRIBUTES/VARIABLE_VALUE"
    assert manifest["variables"][f"loss_weights{end}"] == "float32[2]"
    assert manifest["variables"][f"optimizer/iter{end}"] == "int64[]"
    kernel = "tasks/rgb.Sshuffle/classifier/kernel"
    width = trained.encoders["rgb"].output["embedding"].shape[-1]
    assert manifest["variables"][f"{kernel}{end}"] == f"float32[{width}, 1]"
    assert f"{kernel}/.OPTIMIZER_SLOT/optimizer/v{end}" in manifest["variables"]
    assert len(manifest["variables"]) == len(variables_of(trained)) + 3  # decay, two betas


def test_saving_the_same_values_twice_gives_the_same_bytes(trained, tmp_path):
    for name in "ab":
        Checkpoints(parts_of(trained), tmp_path / name).save(8)
    first, second = (digests(tmp_path / name / "step-00000008") for name in "ab")
    assert first == second and len(first) == 3


def test_keys_are_tensorflows_for_copies_and_averages_and_mixed_precision(two_replicas, tmp_path):
    class Averages(tf.Module):
        def __init__(self, variables):
            super().__init__()
            self.shadow = [tf.Variable(v) for v in variables]

    with two_replicas.scope():
        layers = tf.keras.Sequential([
            tf.keras.layers.Dense(3, dtype="mixed_bfloat16"), tf.keras.layers.Dropout(0.5),
            tf.keras.layers.BatchNormalization(synchronized=True)])
        layers.build([None, 2])
        optimizer = make_optimizer(10)
        create_slots(optimizer, layers.trainable_variables)
        counter = tf.Variable(0, trainable=False, aggregation=tf.VariableAggregation.SUM,
                              synchronization=tf.VariableSynchronization.ON_READ)
        parts = {"tasks": {"a.b/c": layers}, "averages": Averages(layers.trainable_variables),
                 "optimizer": optimizer, "counter": counter}
    checkpoint = tf.train.Checkpoint(**parts)
    checkpoint.write(str(tmp_path / "plain"))
    described = checkpoint_parts.describe(checkpoint)
    assert described == checkpoint_parts.written(str(tmp_path / "plain"))
    assert len(described) == 6 + 4 + 2 * 4 + 4 + 1
    saved = [v.numpy() for v in layers.variables]
    Checkpoints(parts, tmp_path).save(1)
    for variable in layers.variables:
        variable.assign(variable + 1)
    assert Checkpoints(parts, tmp_path).restore() == 1
    for variable, value in zip(layers.variables, saved, strict=True):
        for copy in two_replicas.experimental_local_results(variable):
            assert np.array_equal(copy.numpy(), value)


def test_an_empty_folder_starts_at_0(tmp_path):
    run = Small(tmp_path / "none")
    run.one.assign(tf.ones([300]))
    assert run.checkpoints.restore() == 0
    assert np.all(run.one.numpy() == 1) and not (tmp_path / "none").exists()


def test_the_newest_and_the_best_are_kept(tmp_path):
    run = Small(tmp_path, keep_last=2, keep_best=2)
    kept = []
    for step, score in ((2, 3.0), (4, 1.0), (6, float("nan")), (8, 2.0), (10, None), (12, 1.0),
                        (14, 5.0), (16, 0.5)):
        run.save(step, score=score)
        kept.append(run.checkpoints.steps)
    assert kept == [[2], [2, 4], [2, 4, 6], [4, 6, 8], [4, 8, 10], [4, 10, 12], [4, 12, 14],
                    [12, 14, 16]]
    assert sorted(x.name for x in tmp_path.iterdir()) == [
        f"step-{step:08d}" for step in (12, 14, 16)]
    for options in ({"keep_last": 0}, {"keep_best": -1}):
        with pytest.raises(UserError, match="must be"):
            Small(tmp_path, **options)


def damage(folder, how):
    if how == "byte":
        content = bytearray((folder / DATA).read_bytes())
        content[700] ^= 1
        (folder / DATA).write_bytes(content)
    elif how == "cut":
        (folder / DATA).write_bytes((folder / DATA).read_bytes()[:1000])
    elif how == "half":
        (folder / "complete.json").write_text('{"step": ')
    elif how == "renamed":
        (folder / "complete.json").write_text(
            (folder / "complete.json").read_text().replace('"step": 4', '"step": 3'))
    else:
        (folder / how).unlink()


@pytest.mark.parametrize(("how", "message"), [
    ("byte", f"{DATA} is damaged: its SHA-256 begins with"),
    ("cut", f"{DATA} has 1,000 bytes, not 1,9"),
    (DATA, f"{DATA} is missing"),
    ("variables.index", "variables.index is missing"),
    ("complete.json", "complete.json is missing, so it was not written to its end"),
    ("half", "complete.json is damaged"),
    ("renamed", "complete.json is of step 3")])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, warnings, how,
                                                                   message):
    run = Small(tmp_path)
    run.save(2, 4)
    damage(tmp_path / "step-00000004", how)
    again = Small(tmp_path)
    assert again.restored() == 2
    warning, = warnings()
    assert "step-00000004 cannot be used: " + message in warning
    # The damaged one does not count among the two that are kept, and is replaced.
    again.save(3)
    assert again.checkpoints.steps == [2, 3, 4]
    again.save(4)
    assert again.checkpoints.steps == [3, 4] and Small(tmp_path).restored() == 4
    assert len(warnings()) == 1


def test_without_a_usable_checkpoint_nothing_is_begun(tmp_path):
    Small(tmp_path).save(2, 4)
    damage(tmp_path / "step-00000002", "cut")
    damage(tmp_path / "step-00000004", "complete.json")
    with pytest.raises(UserError, match=(
            r"no checkpoint in .* can be used; of the newest, step 4: complete.json is missing.*"
            "Use another --run_dir, or delete this folder to begin anew")):
        Small(tmp_path).checkpoints.restore()


def test_a_checkpoint_of_another_model_is_refused(trained, make_model, tmp_path):
    Checkpoints(parts_of(trained), tmp_path).save(4)
    before = digests(tmp_path / "step-00000004")
    for names, message in (
            (("rgb/reconstruct", "rgb/predict"),
             "step 4: tasks/rgb/predict of this model is not there; "
             "tasks/rgb/shuffle is there but this model has none. Use"),
            ((*NAMES, "flow/shuffle"),
             "step 4: encoders/flow of this model is not there; tasks/flow/shuffle of this model "
             r"is not there; loss_weights is float32\[2\] there and float32\[3\] in this model. ")):
        model = make_model(names)
        values = state(model)
        with pytest.raises(UserError, match=message):
            Checkpoints(parts_of(model), tmp_path).restore()
        assert all(np.array_equal(a, b) for a, b in zip(values, state(model), strict=True))
    assert digests(tmp_path / "step-00000004") == before


def test_differences_of_variables_and_slots(tmp_path):
    def run(kind, **shapes):
        variables = {k: tf.Variable(tf.zeros(v)) for k, v in shapes.items()}
        optimizer = kind()
        create_slots(optimizer, list(variables.values()))
        return Checkpoints({"net": {"a": variables}, "optimizer": optimizer}, tmp_path)

    adam, sgd = tf.keras.optimizers.legacy.Adam, tf.keras.optimizers.legacy.SGD
    run(adam, u=[3], v=[4]).save(1)
    with pytest.raises(UserError, match=(
            r"net/a/u is float32\[3\] there and float32\[2\] in this model; net/a/v is there but "
            r"this model has none; net/a/w of this model is not there\. ")):
        run(adam, u=[2], w=[4]).restore()
    with pytest.raises(UserError, match=(
            "optimizer/beta_1 is there but this model has none; optimizer/beta_2 is there but "
            "this model has none; optimizer/momentum of this model is not there; and 4 more")):
        run(sgd, u=[3], v=[4]).restore()


def test_a_worker_that_is_not_the_chief_leaves_nothing(tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    run = tmp_path / "run"
    Small(run, writes=False).save(2)
    assert not run.exists() and not list(temporary.iterdir())
    Small(run).save(2)
    (run / ".saving-step-00000004-1").mkdir()
    worker = Small(run, writes=False, keep_last=1)
    assert worker.restored() == 2
    worker.save(4, 6)
    assert sorted(x.name for x in run.iterdir()) == [".saving-step-00000004-1", "step-00000002"]


def test_a_checkpoint_is_replaced_without_a_moment_in_which_it_could_be_lost(tmp_path, warnings):
    run = Small(tmp_path)
    run.save(2)
    run.checkpoints.save(2, score=1.0)
    assert [x.name for x in tmp_path.iterdir()] == ["step-00000002"]
    # Killed between the two renames.
    (tmp_path / "step-00000002").rename(tmp_path / ".replaced-step-00000002")
    # Killed while an old one was deleted.
    (tmp_path / ".removed-step-00000001").mkdir()
    again = Small(tmp_path)
    assert again.restored() == 2 and [x.name for x in tmp_path.iterdir()] == ["step-00000002"]
    warning, = warnings()
    assert "putting" in warning and "step-00000002" in warning
    # Killed after both.
    shutil.copytree(tmp_path / "step-00000002", tmp_path / ".replaced-step-00000002")
    assert again.restored() == 2 and [x.name for x in tmp_path.iterdir()] == ["step-00000002"]


def loop(folder, *arguments):
    return subprocess.Popen([sys.executable, LOOP, folder, *map(str, arguments)],
                            stdout=subprocess.PIPE, text=True,
                            env=os.environ | {"PYTHONPATH": str(LOOP.parents[2])})


def writing(folder):
    """TensorFlow has begun a file and not ended it."""
    return any(x.stat().st_size for x in folder.glob(".saving-*/variables_temp/*.tempstate*"))


def hashing(folder):
    """All files are written, but the checkpoint is not yet called whole."""
    return any(folder.glob(".saving-*/variables.index")) and not any(
        folder.glob(".saving-*/complete.json"))


@pytest.mark.parametrize("moment", [writing, hashing])
def test_a_kill_inside_a_save_costs_that_save_alone(tmp_path, warnings, moment):
    process = loop(tmp_path, 2, 32)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < deadline
            if len(list(tmp_path.glob("step-*"))) >= 2 and moment(tmp_path):
                # It stands still while we make sure that this was inside the save.
                process.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
                if moment(tmp_path):
                    break
                process.send_signal(signal.SIGCONT)
            time.sleep(0.001)
    finally:
        process.kill()
        process.communicate()
    proof, = tmp_path.glob(".saving-*")
    assert not (proof / "complete.json").exists()
    values = {str(i): tf.Variable(tf.zeros([32, 1 << 18])) for i in range(2)}
    checkpoints = Checkpoints({"values": values}, tmp_path)
    newest = checkpoints.steps[-1]
    assert proof.name == f".saving-step-{newest + 1:08d}-{process.pid}"
    assert checkpoints.restore() == newest >= 2
    assert all(np.all(values[str(i)].numpy() == newest + i) for i in range(2))
    warning, = warnings()
    assert f"removing {proof}: a run was killed while it saved" in warning
    assert sorted(x.name for x in tmp_path.iterdir()) == [
        f"step-{step:08d}" for step in checkpoints.steps]


def test_a_file_that_cannot_grow_keeps_the_old_checkpoint(tmp_path):
    process = loop(tmp_path, 4, 1, 3)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    first, second = output.splitlines()
    assert first == (
        f"cannot write checkpoint {tmp_path}/step-00000002: File too large; the last whole one is "
        "step 1. Free space and start the same command again [1]")
    assert second == "[1, 2]"


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    if not mounted or mounted.returncode:
        pytest.skip("this machine does not let us mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_keeps_the_old_checkpoints(tiny_disk):
    run = Small(tiny_disk / "run", shape=[1 << 18], keep_last=4)  # 1.5 MB each
    run.save(1, 2)
    before = digests(tiny_disk / "run" / "step-00000002")
    with pytest.raises(UserError, match=(
            r"step-00000003: No space left on device; the last whole one is step 2\. Free space "
            "and start the same command again")):
        run.save(3)
    assert sorted(x.name for x in (tiny_disk / "run").iterdir()) == ["step-00000001",
                                                                     "step-00000002"]
    assert digests(tiny_disk / "run" / "step-00000002") == before
    # Not a byte is free.
    shutil.rmtree(tiny_disk / "run")
    with (open(tiny_disk / "filler", "wb", buffering=0) as file,
          pytest.raises(OSError, match="No space")):
        while True:
            file.write(bytes(4096))
    with pytest.raises(UserError, match="No space left on device; there is none yet"):
        run.save(3)
    (tiny_disk / "filler").unlink()
    run.save(3)
    assert run.restored() == 3


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Not a directory; there is none yet. Mend that"):
        Small(tmp_path / "file").save(1)


def test_named_parts_alone_are_restored(trained, other, tmp_path):
    checkpoints = Checkpoints(parts_of(trained), tmp_path / "run" / "checkpoints")
    checkpoints.save(4)
    checkpoints.save(8)
    damage(tmp_path / "run" / "checkpoints" / "step-00000008", "byte")

    def same():
        return {name: all(np.array_equal(a.numpy(), b.numpy()) for a, b in
                          zip(mine.variables, saved.variables, strict=True))
                for name, mine, saved in (
                    ("rgb", other.encoders["rgb"], trained.encoders["rgb"]),
                    *zip(NAMES, other.tasks, trained.tasks, strict=True))} | {
            "slots": np.array_equal(other.optimizer.variables()[1].numpy(),
                                    trained.optimizer.variables()[1].numpy())}

    for names, path, step, expected in (
            (["encoders"], "run/checkpoints/step-00000004", 4, {"rgb"}),
            (["encoders/rgb"], "run", 4, {"rgb"}),
            (["tasks/rgb/shuffle", "encoders/rgb"], "run/checkpoints", 4, {"rgb", "rgb/shuffle"})):
        fill(other, seed=5)
        assert not any(same().values())
        assert restore_parts(tmp_path / path, parts_of(other), names) == step
        assert {name for name, equal in same().items() if equal} == expected
    # A fine-tuning has no optimiser and other heads.
    fill(other, seed=5)
    restore_parts(tmp_path / "run", {"encoders": {"rgb": other.encoders["rgb"]}}, ["encoders"])
    assert same()["rgb"]


def test_what_cannot_be_restored_in_part_is_named(tmp_path):
    run = Small(tmp_path)
    run.save(2)
    for parts, names, message in (
            ({"group": {"one": run.one}}, ["group/flow"],
             "no part group/flow to restore; the model has group/one"),
            ({"group": {"three": run.one}}, ["group"],
             "does not fit group/three: group/three of this model is not there. It holds "
             "group/one, two"),
            ({"two": tf.Variable(1.0)}, ["two"],
             r"does not fit two: two is bfloat16\[300\] there and float32\[\] in this model"),
            ({"group": {"one": {"deeper": run.one}}}, ["group/one"],
             "group/one is there but this model has none; group/one/deeper of this model is not"),
            ({"optimizer": tf.keras.optimizers.legacy.SGD()}, ["optimizer"],
             "optimizer's state cannot be restored by itself")):
        with pytest.raises(UserError, match=message):
            restore_parts(tmp_path, parts, names)
    with pytest.raises(UserError, match="none holds no checkpoint; give a checkpoint"):
        restore_parts(tmp_path / "none", {"two": run.two}, ["two"])
    damage(tmp_path / "step-00000002", "cut")
    for path in (tmp_path, tmp_path / "step-00000002"):
        with pytest.raises(UserError, match="can be used; of the newest: .* has 1,000 bytes"):
            restore_parts(path, {"two": run.two}, ["two"])
