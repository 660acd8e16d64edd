"""The report of a running search: when it is written, and that it never ends the search."""

import json
import logging

import numpy as np
import pytest

from elo_tf.reporting import live, report
from elo_tf.reporting.live import LiveReport


class Clock:
    """Seconds that pass only where the report is written, and where a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def slow(monkeypatch):
    """A clock, and the times at which reports were begun, each of which takes two seconds."""
    clock, begun = Clock(), []
    write = report.write_report

    def timed(*arguments, **named):
        begun.append(clock.now)
        clock.now += 2.0
        return write(*arguments, **named)

    monkeypatch.setattr(live.report, "write_report", timed)
    return clock, begun


@pytest.fixture
def search(tmp_path, write_search):
    names = ["rgb/predict", "flow/predict", "rgb/shuffle"]
    return tmp_path / "search", write_search(tmp_path / "search", names, generations=1,
                                             population=4, end=False)


def test_at_most_a_fiftieth_of_the_time(search, slow):
    folder, journal = search
    clock, begun = slow
    watcher = LiveReport(folder, clock=clock)
    watcher.on_start(journal)
    for _ in range(150):
        clock.now += 1.0
        watcher.on_candidate(journal, journal.candidates[0], None)
        watcher.on_generation(journal, journal.generations[0])
    # Each write takes 2 s, from its end to the next one go 100 s.
    assert begun == [100.0, 202.0]
    watcher.on_end(journal)
    assert begun[-1] == clock.now - 2.0
    text = (folder / "report.html").read_text()
    assert "Running: 4 of 4 candidates" in text
    assert not list(folder.glob("*.tmp*"))


def test_what_goes_wrong_is_logged_once(search, caplog, monkeypatch):
    folder, journal = search
    clusters = folder / "clusters.json"
    clusters.write_text("{")
    watcher = LiveReport(folder, read_clips=lambda ids: {})
    with caplog.at_level(logging.WARNING):
        watcher.on_start(journal)
        watcher.on_end(journal)
    assert not (folder / "report.html").exists()
    said = [x.getMessage() for x in caplog.records if "report.html" in x.getMessage()]
    assert len(said) == 1
    assert "clusters.json is damaged" in said[0]
    clusters.unlink()
    watcher.on_end(journal)
    assert (folder / "report.html").exists()
    # What is not an error of the drawing passes.
    def interrupted(*arguments, **named):
        raise KeyboardInterrupt
    monkeypatch.setattr(live.report, "write_report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        watcher.on_end(journal)


def test_without_clips_the_report_is_written_all_the_same(search, caplog):
    folder, journal = search

    def read_clips(ids):
        raise OSError(f"no clip {ids[0]}")

    write_nearest(folder, "ab")
    watcher = LiveReport(folder, read_clips=read_clips)
    with caplog.at_level(logging.WARNING):
        watcher.on_start(journal)
        write_nearest(folder, "cd")
        watcher.on_end(journal)
    assert "Running: 4 of 4" in (folder / "report.html").read_text()
    assert [x.getMessage() for x in caplog.records] == [
        "the clips of the clusters could not be read, the search goes on: OSError: no clip a"]


def write_nearest(folder, ids):
    (folder / "clusters.json").write_text(json.dumps({
        "generation": 0, "index": 1, "repeat": 0, "fitness": 1.0, "shares": [1.0],
        "clips": [list(ids)]}))


def test_clips_are_read_when_they_are_others(search):
    folder, journal = search
    asked = []

    def read_clips(ids):
        asked.append(ids)
        return {x: np.zeros([4, 8, 8, 3], np.uint8) for x in ids}

    watcher = LiveReport(folder, read_clips=read_clips)
    watcher.on_start(journal)
    for ids in ("ab", "ab", "ac"):
        write_nearest(folder, ids)
        watcher.on_end(journal)
    assert asked == [["a", "b"], ["a", "c"]]
    assert 'alt="frames of c"' in (folder / "report.html").read_text()


def test_a_search_that_had_ended_keeps_its_report(search, slow):
    folder, journal = search
    _, begun = slow
    for _ in range(2):  # The first time there is none yet.
        LiveReport(folder).on_end(journal)
        assert len(begun) == 1
