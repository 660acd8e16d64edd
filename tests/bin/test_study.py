"""The study's budget, its steps, and that they go on where they stopped."""

import csv
import pathlib

import pytest

from elo_tf.bin import study_steps as program
from elo_tf.errors import UserError
from elo_tf.reporting import study
from elo_tf.search.candidate import Candidate, Control
from elo_tf.search.journal import Journal

LEAST = program.Budget(seconds=10.0, startup=30.0, training=60.0, trainings=18, population=8,
                       repeats=6, random_losses=100)


def test_a_budget_is_what_the_hours_allow():
    # 4 searches of 16 + 6 and 84 more, at 10 s; 5 starts; 18 trainings.
    assert LEAST.hours == pytest.approx((172 * 10 + 5 * 30 + 18 * 60) / 3600)
    assert LEAST.within(0.1) == LEAST
    # Of four more generations, 32 x 4 candidates, 32 take the place of random losses.
    chosen = LEAST.within(LEAST.hours + (32 * 3 * 10 + 1) / 3600)
    assert (chosen.generations, chosen.candidates, chosen.more_random) == (6, 48, 52)
    assert chosen.evaluations == 4 * (48 + 6) + 52
    assert "4 searches of 48 candidates" in chosen.sentences()[0]
    many = LEAST.within(1000.0)
    assert many.generations == program.MOST_GENERATIONS and many.more_random == 0


def test_a_candidate_is_measured_by_the_journal():
    journal = Journal(
        controls={0: Control(seconds={"build": 5.0, "compile": 15.0, "step": 0.1})},
        candidates=[Candidate(generation=0, index=i, weights={"a": 1.0}, fitness=1.0,
                              status=status, seconds={"total": seconds})
                    for i, (seconds, status) in enumerate(
                        ((20.0, "ok"), (24.0, "ok"), (1.0, "failed: diverged")))])
    options = {"workers": 2, "population": 8, "repeats": 6, "final_steps": 300, "trainings": 18,
               "random_losses": 100}
    budget = program.measured_budget(journal, **options)
    assert budget.seconds == pytest.approx(11.0)
    assert budget.startup == pytest.approx(program.STARTUP + 20.0)
    assert budget.training == pytest.approx(2 * program.STARTUP + 20.0 + 30.0)
    journal.candidates[:2] = []
    with pytest.raises(UserError, match="has failed: failed: diverged"):
        program.measured_budget(journal, **options)


def test_the_steps_of_a_study(tmp_path):
    steps = program.Steps(tmp_path, tmp_path / "records", ("--gin_file=study.gin",), "2")
    searches = list(steps.searches(LEAST))
    assert [x.product.parent.name for x in searches] == [
        "random", "cma_es", "tournament", "grid", "random_more"]
    for step in searches[:4]:
        assert "--gin_bindings=search.generations = 2" in step.command
        assert any(x.endswith(".population = 8") for x in step.command)
    assert "--gin_bindings=RandomSearch.population = 84" in searches[4].command
    # Other losses than those of the random search.
    assert "--gin_bindings=RandomSearch.seed = 2" in searches[4].command
    assert "--gin_bindings=search.leaders = 0" in searches[4].command
    final = list(steps.final(2, tmp_path / "equal.gin"))
    assert len(final) == 2 * 2 * 6 and len({x.product for x in final}) == 24
    # All losses with the first seed before any with the second.
    assert {x.product.parts[-3 if "pretrain" in str(x.product) else -2].rpartition("-")[2]
            for x in final[:12]} == {"1"}
    assert sum("--gin_bindings=PretrainingModel.weighting = 'uncertainty'" in x.command
               for x in final) == 2
    assert {pathlib.Path(x.product).parent.name.rpartition("-")[0] for x in final
            if x.product.name == study.EVALUATION} == {*study.STRATEGIES, "uniform", "uncertainty"}


def test_a_step_is_done_once(tmp_path, capfd):
    step = program.Step("make two videos", (
        "tools.make_videos", f"--output={tmp_path}", "--clips=train:2", "--size=16",
        "--seconds=0.5", "--fps=8", "--classes=2"), tmp_path / "train.csv")
    assert step.run()
    with open(step.product, newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    assert not step.run()
    said = capfd.readouterr().out
    assert "$ python -m tools.make_videos --output=" in said and "done before" in said


def test_a_step_that_fails_is_named(tmp_path):
    step = program.Step("make no videos", (
        "tools.make_videos", f"--output={tmp_path}", "--clips=train:0"), tmp_path / "train.csv")
    with pytest.raises(UserError, match="the step 'make no videos' ended with exit code 2"):
        step.run()
