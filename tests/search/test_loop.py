"""The loop: what it evaluates, what it tells, and that interruptions leave no trace."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import gin
import numpy as np
import pytest

from elo_tf.errors import UserError
from elo_tf.search import choice
from elo_tf.search.best_loss import render_best_loss, write_best_loss
from elo_tf.search.engines import InProcess
from elo_tf.search.errors import CandidateError
from elo_tf.search.journal import read_journal
from elo_tf.search.loop import JOURNAL, Watcher, run_search
from elo_tf.search.strategies import CMAES

NAMES = ["rgb/predict", "audio/align", "distill/flow/block1"]
SCRIPT = pathlib.Path(__file__).with_name("numpy_search.py")
ROOT = SCRIPT.parent.parent.parent
CONTROL = {"status": "ok", "zipf": 5.0, "seconds": {"step": 0.1}}


class Space:
    names = searched = NAMES

    def weights(self, vector):
        return dict(zip(NAMES, map(float, vector), strict=True))


class Evaluator:
    """A function of weights and repeat, as workers have it."""

    def __init__(self, function):
        self.function = function

    def evaluate(self, weights, repeat):
        return CONTROL if weights is None else self.function(weights, repeat)


def sphere(weights, repeat=0):
    del repeat
    return {"fitness": sum((w - 0.8) ** 2 for w in weights.values())}


def search(run_dir, evaluate=sphere, *, seed=1, generations=3, leaders=0, strategy=None, **kwargs):
    return run_search(
        Space(), strategy or CMAES(NAMES, 4, seed=seed), InProcess(lambda: Evaluator(evaluate)),
        run_dir=run_dir, generations=generations, leaders=leaders, **kwargs)


def timeless(path):
    """The journal's records without what differs between any two runs, in the order asked."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    records = [{k: v for k, v in r.items() if k not in ("seconds", "worker")} for r in records
               if r["type"] != "started"]
    order = ("control", "asked", "candidate", "generation", "end")
    return records[:1] + sorted(records[1:], key=lambda r: (
        r.get("repeat", 0) * (r.get("index", 0) >= 0), r.get("generation", 99),
        order.index(r["type"]), r.get("index", 0)))


def test_is_ask_evaluate_tell(tmp_path):
    journal = search(tmp_path)
    strategy = CMAES(NAMES, 4, seed=1)
    everything = []
    for _ in range(3):
        vectors = strategy.ask()
        results = [(v, sphere(dict(zip(NAMES, v.tolist(), strict=True)))["fitness"])
                   for v in vectors]
        strategy.tell(results)
        everything += results
    assert read_journal(tmp_path / JOURNAL) == journal
    assert [(list(c.weights.values()), c.fitness) for c in journal.candidates] == [
        (v.tolist(), f) for v, f in everything]
    assert journal.best.fitness == min(f for _, f in everything)
    assert list(journal.generations[-1].mean.values()) == strategy.mean.tolist()
    assert journal.generations[-1].sigma == strategy.sigma
    assert [length for length, _ in journal.generations[-1].axes] == [
        length for length, _ in strategy.axes()]
    assert journal.controls[0].zipf == CONTROL["zipf"]
    best = journal.best
    assert journal.end == {"reason": "all 3 generations done", "traces": 0, "best": {
        "generation": best.generation, "index": best.index, "fitness": best.fitness, "repeats": 0}}


@pytest.mark.parametrize("failure", [
    {"fitness": float("nan")}, {"fitness": float("inf")}, {"fitness": -float("inf")},
    {"fitness": 2000.0}, {"fitness": 0.0, "status": "failed: constant encoder"},
    CandidateError("out of memory"), FloatingPointError("loss is NaN"), MemoryError(),
])
def test_a_failed_candidate_is_the_worst_and_never_the_best(tmp_path, failure):
    calls = []

    def evaluate(weights, repeat):
        calls.append(weights)
        if len(calls) % 3:
            return sphere(weights)
        if isinstance(failure, Exception):
            raise failure
        return failure

    journal = search(tmp_path, evaluate)
    failed = [c for c in journal.candidates if not c.ok]
    assert len(failed) == 4
    assert all(c.fitness == 1e3 and c.status.startswith("failed: ") for c in failed)
    assert journal.best.ok
    assert journal.best.fitness == min(c.fitness for c in journal.candidates)
    # What the strategy was told is what the next generations were made of.
    strategy = CMAES(NAMES, 4, seed=1)
    for generation in range(3):
        mine = journal.candidates[4 * generation:4 * generation + 4]
        vectors = strategy.ask()
        assert [list(c.weights.values()) for c in mine] == vectors.tolist()
        strategy.tell([(v, c.fitness) for v, c in zip(vectors, mine, strict=True)])


def test_the_report_of_a_failed_candidate_is_kept(tmp_path):
    calls = []

    def evaluate(weights, repeat):
        calls.append(weights)
        if len(calls) > 1:
            return sphere(weights)
        return {"fitness": float("inf"), "status": "low-rank",
                "losses": {"rgb/predict": float("nan")}, "zipf": None, "weak": None,
                "spread": 2.0, "effective_rank": 1.5, "seconds": {"train": 1.0}, "worker": "a:1"}

    first = search(tmp_path, evaluate).candidates[0]
    assert (first.status, first.losses, first.spread) == (
        "failed: low-rank", {"rgb/predict": None}, 2.0)
    assert first.seconds == {"train": 1.0} and first.worker == "a:1" and first.zipf is None


def test_a_lucky_seed_does_not_win(tmp_path):
    """Of the leaders, the one of best mean over other seeds; its own first fitness is no part."""
    lucky = []

    def evaluate(weights, repeat):
        value = sphere(weights)["fitness"]
        if repeat == 0 and value > 0.4 and not lucky:
            lucky.append(weights)
            return {"fitness": 0.0}
        return {"fitness": value + 0.01 * repeat, "zipf": value}

    journal = search(tmp_path, evaluate, leaders=3, repeats=2)
    assert min(journal.candidates, key=lambda x: x.fitness).weights == lucky[0]
    true = {c.place: sphere(c.weights)["fitness"] for c in journal.candidates}
    leaders = sorted(journal.candidates, key=lambda x: x.fitness)[:3]
    best = min(leaders, key=lambda x: true[x.place])
    assert journal.best is best and best.weights != lucky[0]
    assert journal.end["best"]["fitness"] == pytest.approx(true[best.place] + 0.015)
    assert journal.end["best"]["repeats"] == 2
    assert {(x.place, x.repeat) for x in journal.repeats} == {
        (x.place, repeat) for x in leaders for repeat in (1, 2)}
    assert choice.repeated_fitness(journal, best) == journal.end["best"]["fitness"]
    # A random encoder stands beside each seed.
    assert sorted(journal.controls) == [0, 1, 2]


def test_a_leader_that_fails_with_another_seed_does_not_win(tmp_path):
    def evaluate(weights, repeat):
        if repeat == 2 and weights == first:
            raise CandidateError("diverged")
        return sphere(weights)

    first = {}
    first = dict(search(tmp_path / "a").best.weights)
    journal = search(tmp_path / "b", evaluate, leaders=2, repeats=2)
    assert journal.best.weights != first and journal.end["best"]["fitness"] < 1


def test_what_is_rechecked_is_told_with_both_values(tmp_path):
    told = []

    class Doubting(CMAES):
        def recheck(self, fitness):
            return [int(np.argmin(fitness))]

        def tell(self, results, rechecked=None):
            told.append((dict(enumerate(f for _, f in results)), dict(rechecked)))
            super().tell(results, rechecked)

    journal = search(tmp_path, lambda w, repeat: {"fitness": sphere(w)["fitness"] + repeat},
                     strategy=Doubting(NAMES, 4), generations=2)
    for fitness, rechecked in told:
        (index, again), = rechecked.items()
        assert fitness[index] == min(fitness.values()) and again == fitness[index] + 1
    assert len(journal.repeats) == 2


def test_watchers_are_told_once_of_what_is_new(tmp_path):
    class Counting(Watcher):
        def __init__(self):
            self.seen = []

        def on_start(self, journal):
            self.seen.append("start")

        def on_candidate(self, journal, candidate, clusters):
            assert journal.find(*candidate.place, candidate.repeat) is candidate
            self.seen.append(clusters)

        def on_generation(self, journal, generation):
            self.seen.append(f"generation {generation.generation}")

        def on_end(self, journal):
            self.seen.append("end")

    first, second = Counting(), Counting()
    clusters = {"shares": [1.0], "clips": [["a"]]}
    search(tmp_path, lambda w, r: sphere(w) | {"clusters": clusters}, generations=1,
           watchers=[first])
    assert first.seen == ["start", *[clusters] * 4, "generation 0", "end"]
    search(tmp_path, generations=1, watchers=[second])
    assert second.seen == ["end"]


def test_the_forecast_comes_before_the_first_candidate(tmp_path):
    search(tmp_path, generations=1, forecast=lambda control: {"hours": control.seconds["step"]})
    kinds = [json.loads(x)["type"] for x in (tmp_path / JOURNAL).read_text().splitlines()]
    assert kinds[:5] == ["search", "started", "control", "forecast", "asked"]
    assert read_journal(tmp_path / JOURNAL).forecast == {"hours": 0.1}


def test_all_failed_is_told_to_the_user(tmp_path):
    def evaluate(weights, repeat):
        raise CandidateError("no clips with sound")

    with pytest.raises(UserError, match="all 12 candidates .* no clips with sound"):
        search(tmp_path, evaluate)


def test_any_other_exception_ends_the_search_which_then_resumes(tmp_path):
    def evaluate(weights, repeat):
        if len(read_journal(tmp_path / "a" / JOURNAL).candidates) == 6:
            raise KeyError("a bug")
        return sphere(weights)

    with pytest.raises(KeyError):
        search(tmp_path / "a", evaluate)
    new = []
    journal = search(tmp_path / "a", lambda w, r: new.append(w) or sphere(w))
    assert len(new) == 6
    assert journal.best.weights == search(tmp_path / "b").best.weights


def test_cut_anywhere_it_resumes_to_the_same(tmp_path):
    whole = tmp_path / "whole"
    journal = search(whole, header={"config": "c"}, leaders=2)
    content = (whole / JOURNAL).read_bytes()
    cuts = np.random.Generator(np.random.PCG64(0)).integers(0, len(content), 40)
    line_ends = [i + 1 for i, byte in enumerate(content) if byte == 10]
    for cut in [*cuts, *line_ends]:
        run_dir = tmp_path / str(cut)
        run_dir.mkdir(exist_ok=True)
        (run_dir / JOURNAL).write_bytes(content[:cut])
        resumed = search(run_dir, header={"config": "c"}, leaders=2)
        assert timeless(run_dir / JOURNAL) == timeless(whole / JOURNAL)
        assert render_best_loss(resumed, dead_zone=0.02) == render_best_loss(
            journal, dead_zone=0.02)


def test_a_finished_search_evaluates_nothing(tmp_path):
    journal = search(tmp_path)
    content = (tmp_path / JOURNAL).read_bytes()

    def evaluate(weights, repeat):
        raise AssertionError("evaluated again")

    assert search(tmp_path, evaluate).best == journal.best
    assert (tmp_path / JOURNAL).read_bytes() == content


def test_another_search_in_the_same_folder_is_refused(tmp_path):
    search(tmp_path, header={"config": "one", "commit": "a"})
    for change, name in ((dict(seed=2), "seed"), (dict(generations=4), "generations"),
                         (dict(leaders=2), "leaders"), (dict(repeats=7), "repeats"),
                         (dict(failed_fitness=99.0), "failed_fitness"),
                         (dict(header={"config": "two", "commit": "a"}), "config"),
                         (dict(header={}), "config")):
        with pytest.raises(UserError, match=f"another search: its {name} is"):
            search(tmp_path, **{"header": {"config": "one", "commit": "a"}, **change})
    search(tmp_path, header={"config": "one", "commit": "b"})


def test_a_vector_the_strategy_would_not_ask_names_its_candidate(tmp_path):
    search(tmp_path)
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    place, record = next(
        (i, r) for i, r in enumerate(map(json.loads, lines))
        if r["type"] == "candidate" and (r["generation"], r["index"]) == (1, 1))
    record["weights"][1] = float(np.nextafter(record["weights"][1], 1))
    (tmp_path / JOURNAL).write_text("\n".join([*lines[:place], json.dumps(record)]) + "\n")
    with pytest.raises(UserError, match="candidate 1 of generation 1 has .* for audio/align"):
        search(tmp_path)


def test_ends_when_the_strategy_has_nothing_left(tmp_path):
    class Content(CMAES):
        def stop(self):
            return "tolx=1e-11"

    journal = search(tmp_path / "b", strategy=Content(NAMES, 4), generations=9)
    assert journal.end["reason"] == "the strategy stopped: tolx=1e-11"
    assert len(journal.candidates) == 4


def test_best_loss_is_a_gin_file_with_exact_weights(tmp_path):
    from elo_tf.training import final  # noqa: F401  (registers what the file binds)

    journal = search(tmp_path, lambda w, r: {"fitness": w["rgb/predict"]}, generations=8)
    best = journal.best
    write_best_loss(tmp_path / "best_loss.gin", journal, dead_zone=0.3)
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
    assert repr(best.fitness) in text and repr(CONTROL["zipf"]) in text
    assert str(tmp_path) not in text


def run_script(run_dir, *arguments, **kwargs):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, str(SCRIPT), str(run_dir), *arguments],
                            env=environment, **kwargs)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The run directory of an undisturbed search in process."""
    run_dir = tmp_path_factory.mktemp("calm")
    assert run_script(run_dir).wait(60) == 0
    return run_dir


def same(run_dir, calm):
    assert (run_dir / "best_loss.gin").read_bytes() == (calm / "best_loss.gin").read_bytes()
    assert timeless(run_dir / JOURNAL) == timeless(calm / JOURNAL)


def test_killed_at_random_moments_it_ends_with_the_same_best_loss(tmp_path, calm):
    total = (calm / JOURNAL).stat().st_size
    generator = np.random.Generator(np.random.PCG64(1))
    for share, workers in ((0.02, "0"), (0.3, "2"), (0.55, "0"), (0.8, "3")):
        process = run_script(tmp_path, workers)
        deadline = time.monotonic() + 60
        journal = tmp_path / JOURNAL
        while not (journal.exists() and journal.stat().st_size > share * total):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
        assert not (tmp_path / "best_loss.gin").exists()
    with open(tmp_path / JOURNAL, "ab") as file:
        file.write(b'{"type": "candidate", "generation": 9, "wei')
    assert run_script(tmp_path, "2").wait(60) == 0
    same(tmp_path, calm)
    found = read_journal(tmp_path / JOURNAL)
    assert any(not c.ok for c in found.candidates)
    # What was begun more than once was cut short by a kill.
    begun = [(x["generation"], x["index"], x["repeat"]) for x in found.started]
    assert len(begun) > len(set(begun))


@pytest.mark.parametrize("strategy", ["restarts", "noise", "tournament", "random", "grid"])
def test_every_strategy_resumes_to_the_same(tmp_path, strategy):
    assert run_script(tmp_path / "whole", "0", strategy).wait(60) == 0
    content = (tmp_path / "whole" / JOURNAL).read_bytes()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / JOURNAL).write_bytes(content[:len(content) * 2 // 3])
    assert run_script(tmp_path / "cut", "2", strategy).wait(60) == 0
    same(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.parametrize("fault", ["kill:1", "memory:1"])
def test_a_worker_that_is_lost_costs_nothing(tmp_path, calm, fault):
    assert run_script(tmp_path, "2", "cma_es", fault).wait(60) == 0
    assert (tmp_path / "fault-1").exists()
    same(tmp_path, calm)
    attempts = [x["attempt"] for x in read_journal(tmp_path / JOURNAL).started]
    assert attempts.count(2) == 1 and max(attempts) == 2


def test_a_candidate_that_never_ends_has_failed_and_the_search_goes_on(tmp_path):
    assert run_script(tmp_path, "2", "cma_es", "hang:1").wait(60) == 0
    journal = read_journal(tmp_path / JOURNAL)
    assert journal.end["reason"] == "all 12 generations done"
    hung = [x for x in journal.candidates if not x.ok and "2 s" in x.status]
    assert len(hung) == 1 and (hung[0].generation, hung[0].fitness) == (0, 1e3)


def test_a_full_disk_ends_the_search_which_then_resumes(tmp_path, calm):
    def limit():
        # Writing past it is an error, as on a disk that is full; not a signal.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = (calm / JOURNAL).stat().st_size // 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    process = run_script(tmp_path, preexec_fn=limit, stderr=subprocess.PIPE, text=True)
    _, said = process.communicate(timeout=60)
    assert process.returncode and "File too large" in said and str(tmp_path / JOURNAL) in said
    # The record that did not fit is torn, and nothing before it is lost.
    assert not (tmp_path / JOURNAL).read_bytes().endswith(b"\n")
    assert read_journal(tmp_path / JOURNAL).candidates
    assert run_script(tmp_path).wait(60) == 0
    same(tmp_path, calm)
