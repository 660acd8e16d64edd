"""What the charts of a search show, read from their axes."""

import numpy as np
import pytest

from elo_tf.reporting import figures, search_figures, svg
from elo_tf.search.candidate import Candidate, Control, Generation


def candidate(generation, index, fitness, status="ok", **measured):
    return Candidate(generation=generation, index=index, weights={"rgb/predict": 0.5},
                     fitness=fitness, status=status, **measured)


def failed(generation, index):
    return candidate(generation, index, 1000.0, "failed: x")


def line(axes, label):
    found = [x for x in axes.get_lines() if x.get_label() == label]
    assert len(found) == 1, [x.get_label() for x in axes.get_lines()]
    return np.asarray(found[0].get_xdata(), float), np.asarray(found[0].get_ydata(), float)


def dots(axes, label):
    """Of a line that is dots, every third value."""
    x, y = line(axes, f"_{label}")
    assert np.isnan(x[2::3]).all()
    np.testing.assert_array_equal(x[0::3], x[1::3])
    return x[::3], y[::3]


def texts(axes):
    return [x.get_text() for x in axes.texts]


def test_fitness_curve_shows_candidates_and_the_quartiles_of_generations():
    tried = [candidate(0, 0, 0.9), failed(0, 1), candidate(0, 2, 0.7), candidate(0, 3, 0.8),
             candidate(1, 0, 0.8), candidate(1, 1, 0.4), candidate(1, 2, 0.6)]
    axes = search_figures.fitness_curve(tried[::-1], control=1.25).axes[0]
    x, y = dots(axes, "candidate")
    assert sorted(zip(np.round(x).tolist(), y.tolist(), strict=True)) == sorted(
        (c.generation, c.fitness) for c in tried if c.ok)
    # Points of a generation lie beside each other, none on another's place.
    assert len(set(x.tolist())) == len(x)
    assert np.abs(x - np.round(x)).max() < 0.31
    np.testing.assert_array_equal(line(axes, "best")[1], [0.7, 0.4])
    np.testing.assert_array_equal(line(axes, "median")[1], [np.median([0.9, 0.7, 0.8]), 0.6])
    band, = axes.collections
    corners = band.get_paths()[0].vertices
    for generation, values in ((0, [0.9, 0.7, 0.8]), (1, [0.8, 0.4, 0.6])):
        edges = corners[corners[:, 0] == generation, 1]
        np.testing.assert_allclose([edges.min(), edges.max()], np.quantile(values, [0.25, 0.75]))
    assert np.round(line(axes, "failed")[0]).tolist() == [0]
    assert texts(axes) == ["random encoder 1.250"]
    # What a failed candidate was told as does not stretch the axis.
    assert axes.get_ylim()[1] < 1.5


def test_fitness_curve_of_failures_only():
    axes = search_figures.fitness_curve([failed(0, 0)]).axes[0]
    assert texts(axes) == []
    assert line(axes, "failed")[0].tolist() == [0]


def test_a_generation_of_failures_has_no_best():
    axes = search_figures.fitness_curve([candidate(0, 0, 0.5), failed(1, 0)]).axes[0]
    np.testing.assert_array_equal(line(axes, "best")[1], [0.5, np.nan])


NAMES = ["rgb/predict", "audio/predict", "rgb/shuffle", "distill/flow/block1",
         "distill/audio/block1"]


@pytest.mark.parametrize("by_modality", [False, True])
def test_weight_panels_show_the_means(by_modality):
    means = np.random.Generator(np.random.PCG64(0)).random([3, 5])
    generations = [Generation(generation=i, best=0.5, mean=dict(zip(NAMES, row, strict=True)),
                              sigma=0.3) for i, row in enumerate(means)]
    panels = search_figures.weight_panels(NAMES, generations, by_modality=by_modality)
    places = [("predict", "rgb"), ("predict", "audio"), ("shuffle", "rgb"),
              ("distill block1", "flow"), ("distill block1", "audio")]
    if by_modality:
        places = [("rgb", "predict"), ("audio", "predict"), ("rgb", "shuffle"),
                  ("distill flow", "block1"), ("distill audio", "block1")]
    assert list(panels) == list(dict.fromkeys(panel for panel, _ in places))
    for i, (panel, label) in enumerate(places):
        axes = panels[panel].axes[0]
        x, y = line(axes, label)
        np.testing.assert_array_equal(x, [0, 1, 2])
        np.testing.assert_array_equal(y, means[:, i])
        assert f"{label} {means[-1, i]:.2f}" in texts(axes)
    # A task has one colour in all figures, and no other task of a figure has it.
    colors = {}
    for panel, label in places:
        found, = [x for x in panels[panel].axes[0].get_lines() if x.get_label() == label]
        assert colors.setdefault(label, found.get_color()) == found.get_color()
    assert len(set(colors.values())) == len(colors)


def test_every_loss_is_in_both_sets_of_panels():
    names = [f"{m}/{t}" for m in ("rgb", "flow") for t in ("predict", "shuffle")] + [
        f"distill/flow/{site}" for site in ("block1", "embedding")]
    for grouped in (figures.families(names), figures.sources(names)):
        assert sorted(x for members in grouped.values() for x in members.values()) == sorted(names)


def test_weight_labels_do_not_overlap_and_fit():
    names = [f"{m}/predict" for m in ("rgb", "flow", "gray", "audio")]
    for values in ([0.5, 0.5, 0.5, 0.5], [0.0, 0.01, 0.02, 1.0], [1.0, 0.99, 0.98, 0.97]):
        generation = Generation(generation=0, best=0.5, mean=dict(zip(names, values, strict=True)),
                                sigma=0.3)
        figure = search_figures.weight_panels(names, [generation])["predict"]
        axes = figure.axes[0]
        places = sorted(x.xy[1] for x in axes.texts)
        assert np.diff(places).min() > 0.12
        assert places[0] >= -0.01
        assert places[-1] <= 1.01
        figure.draw_without_rendering()
        for text in [*axes.texts, *axes.get_yticklabels()]:
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.width


@pytest.mark.parametrize(("sigmas", "scale"), [([0.3, 0.2], "linear"), ([0.3, 1e-3], "log")])
def test_sigma_curve(sigmas, scale):
    axes = search_figures.sigma_curve([
        Generation(generation=i, best=0.5, mean={}, sigma=x) for i, x in enumerate(sigmas)]).axes[0]
    np.testing.assert_array_equal(line(axes, "sigma")[1], sigmas)
    assert axes.get_yscale() == scale
    assert texts(axes) == [f"{sigmas[-1]:.3g}"]


def test_measures_marks_the_best_and_the_control():
    tried = [candidate(0, i, zipf, zipf=zipf, weak=weak)
             for i, (zipf, weak) in enumerate([(0.5, 0.25), (0.25, 0.5), (0.75, 0.125)])]
    axes = search_figures.measures(tried, best=tried[1],
                                   control=Control(zipf=1.5, weak=0.1)).axes[0]
    x, y = dots(axes, "candidate")
    np.testing.assert_array_equal(x, [0.5, 0.25, 0.75])
    np.testing.assert_array_equal(y, [25, 50, 12.5])
    assert [line(axes, "best")[i].tolist() for i in (0, 1)] == [[0.25], [50.0]]
    assert [line(axes, "random encoder")[i].tolist() for i in (0, 1)] == [[1.5], [10.0]]


@pytest.mark.parametrize("s", [1.0, 1.5])
@pytest.mark.parametrize("clusters", [8, 60])
def test_zipf_law_is_the_closed_form(clusters, s):
    mass = np.random.Generator(np.random.PCG64(2)).dirichlet(np.ones(clusters))
    axes = search_figures.zipf_histograms({"Best": mass}, s=s).axes[0]
    harmonic = sum(1 / n**s for n in range(1, clusters + 1))
    law = np.array([1 / i**s / harmonic for i in range(1, clusters + 1)])
    x, y = line(axes, f"Zipf law with s = {s:g}, q")
    np.testing.assert_array_equal(x, np.arange(1, clusters + 1))
    np.testing.assert_allclose(y, law, rtol=1e-12)
    ordered = np.sort(mass)[::-1]
    divergence = sum(p * np.log(p / q) for p, q in zip(ordered, law, strict=True))
    assert axes.get_title(loc="left") == f"Best: KL(p‖q) = {divergence:.3f}"
    logarithmic = clusters > 40
    assert axes.get_yscale() == ("log" if logarithmic else "linear")
    shown = line(axes, "clusters, p")[1] if logarithmic else [
        x.get_height() for x in axes.patches]
    np.testing.assert_allclose(shown, ordered)


@pytest.mark.parametrize("width", [340, 680])
def test_zipf_histograms_with_an_empty_cluster(width):
    figure = search_figures.zipf_histograms(
        {"Best": [0.75, 0.25, 0.0], "Worst": [0.5, 0.3, 0.2]}, width=width)
    harmonic = 1 + 1 / 2 + 1 / 3
    expected = 0.75 * np.log(0.75 * harmonic) + 0.25 * np.log(0.25 * 2 * harmonic)
    assert figure.axes[0].get_title(loc="left") == f"Best: KL(p‖q) = {expected:.3f}"
    assert figure.axes[1].get_title(loc="left").startswith("Worst: ")


def test_thousands_of_points_are_one_path():
    draw = np.random.Generator(np.random.PCG64(3))
    tried = [candidate(i // 15, i % 15, float(x)) for i, x in enumerate(draw.random(1500))]
    text = svg.to_svg(search_figures.fitness_curve(tried), name="x", description="y")
    assert text.count("<use") < 100
    path = next(x for x in text.split("<path ") if x.count("M ") >= 1500)
    assert path.count("M ") == path.count("L ") == 1500
    assert "stroke-linecap: round" in path
    assert len(text) < 100_000
