"""The loop: what it evaluates, what it tells, and that interruptions leave no trace."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import gin
import numpy as np
import pytest

from elo_tf.errors import UserError
from elo_tf.search.best_loss import render_best_loss, write_best_loss
from elo_tf.search.journal import read_journal
from elo_tf.search.loop import JOURNAL, CandidateError, run_search
from elo_tf.search.strategies import CMAES

NAMES = ["rgb/predict", "audio/align", "distill/flow/block1"]
SCRIPT = pathlib.Path(__file__).with_name("numpy_search.py")
ROOT = SCRIPT.parent.parent.parent


def sphere(weights):
    return {"fitness": sum((w - 0.8) ** 2 for w in weights.values())}


def search(run_dir, evaluate=sphere, *, seed=1, generations=3, **kwargs):
    return run_search(
        NAMES, CMAES(len(NAMES), 4, seed=seed), evaluate, run_dir=run_dir,
        generations=generations, **kwargs)


def timeless(path):
    """The journal's records without what differs between any two runs."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in ("seconds", "worker")} for r in records]


def test_is_ask_evaluate_tell(tmp_path):
    best = search(tmp_path)
    strategy = CMAES(len(NAMES), 4, seed=1)
    everything = []
    for _ in range(3):
        vectors = strategy.ask()
        results = [(v, sphere(dict(zip(NAMES, v.tolist(), strict=True)))["fitness"])
                   for v in vectors]
        strategy.tell(results)
        everything += results
    journal = read_journal(tmp_path / JOURNAL)
    assert [(list(c.weights.values()), c.fitness) for c in journal.candidates] == [
        (v.tolist(), f) for v, f in everything]
    assert best.fitness == min(f for _, f in everything)
    assert list(journal.generations[-1].mean.values()) == strategy.mean.tolist()
    assert journal.generations[-1].sigma == strategy.sigma
    assert journal.end == {"reason": "all 3 generations done", "best": {
        "generation": best.generation, "index": best.index, "fitness": best.fitness}}


@pytest.mark.parametrize("failure", [
    {"fitness": float("nan")}, {"fitness": float("inf")}, {"fitness": -float("inf")},
    {"fitness": 2000.0}, {"fitness": 0.0, "status": "failed: constant encoder"},
    CandidateError("out of memory"), FloatingPointError("loss is NaN"),
])
def test_a_failed_candidate_is_the_worst_and_never_the_best(tmp_path, failure):
    calls = []

    def evaluate(weights):
        calls.append(weights)
        if len(calls) % 3:
            return sphere(weights)
        if isinstance(failure, Exception):
            raise failure
        return failure

    best = search(tmp_path, evaluate)
    journal = read_journal(tmp_path / JOURNAL)
    failed = [c for c in journal.candidates if not c.ok]
    assert len(failed) == 4
    assert all(c.fitness == 1e3 and c.status.startswith("failed: ") for c in failed)
    assert best.ok
    assert best.fitness == min(c.fitness for c in journal.candidates)
    # What the strategy was told is what the next generations were made of.
    before = timeless(tmp_path / JOURNAL)
    strategy = CMAES(len(NAMES), 4, seed=1)
    for generation in range(3):
        mine = journal.candidates[4 * generation:4 * generation + 4]
        vectors = strategy.ask()
        assert [list(c.weights.values()) for c in mine] == vectors.tolist()
        strategy.tell([(v, c.fitness) for v, c in zip(vectors, mine, strict=True)])
    assert timeless(tmp_path / JOURNAL) == before


def test_the_report_of_a_failed_candidate_is_kept(tmp_path):
    calls = []

    def evaluate(weights):
        calls.append(weights)
        if len(calls) > 1:
            return sphere(weights)
        return {"fitness": float("inf"), "status": "low-rank", "losses": {"a": float("nan")},
                "spread": 2.0, "effective_rank": 1.5, "seconds": {"train": 1.0}}

    search(tmp_path, evaluate)
    first = read_journal(tmp_path / JOURNAL).candidates[0]
    assert (first.status, first.losses, first.spread) == ("failed: low-rank", {"a": None}, 2.0)
    assert first.seconds["train"] == 1.0
    assert first.seconds["total"] > 0


def test_all_failed_is_told_to_the_user(tmp_path):
    def evaluate(weights):
        raise CandidateError("no clips with sound")

    with pytest.raises(UserError, match="all 12 candidates .* no clips with sound"):
        search(tmp_path, evaluate)


def test_any_other_exception_ends_the_search_which_then_resumes(tmp_path):
    def evaluate(weights):
        if len(read_journal(tmp_path / "a" / JOURNAL).candidates) == 6:
            raise KeyError("a bug")
        return sphere(weights)

    with pytest.raises(KeyError):
        search(tmp_path / "a", evaluate)
    seen = []
    best = search(tmp_path / "a", on_candidate=lambda c, replayed: seen.append(replayed))
    assert seen == [True] * 6 + [False] * 6
    assert best.weights == search(tmp_path / "b").weights


def test_cut_anywhere_it_resumes_to_the_same(tmp_path):
    whole = tmp_path / "whole"
    best = search(whole, header={"config": "c"})
    content = (whole / JOURNAL).read_bytes()
    header = read_journal(whole / JOURNAL).header
    cuts = np.random.Generator(np.random.PCG64(0)).integers(0, len(content), 40)
    line_ends = [i + 1 for i, byte in enumerate(content) if byte == 10]
    for cut in [*cuts, *line_ends]:
        run_dir = tmp_path / str(cut)
        run_dir.mkdir(exist_ok=True)
        (run_dir / JOURNAL).write_bytes(content[:cut])
        resumed = search(run_dir, header={"config": "c"})
        assert timeless(run_dir / JOURNAL) == timeless(whole / JOURNAL)
        assert render_best_loss(resumed, header, dead_zone=0.02) == render_best_loss(
            best, header, dead_zone=0.02)


def test_a_finished_search_evaluates_nothing(tmp_path):
    best = search(tmp_path)
    content = (tmp_path / JOURNAL).read_bytes()

    def evaluate(weights):
        raise AssertionError("evaluated again")

    assert search(tmp_path, evaluate) == best
    assert (tmp_path / JOURNAL).read_bytes() == content


def test_another_search_in_the_same_folder_is_refused(tmp_path):
    search(tmp_path, header={"config": "one", "commit": "a"})
    for change, name in ((dict(seed=2), "seed"), (dict(generations=4), "generations"),
                         (dict(failed_fitness=99.0), "failed_fitness"),
                         (dict(header={"config": "two", "commit": "a"}), "config"),
                         (dict(header={}), "config")):
        with pytest.raises(UserError, match=f"another search: its {name} is"):
            search(tmp_path, **{"header": {"config": "one", "commit": "a"}, **change})
    search(tmp_path, header={"config": "one", "commit": "b"})


def test_a_vector_the_strategy_would_not_ask_names_its_candidate(tmp_path):
    search(tmp_path)
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    record = json.loads(lines[7])
    assert (record["generation"], record["index"]) == (1, 1)
    record["weights"]["audio/align"] = float(np.nextafter(record["weights"]["audio/align"], 1))
    lines[7] = json.dumps(record)
    (tmp_path / JOURNAL).write_text("\n".join(lines[:-3]) + "\n")
    with pytest.raises(UserError, match="candidate 1 of generation 1 has .* for audio/align"):
        search(tmp_path)


def test_ends_when_the_strategy_has_nothing_left(tmp_path):
    search(tmp_path, lambda weights: {"fitness": 1.0}, generations=3)

    class Content(CMAES):
        def stop(self):
            return "tolx=1e-11"

    run_search(NAMES, Content(3, 4), sphere, run_dir=tmp_path / "b", generations=9)
    journal = read_journal(tmp_path / "b" / JOURNAL)
    assert journal.end["reason"] == "the strategy stopped: tolx=1e-11"
    assert len(journal.candidates) == 4


def test_best_loss_is_a_gin_file_with_exact_weights(tmp_path):
    from elo_tf.training import final  # noqa: F401  (registers what the file binds)

    best = search(tmp_path, lambda w: {"fitness": w["rgb/predict"]}, generations=8)
    journal = read_journal(tmp_path / JOURNAL)
    write_best_loss(tmp_path / "best_loss.gin", best, journal.header, dead_zone=0.3)
    gin.clear_config()
    try:
        gin.parse_config_file(str(tmp_path / "best_loss.gin"))
        found = gin.query_parameter("pretrain.loss_weights")
    finally:
        gin.clear_config()
    assert list(found) == NAMES
    assert found == {n: w if w >= 0.3 else 0.0 for n, w in best.weights.items()}
    assert found["rgb/predict"] == 0.0
    text = (tmp_path / "best_loss.gin").read_text()
    assert repr(best.fitness) in text
    assert str(tmp_path) not in text


def run_script(run_dir):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, str(SCRIPT), str(run_dir)], env=environment)


def test_killed_at_random_moments_it_ends_with_the_same_best_loss(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert run_script(undisturbed).wait(60) == 0
    total = (undisturbed / JOURNAL).stat().st_size
    generator = np.random.Generator(np.random.PCG64(1))
    for share in (0.02, 0.3, 0.55, 0.8):
        process = run_script(killed)
        deadline = time.monotonic() + 60
        journal = killed / JOURNAL
        while not (journal.exists() and journal.stat().st_size > share * total):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
        assert not (killed / "best_loss.gin").exists()
    with open(killed / JOURNAL, "ab") as file:
        file.write(b'{"type": "candidate", "generation": 9, "wei')
    assert run_script(killed).wait(60) == 0
    assert (killed / "best_loss.gin").read_bytes() == (undisturbed / "best_loss.gin").read_bytes()
    assert timeless(killed / JOURNAL) == timeless(undisturbed / JOURNAL)
    assert any(not c.ok for c in read_journal(killed / JOURNAL).candidates)
