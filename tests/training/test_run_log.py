"""What is logged: the numbers, for programs and in TensorBoard, and what a resumed run keeps."""

import json

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.errors import UserError
from elo_tf.training.data_wait import Waited
from elo_tf.training.run_log import LOSSES, TENSORBOARD, RunLog, peak_memory

WEIGHTS = {"rgb/shuffle": 0.5, "flow/predict": 0.25}
REPORT = {"losses": np.array([1.0, 4.0], "f"), "gradient_norms": np.array([0.5, 2.0], "f"),
          "gradient_norm": np.float32(3.0), "total": np.float32(1.5)}
WAITED = Waited(0.5, 2.0, 4)


def write(log, *steps):
    for step in steps:
        log.write(step, REPORT, learning_rate=0.25, clips_per_second=8.0, waited=WAITED)


def lines(folder):
    return [json.loads(x) for x in (folder / LOSSES).read_text().splitlines()]


def events(folder):
    """All events of TensorBoard, file after file."""
    for path in sorted((folder / TENSORBOARD).iterdir(), key=lambda x: x.stat().st_mtime_ns):
        for record in tf.data.TFRecordDataset(str(path)):
            yield tf.compat.v1.Event.FromString(record.numpy())


def test_a_line_holds_every_number_by_name(tmp_path):
    log = RunLog(tmp_path, WEIGHTS)
    write(log, 4)
    log.write_heldout(4, {"rgb/shuffle": 0.75}, 0.375)
    entry, heldout = lines(tmp_path)
    assert 0 < entry["measured"].pop("memory_gb") < 100
    assert entry == {
        "step": 4, "total": 1.5, "learning_rate": 0.25, "gradient_norm": 3.0,
        "losses": {"rgb/shuffle": 1.0, "flow/predict": 4.0},
        "weighted": {"rgb/shuffle": 0.5, "flow/predict": 1.0},
        "share": {"rgb/shuffle": pytest.approx(1 / 3), "flow/predict": pytest.approx(2 / 3)},
        "gradient_norms": {"rgb/shuffle": 0.5, "flow/predict": 2.0},
        "measured": {"clips_per_second": 8.0, "data_wait": 0.25}}
    assert heldout == {"step": 4, "heldout": {"rgb/shuffle": 0.75}, "heldout_total": 0.375}


def test_tensorboard_shows_the_same_numbers_and_the_configuration(tmp_path):
    log = RunLog(tmp_path, WEIGHTS, config="a = 1\nb = 2")
    write(log, 4)
    log.write_heldout(4, {"rgb/shuffle": 0.75}, 0.375)
    scalars, texts = {}, []
    for event in events(tmp_path):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                scalars[value.tag] = (event.step, value.simple_value)
            else:
                texts.append((value.tag, tf.make_ndarray(value.tensor).item().decode()))
                assert value.metadata.plugin_data.plugin_name == "text"
    (tag, text), = texts
    assert tag.startswith("config") and "    a = 1\n    b = 2" in text
    expected = {"total": 1.5, "learning_rate": 0.25, "gradient_norm": 3.0, "losses/rgb/shuffle": 1,
                "weighted/flow/predict": 1, "share/flow/predict": 2 / 3,
                "gradient_norms/flow/predict": 2, "measured/clips_per_second": 8,
                "measured/data_wait": 0.25, "heldout/rgb/shuffle": 0.75, "heldout_total": 0.375}
    for tag, value in expected.items():
        assert scalars[tag] == (4, pytest.approx(value)), tag
    assert len(scalars) == 3 + 4 * 2 + 3 + 2


def test_the_log_is_kept_up_to_the_checkpoint(tmp_path):
    log = RunLog(tmp_path, WEIGHTS)
    write(log, 2, 4)
    log.write_heldout(4, {"rgb/shuffle": 0.75}, 0.375)
    write(log, 6)
    path = tmp_path / LOSSES
    whole = path.read_text()
    with open(path, "a") as file:
        file.write('{"step": 8, "tot')
    resumed = RunLog(tmp_path, WEIGHTS, start=4)
    assert path.read_text() == "".join(whole.splitlines(True)[:3])
    write(resumed, 6)
    assert [x["step"] for x in lines(tmp_path)] == [2, 4, 4, 6]
    # What tells TensorBoard to forget the other step 6.
    started = [e.step for e in events(tmp_path) if e.HasField("session_log")]
    assert started == [1, 5]
    RunLog(tmp_path, WEIGHTS)
    assert path.read_text() == ""


def test_a_damaged_line_is_named(tmp_path):
    write(RunLog(tmp_path, WEIGHTS), 2, 4)
    path = tmp_path / LOSSES
    path.write_text(path.read_text().replace('{"step": 4', '{"ste'))
    with pytest.raises(UserError, match="losses.jsonl, line 2 is damaged .*delete the line"):
        RunLog(tmp_path, WEIGHTS, start=4)


def test_a_worker_whose_log_is_not_kept_writes_none(tmp_path):
    log = RunLog(tmp_path, WEIGHTS, writes=False)
    write(log, 4)
    log.write_heldout(4, {}, 0.0)
    assert not list(tmp_path.iterdir())


def test_peak_memory_is_what_the_process_had():
    before = peak_memory()
    block = np.ones(100_000_000, np.uint8)
    assert block.sum() and peak_memory() >= before
    assert 100_000_000 < peak_memory() < 100e9
