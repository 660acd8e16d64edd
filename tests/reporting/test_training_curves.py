"""The course of a training as it is drawn, and its log as it is read."""

import json

import numpy as np
import pytest

from elo_tf.errors import UserError
from elo_tf.reporting import training_curves
from elo_tf.reporting.results import read_results

NAMES = ("rgb/predict", "audio/predict", "rgb/shuffle", "distill/flow/block1")


def by_name(values):
    return dict(zip(NAMES, np.asarray(values, float).tolist(), strict=True))


def make_log(entries, *, seed=0):
    """Entries of every tenth step, and, at every second of them, of unseen clips."""
    draw = np.random.Generator(np.random.PCG64(seed))
    log = []
    for i in range(1, entries + 1):
        losses = draw.random(len(NAMES))
        log.append({
            "step": 10 * i, "total": float(losses.sum()), "learning_rate": 0.01 / i,
            "losses": by_name(losses), "weighted": by_name(losses),
            "share": by_name(losses / losses.sum()), "gradient_norm": 2.0,
            "gradient_norms": by_name(10 ** draw.uniform(-3, 1, len(NAMES))),
            "measured": {"clips_per_second": 10.0 + i, "data_wait": 0.01 * i,
                         "memory_gb": 3.0 + i % 2}})
        if i % 2 == 0:
            log.append({"step": 10 * i, "heldout": by_name(losses),
                        "heldout_total": float(draw.random())})
    return log


def line(axes, label):
    found = [x for x in axes.get_lines() if x.get_label().startswith(label)]
    assert len(found) == 1, [x.get_label() for x in axes.get_lines()]
    return np.asarray(found[0].get_xdata(), float), np.asarray(found[0].get_ydata(), float)


def test_total_curve_shows_both_totals_the_best_checkpoint_and_the_rate():
    log = make_log(8)
    axes, below = training_curves.total_curve(log).axes
    x, y = line(axes, "training clips")
    np.testing.assert_array_equal(x, np.arange(10, 90, 10))
    np.testing.assert_array_equal(y, [x["total"] for x in log if "total" in x])
    x, y = line(axes, "unseen clips")
    np.testing.assert_array_equal(x, [20, 40, 60, 80])
    unseen = [x["heldout_total"] for x in log if "heldout" in x]
    np.testing.assert_array_equal(y, unseen)
    least = int(np.argmin(unseen))
    best = line(axes, f"best: {unseen[least]:.3f}, step {20 * least + 20}")
    np.testing.assert_array_equal(best, [[20 * least + 20], [unseen[least]]])
    np.testing.assert_array_equal(below.get_lines()[0].get_ydata(), 0.01 / np.arange(1, 9))


def test_total_curve_of_parts_of_a_log():
    log = make_log(2)
    # Scores on unseen clips were not asked for; no step is logged yet; none was finite.
    assert line(training_curves.total_curve(log[:1]).axes[0], "training clips")[0] == [10]
    (axes,) = training_curves.total_curve(log[2:]).axes
    assert line(axes, "unseen clips")[0] == [20]
    axes = training_curves.total_curve([log[0], {**log[2], "heldout_total": np.nan}]).axes[0]
    assert not [x for x in axes.get_lines() if x.get_label().startswith("best")]


def test_long_logs_are_drawn_as_means():
    log = [x for x in make_log(1000) if "total" in x]
    x, y = line(training_curves.total_curve(log).axes[0], "training clips")
    groups = [range(i, min(i + 4, 1000)) for i in range(0, 1000, 4)]
    np.testing.assert_allclose(x, [np.mean([10 * i + 10 for i in g]) for g in groups])
    np.testing.assert_allclose(y, [np.mean([log[i]["total"] for i in g]) for g in groups])
    np.testing.assert_array_equal(training_curves.thinned([1, 2, 3, 4, 9], 3), [1.5, 3.5, 9])
    np.testing.assert_array_equal(training_curves.thinned([1, 2, 4], 3), [1, 2, 4])


@pytest.mark.parametrize("draw,key,label", [
    (training_curves.share_panels, "share", lambda x: f"{100 * x:.1f}%"),
    (training_curves.gradient_panels, "gradient_norms", "{:.2g}".format)])
def test_panels_show_every_task_on_the_same_axes(draw, key, label):
    log = make_log(7)
    panels = draw(log)
    assert list(panels) == ["predict", "shuffle", "distill block1"]
    place = {"rgb/predict": ("predict", "rgb"), "audio/predict": ("predict", "audio"),
             "rgb/shuffle": ("shuffle", "rgb"), "distill/flow/block1": ("distill block1", "flow")}
    for name, (family, modality) in place.items():
        axes = panels[family].axes[0]
        values = [x[key][name] for x in log if "total" in x]
        x, y = line(axes, modality)
        np.testing.assert_array_equal(x, np.arange(10, 80, 10))
        np.testing.assert_array_equal(y, values)
        assert f"{modality} {label(values[-1])}" in [x.get_text() for x in axes.texts]
        low, high = axes.get_ylim()
        assert low <= min(values)
        assert max(values) <= high
    assert len({x.axes[0].get_ylim() for x in panels.values()}) == 1


def test_gradients_of_zero_lie_on_the_lower_edge_and_their_labels_apart():
    log = make_log(1)
    log[0]["gradient_norms"] = by_name([0.0, 1e-20, 0.5, 0.03])
    panels = training_curves.gradient_panels(log)
    axes = panels["predict"].axes[0]
    # Six decades below 1, the power of ten above the largest.
    assert axes.get_ylim() == pytest.approx((1e-6, 1.0))
    assert line(axes, "rgb")[1] == line(axes, "audio")[1] == pytest.approx(1e-6)
    assert sorted(x.get_text() for x in axes.texts) == ["audio 1e-20", "rgb 0"]
    assert np.diff(sorted(x.xy[1] for x in axes.texts)) > 0.12
    # The label of 0.03 is beside its line.
    assert panels["distill block1"].axes[0].texts[0].xy[1] == pytest.approx(
        1 + np.log10(0.03) / 6)
    log[0]["gradient_norms"] = by_name([0.0] * 4)
    assert line(training_curves.gradient_panels(log)["shuffle"].axes[0], "rgb")[1] > 0


@pytest.mark.parametrize("width", [340, 420, 680])
def test_nothing_overlaps(width):
    log = make_log(400)
    for entry in log:
        entry["step"] *= 1000
    figure = training_curves.total_curve(log, width=width)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    labels = [*legend.get_texts(), *(x.yaxis.label for x in figure.axes)]
    for axis in (y for x in figure.axes for y in (x.xaxis, x.yaxis)):
        low, high = axis.get_view_interval()
        labels += [x.label1 for x in axis.get_major_ticks()
                   if low <= x.get_loc() <= high and x.label1.get_visible()]
    assert len(labels) > 10
    boxes = [x.get_window_extent() for x in labels]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_log_is_read_up_to_a_half_written_line(tmp_path):
    assert read_results(pretrain_dir=tmp_path).log == ()
    log = make_log(4)
    lines = [json.dumps(x) + "\n" for x in log]
    path = tmp_path / "losses.jsonl"
    path.write_text("".join(lines))
    assert list(read_results(pretrain_dir=tmp_path).log) == log
    for cut in (lines[-1][:40], lines[-1][:-1]):
        path.write_text("".join(lines[:-1]) + cut)
        assert list(read_results(pretrain_dir=tmp_path).log) == log[:-1]
    path.write_text(lines[0][:40])
    assert read_results(pretrain_dir=tmp_path).log == ()


@pytest.mark.parametrize("damage,said", [
    ('{"step": 20, "tot', "Unterminated string"), ("", "Expecting value"), ("7", "not an object"),
    ("\0\0", "Expecting value"), ('{"step": 20, "total": 1.0}', "no learning_rate, losses"),
    ('{"heldout_total": 1.0}', "no step")])
def test_a_damaged_line_is_named(tmp_path, damage, said):
    lines = [json.dumps(x) for x in make_log(4)]
    lines[1] = damage
    (tmp_path / "losses.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=rf"losses\.jsonl, line 2 is damaged \(.*{said}"):
        read_results(pretrain_dir=tmp_path)
