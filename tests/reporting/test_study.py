"""The study's table, what it says of the numbers, and its figures."""

import json
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import scipy.stats

from elo_tf.errors import UserError
from elo_tf.reporting import study, study_figures
from elo_tf.reporting.study import Row, Score, Study

NAMES = ["rgb/predict", "rgb/shuffle", "flow/predict", "audio/align"]
STRATEGY = {"cma_es": "CMAES", "tournament": "Tournament", "grid": "Grid",
            "random": "RandomSearch", study.MORE_RANDOM: "RandomSearch"}


def write_evaluation(folder, name, seed, linear, untrained=0.2):
    run_dir = folder / "evaluate" / f"{name}-{seed}"
    run_dir.mkdir(parents=True)
    rows = [{"network": network, "protocol": protocol, "mean": mean, "std": 0.01}
            for network, mean in (("trained", linear), ("untrained", untrained))
            for protocol, mean in (("kmeans", mean / 2), ("linear", mean))]
    (run_dir / "evaluation.json").write_text(json.dumps(
        {"rows": rows, "chance": 0.125, "classes": list("abcdefgh")}))


@pytest.fixture
def folder(tmp_path, write_search):
    for i, (name, strategy) in enumerate(STRATEGY.items()):
        write_search(tmp_path / "search" / name, NAMES, strategy=strategy, seed=i,
                     **({"generations": 1, "population": 20, "leaders": 0, "repeats": 0}
                        if name == study.MORE_RANDOM else {}))
    for name, values in {"cma_es": (0.60, 0.62), "tournament": (0.50, 0.52), "grid": (0.51, 0.53),
                         "random": (0.55, 0.57), study.UNIFORM: (0.18, 0.21)}.items():
        for seed, value in enumerate(values, start=1):
            write_evaluation(tmp_path, name, seed, value, untrained=0.1 + 0.1 * seed)
    return tmp_path


def test_the_table_holds_what_the_programs_left(folder):
    found = study.read_study(folder)
    rows = {row.name: row for row in found.rows}
    assert list(rows) == ["cma_es", "tournament", "grid", "random", "uniform", "uncertainty",
                          "untrained"]
    journal = found.journals["cma_es"]
    place = journal.end["best"]
    again = [x for x in journal.repeats if (x.generation, x.index) == (
        place["generation"], place["index"])]
    assert len(again) == 2 and rows["cma_es"].candidates == 24
    assert rows["cma_es"].fitness.mean == pytest.approx(place["fitness"])
    assert rows["cma_es"].fitness.std == pytest.approx(
        abs(again[0].fitness - again[1].fitness) / math.sqrt(2))
    assert rows["cma_es"].weak.mean == pytest.approx((again[0].weak + again[1].weak) / 2)
    assert rows["cma_es"].accuracy["linear"] == Score(
        pytest.approx(0.61), pytest.approx(0.02 / math.sqrt(2)), 2)
    assert rows["cma_es"].accuracy["kmeans"].mean == pytest.approx(0.305)
    assert rows["untrained"].accuracy["linear"].mean == pytest.approx(0.25)
    assert rows["uncertainty"].accuracy == {} and rows["uniform"].candidates is None
    assert [rows[x].paper for x in ("cma_es", "tournament", "grid", "random")] == [
        0.674, 0.614, 0.573, 0.524]

    # Both random searches, and no other, are in Figure 9.
    drawn = [*found.journals["random"].candidates, *found.journals["random_more"].candidates]
    rank = [scipy.stats.rankdata(x) for x in ([-c.zipf for c in drawn], [c.weak for c in drawn])]
    assert found.correlation.n == 44
    assert found.correlation.rho == pytest.approx(np.corrcoef(*rank)[0, 1])

    text = study.as_markdown(found, ["A note."])
    assert ("| CMA-ES | 24 | " in text and "| 61.0% ± 1.4% | 67.4% |" in text
            and "8 classes, chance 12.5%" in text and "A note." in text)
    assert json.loads(json.dumps(study.as_json(found)))["figure_9"]["n"] == 44


def test_a_study_that_has_just_begun_says_nothing(tmp_path):
    found = study.read_study(tmp_path)
    assert study.findings(found) == [] and study_figures.draw(found) == {}
    assert "Nothing is measured yet." in study.as_markdown(found)
    (tmp_path / "evaluate" / "grid-1").mkdir(parents=True)
    (tmp_path / "evaluate" / "grid-1" / "evaluation.json").write_text("{")
    with pytest.raises(UserError, match="grid-1/evaluation.json is damaged"):
        study.read_study(tmp_path)


@pytest.mark.parametrize(("first", "second", "expected"), [
    (Score(0.5, 0.03, 3), Score(0.4, 0.04, 3), 1), (Score(0.4, 0.04, 3), Score(0.5, 0.03, 3), -1),
    (Score(0.449, 0.03, 3), Score(0.4, 0.04, 3), 0), (Score(0.5, 0.0, 1), Score(0.1, 0.0, 3), 0),
])
def test_means_differ_only_beyond_their_spread(first, second, expected):
    assert study.difference(first, second) == expected


def row(name, linear):
    return Row(name, study.STRATEGIES[name][0], accuracy={"linear": Score(linear, 0.01, 3)})


def test_sentences_follow_from_the_numbers():
    rows = [row("cma_es", 0.6), row("tournament", 0.5), row("grid", 0.505), row("random", 0.7)]
    rows += [Row(study.UNIFORM, "all weights equal", accuracy={"linear": Score(0.5, 0.01, 3)}),
             Row(study.UNTRAINED, "untrained network", accuracy={"linear": Score(0.65, 0.02, 3)})]
    said = "\n".join(study.findings(Study(tuple(rows), {}, 0.125, 8, None)))
    assert ("of 6 pairs of strategies 2 differ as in the paper, 3 the other way round, 1 not at "
            "all (as in the paper: CMA-ES over tournament selection, CMA-ES over grid; the other "
            "way round: random search over CMA-ES, random search over tournament selection, "
            "random search over grid; no difference: tournament selection and grid)") in said
    assert ("CMA-ES, by linear accuracy, is better than all weights equal (+10.0 points); worse "
            "than untrained network (-5.0 points).") in said
    assert "no different from all weights equal (+0.0 points)" in said
    assert "Figure 9" not in said


def test_lower_fitness_is_better():
    rows = [Row(name, study.STRATEGIES[name][0], fitness=Score(fitness, 0.001, 2))
            for name, fitness in (("cma_es", 0.1), ("random", 0.2))]
    said = study.findings(Study(tuple(rows), {}, None, None, None))
    assert len(said) == 1 and "as in the paper: CMA-ES over random search" in said[0]


def test_figure_9_in_words(folder):
    found = study.read_study(folder)
    said = [x for x in study.findings(found) if x.startswith("Figure 9")]
    r = found.correlation
    assert len(said) == 1 and "over 44 losses drawn at random" in said[0]
    assert f"{r.rho:+.2f} (95% interval {r.low:+.2f} to {r.high:+.2f}" in said[0]
    assert ("they order losses alike" in said[0]) == (r.low > 0)


def test_the_best_so_far_never_rises(folder, write_search):
    journal = write_search(folder / "other", NAMES, failed={(0, 0): "diverged"})
    best = study.best_so_far(journal)
    assert len(best) == 24 and math.isnan(best[0])
    expected = [min(x.fitness for x in journal.candidates[:i + 1] if x.ok)
                for i in range(1, 24)]
    assert best[1:] == expected


def test_figures_stand_alone(folder):
    drawn = study_figures.draw(study.read_study(folder))
    assert set(drawn) == {"progress", "figure_9"}
    for text in drawn.values():
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "prefers-color-scheme:dark" in text and "--accent:#" in text
    assert all(title in drawn["progress"] for title in (
        "CMA-ES", "tournament selection", "grid", "random search", "untrained network"))
