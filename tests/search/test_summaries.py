"""What a search writes for TensorBoard, read back by TensorBoard's own reader."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from elo_tf.search.candidate import Candidate
from elo_tf.search.journal import candidate_record, open_journal
from elo_tf.search.summaries import SearchSummaries

NAMES = ["rgb/predict", "flow/predict"]


def candidate(generation, index, fitness, *, repeat=0, **fields):
    return Candidate(generation=generation, index=index, repeat=repeat,
                     weights=dict.fromkeys(NAMES, 0.5), fitness=fitness,
                     zipf=fitness if fitness < 100 else None,
                     seconds={"total": 10.0 + index, "train": 7.0}, **fields)


def scalars(folder):
    """{tag: [(step, value)]}, in the order in which they were written."""
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(x.step, pytest.approx(x.value)) for x in found.Scalars(tag)]
            for tag in found.Tags()["scalars"]}


def run(folder, candidates, *, generation=None):
    """A run of a search that ends after these candidates, or is killed there."""
    summaries = SearchSummaries(folder)
    with open_journal(folder / "journal.jsonl") as writer:
        journal = writer.journal
        if not journal.header:
            writer.write("search", version=2, names=NAMES, strategy="CMAES", seed=1, population=3,
                         generations=1, leaders=1, repeats=1)
            writer.write("asked", generation=0, size=3)
        summaries.on_start(journal)
        for x in candidates:
            writer.write("candidate", **candidate_record(x))
            summaries.on_candidate(journal, journal.find(*x.place, x.repeat), None)
        if generation is not None:
            writer.write("generation", generation=0, **generation)
            summaries.on_generation(journal, journal.generations[-1])


def test_scalars_of_a_search_that_was_interrupted(tmp_path):
    run(tmp_path, [candidate(0, 1, 0.75, weak=0.25, effective_rank=7.5, spread=1.5)])
    run(tmp_path, [candidate(0, 0, 1000.0, status="failed: out of memory"),
                   candidate(0, 2, 0.5)],
        generation={"best": 0.5, "sigma": 0.25,
                    "mean": {"rgb/predict": 0.5, "flow/predict": 0.125}})
    run(tmp_path, [candidate(0, 2, 0.625, repeat=1)])
    assert scalars(tmp_path) == {
        # In the order in which they ended; a failed one has no fitness, and none is there twice.
        "candidate/fitness": [(0, 0.75), (2, 0.5)],
        "candidate/zipf": [(0, 0.75), (2, 0.5)],
        "candidate/weak": [(0, 0.25)], "candidate/effective_rank": [(0, 7.5)],
        "candidate/spread": [(0, 1.5)],
        "candidate/failed": [(0, 0.0), (1, 1.0), (2, 0.0)],
        "candidate/best": [(0, 0.75), (1, 0.75), (2, 0.5)],
        "seconds/total": [(0, 11.0), (1, 10.0), (2, 12.0)],
        "seconds/train": [(0, 7.0), (1, 7.0), (2, 7.0)],
        "generation/best": [(0, 0.5)], "generation/sigma": [(0, 0.25)],
        "mean/rgb/predict": [(0, 0.5)], "mean/flow/predict": [(0, 0.125)],
        "repeat/fitness": [(0, 0.625)], "repeat/zipf": [(0, 0.625)], "repeat/failed": [(0, 0.0)],
        "repeat/best": [(0, 0.5)]}


def test_a_search_that_evaluates_nothing_writes_nothing(tmp_path):
    run(tmp_path, [])
    assert not (tmp_path / "tensorboard").exists()
