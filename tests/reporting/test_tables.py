"""The tables of all methods, what they say of the numbers, and Figures 5 and 6."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from elo_tf.errors import UserError
from elo_tf.evaluation import paper
from elo_tf.reporting import tables, tables_figures, tables_findings
from elo_tf.reporting.scores import Score
from elo_tf.reporting.tables import Curve, Plan, Row, Tables


def write_evaluation(folder, name, linear, *, curves=(), **more):
    """An evaluation as bin/evaluate leaves it; k-means is half of `linear`."""
    run_dir = folder / "evaluate" / name
    run_dir.mkdir(parents=True)
    values = {"kmeans": linear / 2, "linear": linear, "knn": linear - 0.01, **more}
    rows = [{"network": network, "protocol": protocol, "mean": mean, "std": 0.01, "n": 3,
             "interval": 0.02, "values": [mean] * 3}
            for network, gain in (("trained", 0.0), ("untrained", -0.05))
            for protocol, mean in ((x, y + gain) for x, y in values.items())]
    (run_dir / "evaluation.json").write_text(json.dumps({
        "rows": rows, "curves": [{"network": "trained", "interval": [0.0] * 3, "n": 3, **x}
                                 for x in curves],
        "chance": 0.125, "classes": list("abcdefgh"), "test_clips": 80, "train_clips": 40}))


def curve(*mean):
    return {"protocol": "linear", "clips": [4, 20, 40], "mean": list(mean)}


@pytest.fixture
def folder(tmp_path):
    for seed in (1, 2):
        gain = 0.01 * seed
        write_evaluation(tmp_path, f"scratch-{seed}", 0.30 + gain, finetune=0.5,
                         curves=[curve(0.2, 0.3 + gain, 0.4)])
        write_evaluation(tmp_path, f"elo-{seed}", 0.60 + gain, finetune=0.7,
                         curves=[curve(0.3, 0.5, 0.6)])
        write_evaluation(tmp_path, f"frame_shuffle-{seed}", 0.20 + gain)
        for heldout, linear in ((95, 0.35), (20, 0.55)):
            write_evaluation(tmp_path, f"elo-heldout{heldout}-{seed}", linear + gain)
    write_evaluation(tmp_path, "elo-1-static", 0.5)
    (tmp_path / "data.json").write_text(json.dumps({"fit": {"95": 50, "80": 200, "20": 800}}))
    return tmp_path


def plan(*rows, seeds=(1, 2), **options):
    return Plan(rows=rows, seeds=seeds, **options)


def test_the_tables_hold_what_the_programs_left(folder):
    found = tables.read_tables(folder, plan("scratch", "imagenet", "frame_shuffle", "elo"),
                               {"imagenet": "not run: no weights file given"})
    rows = {row.name: row for row in found.rows}
    assert rows["elo"].scores["linear"] == Score(
        pytest.approx(0.615), pytest.approx(0.01 / np.sqrt(2)), 2)
    assert rows["elo"].scores["kmeans"].mean == pytest.approx(0.3075)
    assert rows["elo"].static["linear"].mean == 0.5 and rows["imagenet"].scores == {}
    assert "finetune" not in rows["frame_shuffle"].scores
    curves = {x.name: x for x in found.label_curves}
    assert set(curves) == {"scratch", "elo"} and curves["scratch"].clips == (4, 20, 40)
    assert curves["scratch"].scores[1] == Score(
        pytest.approx(0.315), pytest.approx(0.01 / np.sqrt(2)), 2)
    # The number of clips, not the share that is held out, is in order.
    assert found.unlabelled_curve.clips == (50, 800)
    assert [x.mean for x in found.unlabelled_curve.scores] == pytest.approx([0.365, 0.565])

    text = tables.as_markdown(found, ["A note."])
    assert "| ELo | 30.8% ± 0.4% | 61.5% ± 0.7% | 70.0% ± 0.0% | 43.4% | 64.5% | 67.4% |" in text
    assert "| ImageNet (not run: no weights file given) |  |  |  | 32.5% | 37.8% | 49.8% |" in text
    assert "| ELo | 70.0% ± 0.0% | 67.4% | 93.8% |" in text
    assert "| Scratch | 20.0% ± 0.0% | 31.5% ± 0.7% | 40.0% ± 0.0% |" in text
    assert "| Scratch | 0.9% | 2.1% |" in text and "A note." in text
    assert "| 1-layer | 36.5% ± 0.7% | 56.5% ± 0.7% |" in text
    assert "on 80 clips of 8 classes, chance 12.5%" in text
    stored = json.loads(json.dumps(tables.as_json(found, ["A note."])))
    assert stored["rows"][3]["paper"]["table_1"] == [43.4, 64.5, 67.4]
    assert stored["evaluations"]["elo-2"]["rows"][1]["values"] == [0.62] * 3


def test_nothing_is_said_of_nothing(tmp_path):
    found = tables.read_tables(tmp_path, plan("scratch", "elo"))
    assert tables_findings.findings(found) == [] and tables_figures.draw(found) == {}
    assert "Nothing is measured yet." in tables.as_markdown(found)
    write_evaluation(tmp_path, "elo-1", 0.5)
    (tmp_path / "evaluate" / "elo-1" / "evaluation.json").write_text("{")
    with pytest.raises(UserError, match="elo-1/evaluation.json is damaged"):
        tables.read_tables(tmp_path, plan("scratch", "elo"))


def tables_of(means, *, std=0.0, n=1, **options):
    rows = tuple(Row(name, tables.METHODS[name], {
        protocol: Score(x, std, n) for protocol, x in (("linear", mean), ("finetune", mean))})
        for name, mean in means.items())
    seeds = tuple(range(1, n + 1))
    return Tables(plan(*means, seeds=seeds), rows, options.get("curves", ()),
                  options.get("unlabelled"), {})


def test_elo_against_its_rivals():
    means = {"scratch": 0.4, "opn": 0.5, "patch": 0.45, "random_loss": 0.52, "equal_weights": 0.6,
             "elo_no_distillation": 0.51, "elo": 0.52}
    said = "\n".join(tables_findings.findings(tables_of(means)))
    assert "One seed: no spread is known." in said
    assert ("By 1-layer accuracy, ELo (52.0%) is better than the best single task, OPN (+2.0 "
            "points), ELo without distillation (+1.0 points), scratch (+12.0 points); worse than "
            "equal weights (-8.0 points); no different from the random loss (+0.0 points).") in said
    # With the spread of several seeds, a point is no difference.
    said = "\n".join(tables_findings.findings(tables_of(means, std=0.015, n=3)))
    assert "One seed" not in said
    assert "no different from the best single task, OPN (+2.0 points)" in said
    assert "6 of 6 methods beat scratch, 40.0%" in said


def test_orders_are_counted_against_the_papers():
    means = {"scratch": 0.5, "frame_shuffle": 0.3, "reverse_detection": 0.4, "elo": 0.6,
             "jigsaw": 1.0}
    said = "\n".join(tables_findings.findings(tables_of(means)))
    # The paper, 1-layer: elo 64.5 > shuffle 24.3 = reverse 24.3 > scratch 17.8; so 5 pairs.
    assert ("Table 1, 1-layer: of 5 pairs of methods 3 are in the paper's order, 2 the other way "
            "round, 0 no different (the other way round: Scratch over Frame shuffle, Reverse "
            "detection).") in said
    # Fine-tuned: elo 67.4 > scratch 35.2 > shuffle 28.4 > reverse 27.5.
    assert ("Table 1, fine-tune: of 6 pairs of methods 5 are in the paper's order, 1 the other way "
            "round, 0 no different (the other way round: Reverse detection over Frame shuffle)."
            ) in said
    assert "Table 2, UCF101: of 1 pair of methods 1 are in the paper's order" in said


def test_every_pair_of_the_paper_itself_is_in_its_order():
    for i, protocol in enumerate(paper.PROTOCOLS):
        rows = [Row(name, tables.METHODS[name], {protocol: Score(values[i] / 100, 0.0, 1)})
                for name, values in paper.TABLE_1.items()]
        said = "\n".join(tables_findings.findings(
            Tables(plan(*paper.TABLE_1, seeds=(1,)), tuple(rows), (), None, {})))
        assert " 0 the other way round, 0 no different." in said


def test_curves_are_put_in_words():
    def of(name, *means):
        return Curve(name, "linear", (4, 20, 40), tuple(Score(x, 0.0, 1) for x in means))

    found = tables_of({"scratch": 0.4, "elo": 0.5},
                      curves=(of("scratch", 0.2, 0.3, 0.4), of("elo", 0.3, 0.45, 0.44)),
                      unlabelled=of("elo", 0.3, 0.2, 0.5))
    said = "\n".join(tables_findings.findings(found))
    assert ("+10.0 points with 4 labelled clips, +4.0 points with 40 labelled clips. It reaches "
            "what scratch has with all 40 (40.0%) with 20.") in said
    assert "from 4 to 40 unlabelled clips" in said and "it rises in 1 of 2 steps" in said
    for drawn in tables_figures.draw(found).values():
        texts = {x.text for x in ElementTree.fromstring(drawn).iter() if x.text}
        assert {"4", "20", "40"} <= texts and "ELo" in texts
    assert set(tables_figures.draw(found)) == {"figure_5", "figure_6"}


def test_one_frame_alone_is_compared_where_it_was_measured():
    row = Row("elo", "ELo", {"kmeans": Score(0.5, 0.01, 3), "linear": Score(0.6, 0.01, 3)},
              {"kmeans": Score(0.4, 0.01, 3), "linear": Score(0.6, 0.01, 3)})
    found = Tables(plan("elo", seeds=(1, 2, 3), static=True), (row,), (), None, {})
    assert ("ELo: k-means accuracy 50.0% of the clip, 40.0% of its middle frame (motion helps); "
            "1-layer accuracy 60.0% of the clip, 60.0% of its middle frame (no difference)."
            ) in tables_findings.findings(found)
    assert "| ELo | 50.0% ± 1.0% | 60.0% ± 1.0% |  | 40.0% ± 1.0% | 60.0% ± 1.0% |" in (
        tables.as_markdown(found))


@pytest.mark.parametrize(("options", "said"), [
    ({"rows": ("elo", "ello")}, "tables.rows names 'ello'"), ({"seeds": ()}, "must not be empty"),
    ({"heldout": (20, 100)}, "tables.heldout holds 100"),
])
def test_plans_that_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        Plan(**options)


def test_every_figure_of_the_paper_has_a_row():
    assert {*paper.TABLE_1, *paper.TABLE_2, *paper.TABLE_3} <= set(tables.METHODS)
    assert set(tables_findings.SINGLE) <= set(tables.METHODS)
