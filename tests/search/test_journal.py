"""The journal: exact numbers, torn lines, order, and one writer at a time."""

import json

import numpy as np
import pytest

from elo_tf.errors import UserError
from elo_tf.search import journal as journal_lib
from elo_tf.search.candidate import Candidate

HEADER = {"version": 2, "names": ["a", "b"], "strategy": "CMAES", "seed": 1, "population": 2,
          "generations": 2, "leaders": 1, "repeats": 1}


def candidate(generation, index, fitness=0.5, **fields):
    return {"generation": generation, "index": index, "repeat": 0, "weights": [0.25, 1 / 3],
            "fitness": fitness, "status": "ok", **fields}


def write_whole(path):
    """Candidates end in another order than they were asked in; the best is evaluated again."""
    with journal_lib.open_journal(path) as writer:
        writer.write("search", **HEADER)
        writer.write("control", zipf=0.9, histogram=[0.5, 0.5], seconds={"step": 0.25})
        for generation in range(2):
            writer.write("asked", generation=generation, size=2)
            for index in (1, 0):
                writer.write("started", generation=generation, index=index, repeat=0, attempt=1,
                             worker="host:1")
                writer.write("candidate", **candidate(generation, index, 0.5 - generation / 4))
            writer.write("generation", generation=generation, best=0.5, mean={"a": 0.1, "b": 0.2},
                         sigma=0.3, axes=[[0.4, {"a": 1.0, "b": 0.0}]])
        writer.write("candidate", **candidate(1, 0, 0.375) | {"repeat": 1})
        writer.write("end", reason="done", best={
            "generation": 1, "index": 0, "fitness": 0.375, "repeats": 1})


def test_reads_back_what_was_written(tmp_path):
    path = tmp_path / "journal.jsonl"
    write_whole(path)
    journal = journal_lib.read_journal(path)
    assert journal.header == HEADER
    assert [(c.generation, c.index) for c in journal.candidates] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert journal.controls[0].zipf == 0.9 and journal.controls[0].seconds["step"] == 0.25
    assert [x["index"] for x in journal.started] == [1, 0, 1, 0]
    assert [(x.place, x.fitness) for x in journal.repeats] == [((1, 0), 0.375)]
    assert journal.repeats_of(journal.best) == journal.repeats
    assert journal.generations[1].sigma == 0.3
    assert journal.generations[1].axes == ((0.4, {"a": 1.0, "b": 0.0}),)
    assert journal.end["reason"] == "done"
    assert journal.best is journal.candidates[2]
    assert journal.size == path.stat().st_size


def test_numbers_round_trip_to_the_last_bit(tmp_path):
    generator = np.random.Generator(np.random.PCG64(0))
    path = tmp_path / "journal.jsonl"
    values = [float(generator.random()), 5e-324, 0.1 + 0.2, 1.0]
    names = [f"n{i}" for i in range(4)]
    with journal_lib.open_journal(path) as writer:
        writer.write("search", **{**HEADER, "names": names})
        writer.write("asked", generation=0, size=1)
        writer.write("candidate", **candidate(0, 0, np.float64(values[0]))
                     | {"weights": np.array(values)})
    found = journal_lib.read_journal(path).candidates[0]
    assert list(found.weights.values()) == values
    assert found.fitness == values[0]


def test_what_is_not_finite_is_null_and_numpy_is_plain(tmp_path):
    path = tmp_path / "journal.jsonl"
    with journal_lib.open_journal(path) as writer:
        writer.write("search", **HEADER)
        writer.write("asked", generation=0, size=1)
        writer.write("candidate", **candidate(
            0, 0, np.float32(0.5), losses=[np.nan, np.float32(1 / 3)], trained=["a", "b"],
            spread=np.inf, histogram=np.array([0.75, 0.25]), seconds={"total": np.int64(3)}))
    record = json.loads(path.read_text().splitlines()[2])
    assert record["losses"] == [None, 0.333333]  # six digits
    assert record["spread"] is None
    found = journal_lib.read_journal(path).candidates[0]
    assert found.histogram == (0.75, 0.25)
    assert found.losses == {"a": None, "b": 0.333333}


def test_a_loss_that_was_not_trained_is_left_out_and_one_that_diverged_is_none(tmp_path):
    path = tmp_path / "journal.jsonl"
    weights = {"a": 0.5, "b": 0.25, "c": 0.0}
    written = [{"a": 1.5, "b": None}, {"b": 2.0}, {}]
    with journal_lib.open_journal(path) as writer:
        writer.write("search", **HEADER | {"names": list(weights)})
        writer.write("asked", generation=0, size=3)
        for index, losses in enumerate(written):
            writer.write("candidate", **journal_lib.candidate_record(Candidate(
                generation=0, index=index, weights=weights, fitness=1.0, losses=losses)))
    found = journal_lib.read_journal(path).candidates
    assert [x.losses for x in found] == written
    assert found[0].weights == weights


def test_a_torn_last_line_is_ignored_by_readers_and_cut_by_the_writer(tmp_path):
    path = tmp_path / "journal.jsonl"
    write_whole(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in range(len(lines)):
        for torn in (b"", lines[kept][:1], lines[kept][:-1]):
            path.write_bytes(b"".join(lines[:kept]) + torn)
            journal = journal_lib.read_journal(path)
            assert path.stat().st_size == journal.size + len(torn)
            assert sum(map(len, (journal.candidates, journal.generations, journal.started,
                                 journal.controls, journal.repeats))) == sum(
                json.loads(x)["type"] in ("candidate", "generation", "started", "control")
                for x in lines[:kept])
            with journal_lib.open_journal(path) as writer:
                assert path.read_bytes() == b"".join(lines[:kept])
                writer.write(**{
                    ("kind" if k == "type" else k): v for k, v in json.loads(lines[kept]).items()})
            assert path.read_bytes().startswith(b"".join(lines[:kept]) + b'{"type"')
            assert journal_lib.read_journal(path).size == path.stat().st_size


def line(kind, **fields):
    return json.dumps({"type": kind, **fields})


# Lines of `write_whole`: search, control, asked, then started and candidate of (0, 1).
@pytest.mark.parametrize(("number", "text", "message"), [
    (3, "not json", "Expecting value"),
    (3, "[1]", "not an object"),
    (0, line("candidate"), "must be 'search'"),
    (2, line("asked", generation=1, size=2), "out of order"),
    (2, line("asked", generation=0, size=0), "positive"),
    (4, line("candidate", **candidate(1, 1)), "out of order"),
    (4, line("candidate", **candidate(0, 2)), "out of order"),
    (6, line("candidate", **candidate(0, 1)), "a second candidate 1"),
    (4, line("candidate", **candidate(0, 1) | {"repeat": 1}), "before its first"),
    (4, line("candidate", **candidate(0, 1) | {"weights": [0.0]}), "list of 2"),
    (4, line("candidate", **candidate(0, 1) | {"weights": [0.0, None]}), "finite numbers"),
    (4, line("candidate", **candidate(0, 1) | {"fitness": None}), "finite"),
    (4, line("candidate", **candidate(0, 1) | {"status": "fine"}), "status"),
    (4, line("candidate", **candidate(0, 1), extra=1), "extra"),
    (4, line("candidate", weights=[0, 0], index=1), "generation"),
    (2, line("search", **HEADER), "no other"),
    (2, line("control"), "second control"),
    (2, line("note"), "unknown type"),
    (0, line("search", **HEADER | {"version": 1}), "version"),
    (0, line("search", version=2), "names"),
    (6, line("generation", generation=0, best=0, mean={}, sigma=1), "order"),
    (14, line("end", best={"generation": 5, "index": 0}, reason=""), "not in the journal"),
    (14, line("end"), "reason"),
])
def test_a_damaged_journal_is_refused_with_the_line(tmp_path, number, text, message):
    path = tmp_path / "journal.jsonl"
    write_whole(path)
    lines = path.read_text().splitlines()
    lines[number] = text
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=f"journal.jsonl, line {number + 1}: .*{message}"):
        journal_lib.read_journal(path)


def test_nothing_comes_after_the_end(tmp_path):
    path = tmp_path / "journal.jsonl"
    write_whole(path)
    size = path.stat().st_size
    with (journal_lib.open_journal(path) as writer,
          pytest.raises(ValueError, match="after the end")):
        writer.write("candidate", **candidate(2, 0))
    assert path.stat().st_size == size


def test_only_one_search_writes_a_journal(tmp_path):
    path = tmp_path / "journal.jsonl"
    with journal_lib.open_journal(path):
        with pytest.raises(UserError, match="in use"), journal_lib.open_journal(path):
            pass
        assert journal_lib.read_journal(path).size == 0
    with journal_lib.open_journal(path):
        pass


def test_a_missing_journal_is_empty(tmp_path):
    journal = journal_lib.read_journal(tmp_path / "none.jsonl")
    assert journal.header == {}
    assert journal.best is None
