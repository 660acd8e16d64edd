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


def line(axes, label):
    found = [x for x in axes.get_lines() if x.get_label() == label]
    assert len(found) == 1, [x.get_label() for x in axes.get_lines()]
    return np.asarray(found[0].get_xdata(), float), np.asarray(found[0].get_ydata(), float)


def texts(axes):
    return [x.get_text() for x in axes.texts]


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


def test_small_strip_is_a_small_picture_of_evenly_spaced_frames():
    frames = np.zeros([8, 40, 40, 3], np.uint8)
    frames[:] = (30 * np.arange(8))[:, None, None, None]
    head, data = samples.small_strip(frames, count=4, size=32).split(",")
    assert head == "data:image/jpeg;base64"
    assert len(data) < 2000
    image = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(data))), int)
    assert image.shape == (32, 128, 3)
    # The frames 1, 3, 5 and 7.
    np.testing.assert_allclose(image[16, 16::32, 0], [30, 90, 150, 210], atol=3)


def test_svg_takes_colours_and_fonts_from_the_page():
    text = svg.to_svg(figures.weight_bars({"rgb/a<b>": 0.5, "flow/c": 0.25}), name="x",
                      description='say "so" & <so>')
    assert "rgb/a&lt;b&gt;" in text
    assert 'aria-label="say &quot;so&quot; &amp; &lt;so&gt;"' in text
    assert "var(--rgb)" in text
    assert "var(--flow)" in text
    assert set(re.findall(r"#[0-9a-f]{6}", text)) == set()
    # Coordinates are short, texts are whole.
    assert max(map(len, re.findall(r' [xy]="[-\d]+\.(\d+)"', text)), default=0) <= 2
    assert ">0.25<" in text
    for word in ("font-family", "http", "<style", "<?xml", "metadata"):
        assert word not in text
