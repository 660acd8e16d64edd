"""What augmentation does, value by value, against NumPy, SciPy, colorsys and TensorFlow."""

import colorsys

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf
import tensorflow_io as tfio

from elo_tf.views import augmentation_ops as ops


def noise(*shape, seed=0):
    return np.random.Generator(np.random.PCG64(seed)).uniform(0, 1, shape).astype(np.float32)


def resampled(frame, box, size):
    """Antialiased bilinear resampling of [H, W, C], pixel by pixel."""
    top, left, height, width = box

    def axis(start, length, source):
        step = length / size
        rows = []
        for i in range(size):
            centre = start + (i + 0.5) * step
            near = [(k, 1 - abs(k + 0.5 - centre) / max(step, 1)) for k in range(source)]
            near = [(k, w) for k, w in near if w > 0]
            rows.append([(k, w / sum(w for _, w in near)) for k, w in near])
        return rows

    result = np.zeros((size, size, frame.shape[-1]))
    for i, rows in enumerate(axis(top, height, frame.shape[0])):
        for j, columns in enumerate(axis(left, width, frame.shape[1])):
            for y, a in rows:
                for x, b in columns:
                    result[i, j] += a * b * frame[y, x]
    return result


@pytest.mark.parametrize("source, size", ((24, 12), (12, 16), (20, 14)))
def test_each_clip_has_its_box_and_all_its_frames_have_it(source, size):
    video = noise(3, 2, source, source, 2)
    boxes = np.array([[0, 0, source, source], [1.5, 3.25, 8, 6.5], [4, 0, 5, 12]], np.float32)
    result = ops.resample(video, tf.constant(boxes), size)
    for clip, box, got in zip(video, boxes, result, strict=True):
        for frame, mine in zip(clip, got, strict=True):
            np.testing.assert_allclose(mine, resampled(frame, box, size), atol=1e-5)


@pytest.mark.parametrize("source, size", ((24, 12), (12, 16), (20, 14), (16, 16)))
def test_the_whole_frame_is_resized_as_tensorflow_does(source, size):
    video = (255 * noise(2, 3, source, source, 3)).astype(np.uint8)
    expected = tf.image.resize(tf.reshape(video, [6, source, source, 3]), [size, size],
                               antialias=True)
    for boxes in ([[0.0, 0, source, source]], [[0.0, 0, source, source]] * 2):
        result = ops.resample(video, tf.constant(boxes), size)
        np.testing.assert_allclose(
            tf.reshape(result, [6, size, size, 3]), expected, atol=1e-3)


def test_a_mirrored_clip():
    video, flow = noise(2, 3, 4, 5, 3), noise(2, 3, 4, 5, 2)
    flags = tf.constant([True, False])
    frames = ops.mirror(tf.constant(video), flags).numpy()
    np.testing.assert_array_equal(frames, [video[0][:, :, ::-1], video[1]])
    moved = ops.mirror_flow(tf.constant(flow), flags).numpy()
    np.testing.assert_array_equal(moved[1], flow[1])
    np.testing.assert_array_equal(moved[0, ..., 0], -flow[0, :, :, ::-1, 0])
    np.testing.assert_array_equal(moved[0, ..., 1], flow[0, :, :, ::-1, 1])


def by_pixel(function, video):
    return np.apply_along_axis(lambda pixel: function(*pixel.tolist()), -1, video)


def saturated(factor):
    def change(r, g, b):
        hue, saturation, value = colorsys.rgb_to_hsv(r, g, b)
        return colorsys.hsv_to_rgb(hue, min(saturation * factor, 1), value)
    return change


def turned(by):
    def change(r, g, b):
        hue, saturation, value = colorsys.rgb_to_hsv(r, g, b)
        return colorsys.hsv_to_rgb((hue + by) % 1, saturation, value)
    return change


COLOURS = {
    "brightness": ((-0.3, 0.25), lambda x, n: np.clip(x + n, 0, 1)),
    "contrast": ((0.4, 1.6), lambda x, n: np.clip(
        (x - x.mean((0, 1, 2))) * n + x.mean((0, 1, 2)), 0, 1)),
    "saturation": ((0.0, 1.7), lambda x, n: by_pixel(saturated(n), x)),
    "hue": ((-0.4, 0.3), lambda x, n: by_pixel(turned(n), x)),
}


@pytest.mark.parametrize("name", COLOURS)
def test_a_change_of_colour(name):
    numbers, reference = COLOURS[name]
    video = noise(2, 3, 5, 4, 3)
    result = ops.ColourJitter()(video, **{name: tf.constant(numbers)})
    for clip, number, got in zip(video, numbers, result, strict=True):
        np.testing.assert_allclose(got, reference(clip, number), atol=2e-5)


def test_changes_of_colour_come_in_their_order():
    video = noise(2, 3, 5, 4, 3, seed=1)
    numbers = {name: tf.constant(values) for name, (values, _) in COLOURS.items()}
    result = ops.ColourJitter()(video, **numbers)
    for i, clip in enumerate(video):
        for values, reference in COLOURS.values():
            clip = reference(clip, values[i])
        np.testing.assert_allclose(result[i], clip, atol=5e-5)


@pytest.mark.parametrize("channels", (1, 3))
def test_blur_is_gaussian_and_stays_within_a_frame(channels):
    video = noise(3, 2, 20, 24, channels)
    sigmas = (0.0, 0.7, 2.0)
    result = ops.GaussianBlur(2.0)(video, tf.constant(sigmas)).numpy()
    np.testing.assert_array_equal(result[0], video[0])
    for clip, sigma, got in zip(video[1:], sigmas[1:], result[1:], strict=True):
        for frame, mine in zip(clip, got, strict=True):
            expected = scipy.ndimage.gaussian_filter(
                frame, (sigma, sigma, 0), mode="mirror", radius=(6, 6, 0))
            np.testing.assert_allclose(mine, expected, atol=1e-5)
    flat = ops.GaussianBlur(2.0)(np.ones((1, 2, 16, 16, 3), "f"), tf.constant([1.5]))
    np.testing.assert_allclose(flat, 1.0, atol=1e-5)  # no dark border


@pytest.mark.parametrize("axis, mask", ((0, tfio.audio.time_mask), (1, tfio.audio.freq_mask)))
def test_a_band_is_what_tensorflow_io_masks_with_the_same_draws(axis, mask, monkeypatch):
    shape, widest = (37, 23), 9
    mel = 1.0 + noise(*shape)
    draws = noise(200, 1, 2, seed=3)
    bands = ops.masked_bands(tf.constant(draws), shape[axis], widest).numpy()
    widths = set()
    for draw, band in zip(draws[:, 0], bands, strict=True):
        ours = iter(draw)
        monkeypatch.setattr(tf.random, "uniform", lambda shape, minval, maxval, dtype, ours=ours:
                            tf.cast(tf.floor(next(ours) * tf.cast(maxval, tf.float32)), dtype))
        expected = mask(mel, widest + 1).numpy()
        masked = np.expand_dims(band, 1 - axis)
        np.testing.assert_array_equal(np.where(masked, 0, mel), expected)
        widths.add(int(band.sum()))
    assert widths == set(range(widest + 1))


def test_bands_are_distributed_as_tensorflow_ios():
    size, widest, count = 12, 4, 4000
    ours = ops.masked_bands(tf.random.stateless_uniform([count, 1, 2], [1, 2]), size, widest)
    tf.random.set_seed(1)
    mask = tf.function(lambda _: tfio.audio.time_mask(tf.ones([size, 1]), widest + 1)[:, 0] == 0)
    theirs = tf.map_fn(mask, tf.range(count), fn_output_signature=tf.bool)
    tables = []
    for bands in (ours.numpy(), theirs.numpy()):
        width, first = bands.sum(1), np.where(bands.any(1), bands.argmax(1), 0)
        tables.append(np.bincount(width * size + first, minlength=(widest + 1) * size))
    table = np.stack(tables)[:, np.sum(tables, 0) > 0]
    assert table.shape[1] == 1 + sum(size - width for width in range(1, widest + 1))
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


def test_several_bands_are_joined():
    draws = noise(50, 3, 2, seed=4)
    joined = ops.masked_bands(tf.constant(draws), 30, 6).numpy()
    single = [ops.masked_bands(tf.constant(draws[:, i:i + 1]), 30, 6).numpy() for i in range(3)]
    np.testing.assert_array_equal(joined, np.any(single, axis=0))
    assert not ops.masked_bands(tf.zeros([2, 0, 2]), 30, 6).numpy().any()


def test_flow_grows_with_the_frame():
    scale = ops.flow_scale(tf.constant([[0.0, 0, 8, 16]]), 32).numpy()
    assert scale.tolist() == [[2.0, 4.0]]  # x by 32 / 16, y by 32 / 8
