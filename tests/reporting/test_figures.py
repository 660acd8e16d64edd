"""What the charts and pictures show, read from their axes and pixels."""

import base64
import colorsys
import io
import re

import numpy as np
import PIL.Image
import pytest
from matplotlib import colors

from elo_tf.reporting import figures, samples, svg
from elo_tf.search.journal import Candidate, Generation


def candidate(generation, index, fitness, status="ok"):
    return Candidate(generation, index, {"rgb/predict": 0.5}, fitness, status)


def line(axes, label):
    found = [x for x in axes.get_lines() if x.get_label() == label]
    assert len(found) == 1, [x.get_label() for x in axes.get_lines()]
    return np.asarray(found[0].get_xdata(), float), np.asarray(found[0].get_ydata(), float)


def texts(axes):
    return [x.get_text() for x in axes.texts]


def test_fitness_curve_shows_every_candidate_and_the_best_so_far():
    tried = [candidate(0, 0, 0.9), candidate(0, 1, 1000.0, "failed: x"), candidate(0, 2, 0.7),
             candidate(1, 0, 0.8), candidate(1, 1, 0.4), candidate(1, 2, 0.6)]
    axes = figures.fitness_curve(tried[::-1]).axes[0]
    x, y = line(axes, "candidate")
    np.testing.assert_array_equal(x, [0, 2, 3, 4, 5])
    np.testing.assert_array_equal(y, [0.9, 0.7, 0.8, 0.4, 0.6])
    np.testing.assert_array_equal(line(axes, "best so far")[1], [0.9, 0.9, 0.7, 0.7, 0.4, 0.4])
    np.testing.assert_array_equal(line(axes, "failed")[0], [1])
    # What a failed candidate was told as does not stretch the axis.
    assert axes.get_ylim()[1] < 1.1
    assert texts(axes) == ["0.400"]
    # Generations are parted between candidates 2 and 3.
    assert 2.5 in [x.get_xdata()[0] for x in axes.get_lines()]
    assert [x.get_text() for x in axes.get_xticklabels()] == ["0", "1"]


def test_fitness_curve_of_failures_only():
    axes = figures.fitness_curve([candidate(0, 0, 1000.0, "failed: x")]).axes[0]
    assert texts(axes) == []
    np.testing.assert_array_equal(line(axes, "failed")[0], [0])


def test_weight_panels_show_the_means_by_family():
    names = ["rgb/predict", "audio/predict", "rgb/shuffle", "distill/flow/block1",
             "distill/audio/block1"]
    means = np.random.Generator(np.random.PCG64(0)).random([3, 5])
    generations = [Generation(i, 0.5, dict(zip(names, row, strict=True)), 0.3)
                   for i, row in enumerate(means)]
    panels = figures.weight_panels(names, generations)
    assert list(panels) == ["predict", "shuffle", "distill block1"]
    for i, name in enumerate(names):
        family, modality = figures.split_name(name)
        axes = panels[family].axes[0]
        x, y = line(axes, modality)
        np.testing.assert_array_equal(x, [0, 1, 2])
        np.testing.assert_array_equal(y, means[:, i])
        assert f"{modality} {means[-1, i]:.2f}" in texts(axes)


def test_weight_labels_do_not_overlap():
    names = [f"{m}/predict" for m in ("rgb", "flow", "gray", "audio")]
    for values in ([0.5, 0.5, 0.5, 0.5], [0.0, 0.01, 0.02, 1.0], [1.0, 0.99, 0.98, 0.97]):
        generation = Generation(0, 0.5, dict(zip(names, values, strict=True)), 0.3)
        axes = figures.weight_panels(names, [generation])["predict"].axes[0]
        places = sorted(x.xy[1] for x in axes.texts)
        assert np.diff(places).min() > 0.12
        assert places[0] >= -0.01
        assert places[-1] <= 1.01


@pytest.mark.parametrize("s", [1.0, 1.5])
@pytest.mark.parametrize("clusters", [8, 60])
def test_zipf_law_is_the_closed_form(clusters, s):
    mass = np.random.Generator(np.random.PCG64(2)).dirichlet(np.ones(clusters))
    axes = figures.zipf_histogram(mass, s=s).axes[0]
    harmonic = sum(1 / n**s for n in range(1, clusters + 1))
    law = np.array([1 / i**s / harmonic for i in range(1, clusters + 1)])
    x, y = line(axes, f"Zipf law with s = {s:g}, q")
    np.testing.assert_array_equal(x, np.arange(1, clusters + 1))
    np.testing.assert_allclose(y, law, rtol=1e-12)
    ordered = np.sort(mass)[::-1]
    divergence = sum(p * np.log(p / q) for p, q in zip(ordered, law, strict=True))
    assert axes.get_title(loc="left") == f"KL(p‖q) = {divergence:.3f}"
    logarithmic = clusters > 40
    assert axes.get_yscale() == ("log" if logarithmic else "linear")
    shown = line(axes, "clusters, p")[1] if logarithmic else [
        x.get_height() for x in axes.patches]
    np.testing.assert_allclose(shown, ordered)


def test_zipf_histogram_with_an_empty_cluster():
    axes = figures.zipf_histogram([0.75, 0.25, 0.0]).axes[0]
    harmonic = 1 + 1 / 2 + 1 / 3
    expected = 0.75 * np.log(0.75 * harmonic) + 0.25 * np.log(0.25 * 2 * harmonic)
    assert axes.get_title(loc="left") == f"KL(p‖q) = {expected:.3f}"


@pytest.mark.parametrize("width", [340, 680])
def test_weight_bars_are_ranked_and_complete(width):
    weights = {f"rgb/t{i}": float(w) for i, w in enumerate(
        np.random.Generator(np.random.PCG64(4)).random(17))}
    shown = [(label.get_text(), bar.get_width())
             for axes in figures.weight_bars(weights, width=width).axes
             for label, bar in zip(axes.get_yticklabels(), axes.patches, strict=True)]
    assert shown == sorted(weights.items(), key=lambda x: -x[1])


def test_heldout_losses_tell_what_rose():
    heldout = {"weights": {"a/x": 0.2, "b/x": 0.9, "c/x": 0.4},
               "before": {"a/x": 1.0, "b/x": 0.8, "c/x": 0.5},
               "after": {"a/x": 0.6, "b/x": 0.9, "c/x": 0.2}}
    axes = figures.heldout_losses(heldout).axes[0]
    assert [x.get_text().split()[0] for x in axes.get_yticklabels()] == ["b/x", "c/x", "a/x"]
    np.testing.assert_array_equal(line(axes, "before")[0], [0.8, 0.5, 1.0])
    after = {int(x.get_ydata()[0]): (x.get_xdata()[0], x.get_color()) for x in axes.get_lines()
             if x.get_marker() == "o" and len(x.get_xdata()) == 1}
    assert after == {0: (0.9, svg.color("bad")), 1: (0.2, svg.color("accent")),
                     2: (0.6, svg.color("accent"))}


def test_accuracy_bars_are_percentages_with_chance():
    evaluation = {"chance": 0.25, "rows": [
        {"network": "untrained", "protocol": "linear", "mean": 0.3, "std": 0.02},
        {"network": "trained", "protocol": "linear", "mean": 0.625, "std": 0.01}]}
    axes = figures.accuracy_bars(evaluation).axes[0]
    assert [x.get_width() for x in axes.patches] == [62.5, 30.0]
    assert texts(axes) == ["62.5", "30.0"]
    assert line(axes, "chance, 25.0")[0][0] == 25.0
    assert [x.get_text() for x in axes.get_yticklabels()] == ["linear classifier"]


def test_flow_direction_is_hue_and_length_is_saturation():
    for turn in (0.0, 0.125, 0.25, 0.5, 0.75, 0.9):
        vector = 4.0 * np.array([np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)])
        image = samples.flow_colors(np.array([[vector, vector / 2, [0.0, 0.0]]]))
        for pixel, saturation in zip(image[0], (1.0, 0.5, 0.0), strict=True):
            expected = 255 * np.array(colorsys.hsv_to_rgb(turn, saturation, 1.0))
            np.testing.assert_allclose(pixel, expected, atol=1.01)
    # Right is red, left is cyan; noise far below a pixel stays pale.
    np.testing.assert_array_equal(
        samples.flow_colors(np.array([[5.0, 0.0], [-5.0, 0.0]])), [[255, 0, 0], [0, 255, 255]])
    assert samples.flow_colors(np.array([[0.01, 0.0]])).min() > 250


def test_color_wheel_is_the_key_of_the_flow():
    wheel = samples.color_wheel(49)
    np.testing.assert_array_equal(wheel[24, 24], [255, 255, 255, 255])
    assert wheel[0, 0, 3] == 0
    assert colors.rgb_to_hsv(wheel[24, 47, :3] / 255)[0] == pytest.approx(0.0, abs=0.01)
    assert colors.rgb_to_hsv(wheel[47, 24, :3] / 255)[0] == pytest.approx(0.25, abs=0.01)


def test_filmstrip_takes_evenly_spaced_frames():
    height = samples.FRAME_HEIGHT
    frames = np.broadcast_to(
        np.arange(16, dtype=np.uint8)[:, None, None, None], [16, height, height, 3])
    strip = samples.filmstrip(frames)
    step = height + samples.GAP
    assert strip.shape == (height, 8 * step - samples.GAP, 4)
    assert [int(strip[5, i * step + 5, 0]) for i in range(8)] == [1, 3, 5, 7, 9, 11, 13, 15]
    assert strip[5, height, 3] == 0
    short = samples.filmstrip(frames[:2])
    assert short.shape == strip.shape
    assert short[5, 2 * step, 3] == 0


def test_spectrogram_has_time_to_the_right_and_high_tones_above():
    log_mel = np.zeros([10, 4])
    log_mel[7, 3] = 1.0
    image = samples.spectrogram(log_mel)
    assert image.shape == (4, 10, 3)
    brightness = image.astype(int).sum(axis=-1)
    assert np.unravel_index(brightness.argmax(), brightness.shape) == (0, 7)
    assert samples.spectrogram(np.zeros([3, 2])).shape == (2, 3, 3)


def test_png_uri_keeps_the_pixels():
    image = np.random.Generator(np.random.PCG64(0)).integers(0, 256, [5, 7, 4], np.uint8)
    head, data = samples.png_uri(image).split(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(PIL.Image.open(io.BytesIO(base64.b64decode(data))), image)


def test_svg_takes_colours_and_fonts_from_the_page():
    text = svg.to_svg(figures.weight_bars({"rgb/a<b>": 0.5, "flow/c": 0.25}), name="x",
                      description='say "so" & <so>')
    assert "rgb/a&lt;b&gt;" in text
    assert 'aria-label="say &quot;so&quot; &amp; &lt;so&gt;"' in text
    assert "var(--rgb)" in text
    assert "var(--flow)" in text
    assert set(re.findall(r"#[0-9a-f]{6}", text)) == set()
    for word in ("font-family", "http", "<style", "<?xml", "metadata"):
        assert word not in text
