"""The journal: exact numbers, torn lines, order, and one writer at a time."""

import json

import numpy as np
import pytest

from elo_tf.errors import UserError
from elo_tf.search import journal as journal_lib

HEADER = {"version": 1, "names": ["a", "b"], "strategy": "CMAES", "seed": 1, "population": 2,
          "generations": 2}


def candidate(generation, index, fitness=0.5, **fields):
    return {"generation": generation, "index": index, "weights": {"a": 0.25, "b": 1 / 3},
            "fitness": fitness, "status": "ok", **fields}


def write_whole(path):
    with journal_lib.open_journal(path) as writer:
        writer.write("search", **HEADER)
        for generation in range(2):
            for index in range(2):
                writer.write("candidate", **candidate(generation, index, 0.5 - generation / 4))
            writer.write("generation", generation=generation, best=0.5, mean={"a": 0.1, "b": 0.2},
                         sigma=0.3)
        writer.write("end", reason="done", best={"generation": 1, "index": 0, "fitness": 0.25})


def test_reads_back_what_was_written(tmp_path):
    path = tmp_path / "journal.jsonl"
    write_whole(path)
    journal = journal_lib.read_journal(path)
    assert journal.header == HEADER
    assert [(c.generation, c.index) for c in journal.candidates] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert journal.generations[1].sigma == 0.3
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
        writer.write("candidate", **candidate(0, 0, np.float64(values[0]))
                     | {"weights": dict(zip(names, values, strict=True))})
    found = journal_lib.read_journal(path).candidates[0]
    assert list(found.weights.values()) == values
    assert found.fitness == values[0]


def test_what_is_not_finite_is_null_and_numpy_is_plain(tmp_path):
    path = tmp_path / "journal.jsonl"
    with journal_lib.open_journal(path) as writer:
        writer.write("search", **HEADER)
        writer.write("candidate", **candidate(
            0, 0, np.float32(0.5), losses={"a": np.nan, "b": np.float32(2)}, spread=np.inf,
            histogram=np.array([0.75, 0.25]), seconds={"total": np.int64(3)}))
    record = json.loads(path.read_text().splitlines()[1])
    assert record["losses"] == {"a": None, "b": 2.0}
    assert record["spread"] is None
    assert journal_lib.read_journal(path).candidates[0].histogram == (0.75, 0.25)


def test_a_torn_last_line_is_ignored_by_readers_and_cut_by_the_writer(tmp_path):
    path = tmp_path / "journal.jsonl"
    write_whole(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in range(len(lines)):
        for torn in (b"", lines[kept][:1], lines[kept][:-1]):
            path.write_bytes(b"".join(lines[:kept]) + torn)
            journal = journal_lib.read_journal(path)
            assert path.stat().st_size == journal.size + len(torn)
            assert bool(journal.header) + len(journal.candidates) + len(
                journal.generations) == kept
            with journal_lib.open_journal(path) as writer:
                assert path.read_bytes() == b"".join(lines[:kept])
                writer.write(**{
                    ("kind" if k == "type" else k): v for k, v in json.loads(lines[kept]).items()})
            assert path.read_bytes().startswith(b"".join(lines[:kept]) + b'{"type"')
            assert journal_lib.read_journal(path).size == path.stat().st_size


@pytest.mark.parametrize(("line", "text", "message"), [
    (2, "not json", "Expecting value"),
    (2, "[1]", "not an object"),
    (0, '{"type": "candidate"}', "must be 'search'"),
    (2, json.dumps({"type": "candidate", **candidate(0, 0)}), "out of order"),
    (2, json.dumps({"type": "candidate", **candidate(0, 1), "weights": {"b": 0.0, "a": 0.0}}),
     "names"),
    (2, json.dumps({"type": "candidate", **candidate(0, 1), "fitness": None}), "finite"),
    (2, json.dumps({"type": "candidate", **candidate(0, 1), "status": "fine"}), "status"),
    (2, json.dumps({"type": "candidate", **candidate(0, 1), "extra": 1}), "extra"),
    (2, json.dumps({"type": "candidate", "generation": 0, "index": 1}), "weights"),
    (2, json.dumps({"type": "search", **HEADER}), "no other"),
    (2, '{"type": "note"}', "unknown type"),
    (0, json.dumps({"type": "search", **HEADER, "version": 2}), "version"),
    (0, '{"type": "search", "version": 1}', "population"),
    (6, '{"type": "generation", "generation": 0, "best": 0, "mean": {}, "sigma": 1}', "order"),
    (7, '{"type": "end"}', "reason"),
])
def test_a_damaged_journal_is_refused_with_the_line(tmp_path, line, text, message):
    path = tmp_path / "journal.jsonl"
    write_whole(path)
    lines = path.read_text().splitlines()
    lines[line] = text
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=f"journal.jsonl, line {line + 1}: .*{message}"):
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
