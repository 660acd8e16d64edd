"""What the report says of a search, read back from the page, against NumPy and SciPy."""

import html.parser
import json
from collections import Counter

import numpy as np
import pytest
import scipy.stats

from elo_tf.errors import UserError
from elo_tf.reporting import report, search_statistics
from elo_tf.search.journal import read_journal

NAMES = ["rgb/predict", "flow/predict", "rgb/shuffle", "audio/align", "distill/flow/block1",
         "distill/audio/block1", "rgb/reverse"]
FAILED = {(0, 1): "the loss rgb/predict is nan after 60 steps",
          (1, 4): "the loss rgb/predict is nan after 20 steps",
          (2, 2): "the features have collapsed"}
REFRESH = '<meta http-equiv="refresh"'


class Page(html.parser.HTMLParser):
    """The text of a page, its tables as rows of texts, its pictures and numbers."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        with open(path, encoding="utf-8") as file:
            self.html = file.read()
        self.text, self.tables, self.pictures, self.numbers = "", [], [], []
        self.cell = False
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.cell = True
        elif tag == "img":
            self.pictures.append(dict(attrs))
        elif tag == "data":
            self.numbers.append(float(dict(attrs)["value"]))

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = False

    def handle_data(self, data):
        self.text += data
        if self.cell:
            self.tables[-1][-1][-1] += data

    def table(self, header):
        """The rows of the table that has a column of this name."""
        found, = [rows for names, *rows in self.tables if header in names]
        return found

    def row(self, header, first):
        found, = [row for row in self.table(header) if row[0] == first]
        return found

    def part(self, start, end):
        after = self.text[self.text.index(start):]
        return after[:after.index(end) + len(end)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, write_search):
    folder = tmp_path_factory.mktemp("finished") / "search"
    journal = write_search(folder, NAMES, failed=FAILED)
    return journal, folder, Page(report.write_report(folder, search_dir=folder))


def test_a_generation_is_its_best_median_and_quartiles(finished):
    journal, _, page = finished
    for generation in range(4):
        values = [x.fitness for x in journal.candidates if x.generation == generation and x.ok]
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
        assert [generation, min(values), median, high - low, 6 - len(values)] == pytest.approx(
            [float(x) for x in page.row("between the quartiles", str(generation))], abs=6e-5)


def test_rho_is_that_of_scipy(finished):
    journal, _, page = finished
    both = [x for x in journal.candidates if x.ok]
    assert len(both) == 21
    found = scipy.stats.spearmanr([-x.zipf for x in both], [x.weak for x in both])
    # Bonett and Wright: the standard error of Fisher's z of a rank correlation.
    error = np.sqrt((1 + found.statistic**2 / 2) / (21 - 3))
    low, high = np.tanh(np.arctanh(found.statistic) + np.array([-1, 1]) * 1.959964 * error)
    assert (f"{found.statistic:.2f} (n = 21, p = {found.pvalue:.2g}, 95% interval {low:.2f} to "
            f"{high:.2f})") in page.text
    assert {found.statistic, found.pvalue} <= set(page.numbers)
    assert "0.91 over 100 losses" in page.text
    assert "the search’s own candidates" in page.text


def test_rho_of_a_known_order():
    zipf = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert search_statistics.rank_correlation(zipf, [9, 8, 7, 6, 5]).rho == pytest.approx(1)
    # Of ranks without ties, 1 - 6 sum d^2 / n (n^2 - 1); the differences are 1, 1, 0, 0, 0.
    found = search_statistics.rank_correlation(zipf, [0.8, 0.9, 0.7, 0.6, 0.5])
    assert found.rho == pytest.approx(1 - 6 * 2 / (5 * 24))
    assert search_statistics.rank_correlation(zipf[:2], [1, 2]) is None
    assert search_statistics.rank_correlation(zipf, [0.5] * 5) is None


def test_the_random_encoder_is_beside_the_best(finished):
    journal, _, page = finished
    summary = page.text[:page.text.index("What the features are worth")]
    assert "Random encoder1.500the control" in summary
    others = [x.fitness for x in journal.repeats if x.place == journal.best.place]
    assert f"{np.mean(others):.3f} on average with 2 other seeds" in summary
    control = page.row("network", "random encoder (control)")
    best = page.row("network", "best candidate")
    assert control[1:5] == ["1.5000", "1.5000", "15.0%", "3"]
    assert best[1:4] == [f"{journal.best.fitness:.4f}", f"{journal.best.zipf:.4f}",
                         f"{100 * journal.best.weak:.1f}%"]
    worst = max((x for x in journal.candidates if x.ok), key=lambda x: x.fitness)
    assert page.row("network", "worst candidate that worked")[1] == f"{worst.fitness:.4f}"
    assert page.html.count("random encoder 1.500") == 2, "wide and phone"
    better = sum(x.ok and x.fitness < 1.5 for x in journal.candidates)
    assert f"{better} of 24 candidates have a lower fitness than the random encoder." in page.text


def test_a_best_that_is_no_better_than_chance_is_said(tmp_path, write_search):
    folder = tmp_path / "search"
    write_search(folder, NAMES, generations=1, end=False)
    path = folder / "journal.jsonl"
    path.write_text(path.read_text().replace('"zipf":1.5,', '"zipf":0.001,'))
    page = Page(report.write_report(folder, search_dir=folder))
    assert "0 of 6 candidates have a lower fitness than the random encoder; the best is not" \
           in page.text


def test_histograms_are_of_the_best_the_worst_and_the_control(finished):
    journal, _, page = finished
    worst = max((x for x in journal.candidates if x.ok), key=lambda x: x.fitness)
    law = 1 / np.arange(1, 13) / np.sum(1 / np.arange(1, 13))
    for name, x in (("Best", journal.best), ("Worst that worked", worst),
                    ("Random encoder", journal.controls[0])):
        mass = np.sort(x.histogram)[::-1]
        assert f"{name}: KL(p‖q) = {np.sum(mass * np.log(mass / law)):.3f}" in page.text


def test_leaders_by_the_mean_of_the_other_seeds(finished):
    journal, _, page = finished
    rows = page.table("mean of the others")
    by_first = sorted((x for x in journal.candidates if x.ok), key=lambda x: x.fitness)[:3]
    expected = []
    for leader in by_first:
        others = [x.fitness for x in journal.repeats if x.place == leader.place]
        assert len(others) == 2
        expected.append((np.mean(others), leader, others))
    expected.sort(key=lambda x: x[0])
    for row, (mean, leader, others), status in zip(rows, expected, ["chosen", "", ""],
                                                   strict=False):
        assert row == [f"{leader.generation}.{leader.index}", status,
                       *(f"{x:.4f}" for x in (leader.fitness, *others, mean))]
    assert journal.best is expected[0][1]
    assert rows[3] == ["random encoder", "control", "1.5000", "1.5100", "1.5200", "1.5150"]


def test_failures_are_counted_by_reason(finished):
    _, _, page = finished
    assert page.row("times", "the loss rgb/predict is nan after 60 steps") == [
        "the loss rgb/predict is nan after 60 steps", "0.1, 1.4", "2"]
    assert page.row("times", "the features have collapsed")[1:] == ["2.2", "1"]


def test_the_leading_axes_name_their_largest_components(finished):
    journal, _, page = finished
    length, direction = journal.generations[-1].axes[0]
    name, component = max(direction.items(), key=lambda x: abs(x[1]))
    row = page.row("axis", "1")
    assert row[:2] == ["1", f"{length:.3g}"]
    assert row[2].startswith(f"{name} {component:+.2f}, ")


def test_weights_over_the_evolution_are_of_what_is_searched(finished):
    journal, _, page = finished
    last = journal.generations[-1].mean
    assert f"rgb {last['rgb/predict']:.2f}" in page.text, "by task"
    assert f"predict {last['rgb/predict']:.2f}" in page.text, "by modality"
    assert f"reverse {last['rgb/reverse']:.2f}" not in page.text
    assert "Weights that are fixed (1) are not shown." in page.text
    assert f">{journal.generations[-1].sigma:.3g}<" in page.html


def test_the_cost_of_a_candidate_is_measured_and_forecast(finished):
    _, _, page = finished
    text = page.part("A candidate takes", "GPU-hours a candidate.")
    # 24 candidates, of which the first took 30 s and the others 10; 2 cores.
    assert f"10 seconds (the median) for 60 steps of 8 clips, 480 clips in all: {20 / 3600:.3g} " \
           "core-hours on 2 CPU core(s)" in text
    assert "30 evaluations took 5 min" in text, "260 s, and 60 s of the leaders"
    assert f"24 candidates and 6 repeats of 9.5 seconds or {19 / 3600:.3g} core-hours" in text
    assert "4 hours on 8 GPUs, 32" in text


def test_the_page_is_not_read_again_after_the_end(finished):
    _, _, page = finished
    assert REFRESH not in page.html
    assert "Running" not in page.text


@pytest.fixture(scope="module")
def running(tmp_path_factory, write_search):
    folder = tmp_path_factory.mktemp("running") / "search"
    journal = write_search(folder, NAMES, generations=3, end=False, weak=False,
                           strategy="RandomSearch")
    path = folder / "journal.jsonl"
    path.write_text(path.read_text() + '{"type": "asked", "gener')
    return journal, folder, Page(report.write_report(folder, search_dir=folder, refresh=7))


def test_a_running_search_says_how_far_it_is(running):
    journal, folder, page = running
    best = min(x.fitness for x in journal.candidates)
    assert f"Running: 18 of 18 candidates, best so far {best:.4f}" in page.text
    assert '<meta http-equiv="refresh" content="7">' in page.html
    assert "the search has not ended" in page.text
    page = Page(report.write_report(folder, search_dir=folder, refresh=0))
    assert REFRESH not in page.html


def test_without_labels_nothing_is_said_of_them(running):
    _, _, page = running
    assert "Spearman" not in page.text
    assert "Weak supervision" not in page.text
    assert page.row("network", "best candidate")[3] == "none"


def test_a_search_of_failures_has_no_best(tmp_path, write_search):
    folder = tmp_path / "search"
    journal = write_search(folder, NAMES, generations=1, population=4, end=False, control=False,
                           failed=dict.fromkeys([(0, i) for i in range(4)], "out of memory"))
    assert Counter(x.ok for x in journal.candidates) == {False: 4}
    page = Page(report.write_report(folder, search_dir=folder))
    assert "Running: 4 of 4 candidates, none worked yet" in page.text
    assert "4 failed" in page.text
    assert "Random encodernot measured" in page.text
    assert page.row("times", "out of memory")[1:] == ["0.0, 0.1, 0.2, 0.3", "4"]
    assert 1000.0 not in page.numbers


def test_a_search_that_has_only_begun(tmp_path, write_search):
    folder = tmp_path / "search"
    write_search(folder, NAMES, generations=0, end=False)
    page = Page(report.write_report(folder, search_dir=folder))
    assert "Running: 0 of" in page.text
    assert "No candidate has been evaluated yet." in page.text
    assert "Random encoder1.500" in page.text
    assert "The forecast before it began" in page.text


def test_a_search_that_labels_guide(tmp_path, write_search):
    folder = tmp_path / "search"
    write_search(folder, NAMES, generations=1, end=False)
    path = folder / "journal.jsonl"
    lines = [json.loads(x) for x in path.read_text().splitlines()]
    for line in lines:
        if line["type"] == "candidate":
            line["fitness"] = 1.0 - line["weak"]
    path.write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert search_statistics.guide(read_journal(path)) == "weak"
    page = Page(report.write_report(folder, search_dir=folder))
    assert page.row("network", "random encoder (control)")[1] == f"{1 - 0.15:.4f}"
    assert "error rate" in page.text


def write_clusters(folder, clusters=14, clips=5):
    ids = [[f"clip {i}.{j} <b>" for j in range(clips)] for i in range(clusters)]
    (folder / "clusters.json").write_text(json.dumps({
        "generation": 2, "index": 1, "repeat": 0, "fitness": 0.5,
        "shares": (np.arange(clusters, 0, -1) / np.arange(1, clusters + 1).sum()).tolist(),
        "clips": ids}))
    return ids


def test_clips_nearest_to_the_centres_are_shown(running):
    _, folder, _ = running
    ids = write_clusters(folder)
    draw = np.random.Generator(np.random.PCG64(0))
    frames = {x: draw.integers(0, 256, [8, 32, 32, 3], np.uint8) for some in ids for x in some}
    frames.pop(ids[1][0])
    page = Page(report.write_report(folder, search_dir=folder, clips=frames))
    shown = [x for x in page.pictures if x["class"] == "clip"]
    # Twelve clusters of four clips, but for one that was not there.
    assert [x["alt"] for x in shown] == [f"frames of {x}" for some in ids[:12] for x in some[:4]
                                         if x in frames]
    assert all(x["src"].startswith("data:image/jpeg;base64,") for x in shown)
    assert f"Cluster 1, {100 * 14 / 105:.1f}% of the clips" in page.text
    assert "2 smaller clusters are left out" in page.text
    assert len(page.html) < 3_000_000
    assert "--data" in Page(report.write_report(folder, search_dir=folder)).text
    (folder / "clusters.json").unlink()


def test_damaged_clusters_are_a_user_error(running):
    _, folder, _ = running
    write_clusters(folder)
    path = folder / "clusters.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"shares": found["shares"][1:]}))
    with pytest.raises(UserError, match="clusters.json is damaged"):
        report.write_report(folder, search_dir=folder)
    path.unlink()


def test_losses_drawn_at_random_are_said_to_be(tmp_path, write_search):
    write_search(tmp_path / "search", NAMES, strategy="RandomSearch", generations=1)
    page = Page(report.write_report(tmp_path, search_dir=tmp_path / "search"))
    assert "the losses were drawn at random" in page.text


def test_a_study_is_its_table_and_its_findings(tmp_path):
    row = {"name": "cma_es", "title": "CMA-ES", "candidates": 60, "ended": True,
           "fitness": {"mean": 0.25, "std": 0.0125, "n": 2}, "weak": None,
           "accuracy": {"linear": {"mean": 0.5, "std": 0.0, "n": 1}}, "paper": 0.674}
    untrained = row | {"title": "untrained network", "candidates": None, "fitness": None,
                       "paper": None}
    (tmp_path / "study.json").write_text(json.dumps({
        "rows": [row, untrained], "findings": ["No difference <b>."], "figure_9": None}))
    page = Page(report.write_report(tmp_path, study_dir=tmp_path))
    assert page.table("loss found by") == [
        ["CMA-ES", "60", "0.2500 ± 0.0125", "", "50.0%", "67.4%"],
        ["untrained network", "", "", "", "50.0%", ""]]
    assert "No difference <b>." in page.text
    assert "Strategies compared" not in Page(report.write_report(tmp_path)).text
