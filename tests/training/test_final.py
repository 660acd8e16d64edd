"""The final training: its log, and the numbers it refuses."""

import json

import numpy as np
import pytest

from elo_tf.errors import UserError
from elo_tf.training import final
from elo_tf.training.checkpoints import Checkpoints
from elo_tf.training.data_wait import Waited
from elo_tf.training.optimization import create_slots, make_optimizer

NAMES = ("rgb/reconstruct", "rgb/shuffle")


@pytest.fixture(scope="module")
def make_model(make_tiny_model):
    def make(names=NAMES, seed=1):
        model = make_tiny_model(names=names, seed=seed)
        model.compile(optimizer=make_optimizer(10))
        create_slots(model.optimizer, model.trainable_variables)
        model.set_weights_by_name(dict.fromkeys(names, 0.5))
        return model

    return make


@pytest.fixture(scope="module")
def trained(make_model):
    """A model whose variables and slots are no longer what they were made as."""
    model = make_model()
    generator = np.random.default_rng(0)
    for variable in [*model.variables, *model.optimizer.variables()]:
        if variable.dtype.is_floating:
            variable.assign(generator.normal(size=variable.shape))
    return model


class Stopwatch:
    """Stands in for the measurement of waits, and for the progress bar."""

    def __init__(self):
        self.shown = []

    def take(self):
        return Waited(0.5, 2.0)

    def show(self, note):
        self.shown.append(note)


def run_log(model, folder, start=0):
    watch = Stopwatch()
    log = final.RunLog(Checkpoints(model, folder / "checkpoints"), folder / "losses.jsonl",
                       start=start, checkpoint_every=4, wait=watch, progress=watch)
    log.set_model(model)
    return log, watch


def entry(step):
    return json.dumps({"step": step, "total": 1.0, "losses": {}}) + "\n"


def test_the_log_is_kept_up_to_the_checkpoint(trained, tmp_path):
    path = tmp_path / "losses.jsonl"
    path.write_text(entry(2) + entry(4) + entry(6) + entry(8)[:12])
    run_log(trained, tmp_path, start=4)
    assert path.read_text() == entry(2) + entry(4)
    run_log(trained, tmp_path)
    assert path.read_text() == ""


def test_the_log_stops_at_the_first_loss_that_is_not_finite(trained, tmp_path):
    trained.optimizer.iterations.assign(4)
    log, watch = run_log(trained, tmp_path)
    log.on_epoch_end(0, {"total": 0.75, "losses": np.array([1.0, 0.5])})
    assert json.loads((tmp_path / "losses.jsonl").read_text()) == {
        "step": 4, "total": 0.75, "losses": {"rgb/reconstruct": 1.0, "rgb/shuffle": 0.5},
        "data_wait": 0.25}
    assert watch.shown == ["waiting for data 25%"]
    assert (log.waited.seconds, log.waited.wall) == (0.5, 2.0)
    for bad in (np.nan, np.inf):
        with pytest.raises(FloatingPointError, match="the loss rgb/shuffle is .* at step 4"):
            log.on_epoch_end(1, {"total": bad, "losses": np.array([1.0, bad])})
    # A diverged network is never saved.
    assert len(list((tmp_path / "checkpoints").glob("*.index"))) == 1


@pytest.mark.parametrize(("values", "message"), [
    ({"steps": 0}, "pretrain.steps is 0; it must be 1 or more"),
    ({"log_every": 0}, "pretrain.log_every is 0"),
    ({"batch_size": -1}, "pretrain.batch_size is -1"),
    ({"steps": 15}, "pretrain.steps is 15; it must be a multiple of pretrain.log_every, 10"),
    ({"checkpoint_every": 25}, "pretrain.checkpoint_every is 25; it must be a multiple")])
def test_numbers_that_cannot_be_are_refused(tmp_path, values, message):
    with pytest.raises(UserError, match=message):
        final.pretrain(str(tmp_path), records=None, clip=None, space=None, loss_weights={},
                       **{"steps": 20, "log_every": 10, "checkpoint_every": 10} | values)
