"""The pixels of a clip: crops, resizing and flow against NumPy and PIL."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from elo_tf.data import decoding, encoding, parsing, pipeline, records, schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.record_set import Records

SPEC = ClipSpec(frames=4, next_frames=2, fps=5.0, size=16, crop=1.0, mel_bins=16)


@pytest.fixture(scope="module")
def parsed_noise(make_clip):
    """A record of 6 noisy frames of 20 x 26 and its flow codes, parsed."""
    generator = np.random.default_rng(1)
    frames = generator.integers(0, 256, (6, 20, 26, 3), np.uint8)
    flows = generator.integers(0, 256, (6, 20, 26, 3), np.uint8)
    clip = make_clip(frames, flows, fps=5.0)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(x))) for x in clip.images])
    return parsing.parse(records.encode_example(clip, example_id="a"), SPEC), pixels, flows


def decode(parsed, box, spec=SPEC):
    window = decoding.decode_window(
        parsed, tf.constant(1), spec.frames, tf.constant(box), spec.size, spec)
    return {name: x.numpy() for name, x in window.items()}


def test_the_crop_is_the_same_of_frames_and_flow(parsed_noise):
    parsed, pixels, flows = parsed_noise
    window = decode(parsed, [3, 7, 16, 16])
    assert np.array_equal(window["rgb"], pixels[1:5, 3:19, 7:23])
    assert np.array_equal(window["flow"], flows[1:5, 3:19, 7:23, :2])


@pytest.mark.parametrize("box", [(2, 2, 28, 28), (0, 16, 16, 16), (9, 15, 20, 20), (0, 0, 31, 31),
                                 (1, 8, 33, 33), (0, 7, 34, 34)])
def test_a_crop_has_the_pixels_of_the_whole_picture(box, encode_image):
    """Also where colour is stored at half the resolution, as converted records have it."""
    frames = np.random.default_rng(2).integers(0, 256, (4, 34, 41, 3), np.uint8)
    images = [encode_image(x, "JPEG", quality=92) for x in frames]
    clip = encoding.EncodedClip(images, None, None, 5.0, 0.0, 34, 41)
    parsed = parsing.parse(records.encode_example(clip, example_id="a"), SPEC)
    spec = dataclasses.replace(SPEC, size=box[2])
    whole = [tf.io.decode_jpeg(images[i], dct_method="INTEGER_ACCURATE") for i in (1, 2, 3, 0)]
    y, x, side, _ = box
    expected = np.stack(whole)[:, y:y + side, x:x + side]
    assert np.array_equal(decode(parsed, list(box), spec)["rgb"], expected)


@pytest.mark.parametrize(("side", "halvings"), [(31, 0), (32, 1), (47, 1), (64, 2), (90, 2)])
def test_large_crops_are_halved_by_the_decoder(side, halvings, encode_image):
    """As Pillow's draft mode lets libjpeg do it."""
    y, x = np.mgrid[:97, :131]
    frames = [np.stack([x + 10 * k, 2 * y, x + y], -1).astype(np.uint8) for k in range(6)]
    images = [encode_image(frame, "JPEG", quality=95) for frame in frames]
    clip = encoding.EncodedClip(images, None, None, 5.0, 0.0, 97, 131)
    parsed = parsing.parse(records.encode_example(clip, example_id="a"), SPEC)
    window = decoding.decode_window(parsed, tf.constant(1), 4, tf.constant([5, 31, side, side]),
                                    16, SPEC, modalities=("rgb",), scaled=True)
    shrink = 2**halvings
    top, left, inner = (value // shrink for value in (5, 31, side))
    for k in range(4):
        image = Image.open(io.BytesIO(images[1 + k]))
        image.draft("RGB", (131 // shrink, 97 // shrink))
        halved = np.asarray(image)
        assert halved.shape == (-(-97 // shrink), -(-131 // shrink), 3)
        expected = tf.image.resize(
            halved[top:top + inner, left:left + inner].astype(np.float32), [16, 16],
            antialias=True).numpy()
        assert np.abs(window["rgb"][k].numpy() - expected).max() <= 2


def test_flow_follows_a_crop_that_is_halved(make_clip):
    """Frames and flow hold the same ramps: after the crop they still agree."""
    y, x = np.mgrid[:96, :128]
    ramps = np.stack([2 * x, 2 * y, 0 * x], -1).astype(np.uint8)
    clip = make_clip(np.tile(ramps, (6, 1, 1, 1)), np.tile(ramps, (6, 1, 1, 1)), fps=5.0)
    parsed = parsing.parse(records.encode_example(clip, example_id="a"), SPEC)
    window = decoding.decode_window(parsed, tf.constant(0), 4, tf.constant([7, 21, 70, 70]), 16,
                                    SPEC, modalities=("rgb", "flow"), scaled=True)
    # The flow's values were scaled with its pixels; undone, they are the ramps.
    codes = (window["flow"].numpy().astype(np.float32) - 127.5) * (68 / 16) + 127.5
    inside = np.abs(codes - 127.5) < 120
    assert inside.mean() > 0.9
    assert np.abs(codes - window["rgb"].numpy()[..., :2])[inside].max() < 5


@pytest.mark.parametrize(("crop", "saturation"), [(16, 20.0), (32, 20.0), (24, 40.0), (8, 10.0)])
def test_flow_is_scaled_with_the_pixels(crop, saturation, make_clip):
    code = np.array([200, 90, 0], np.uint8)
    clip = make_clip(np.zeros((6, 40, 40, 3), np.uint8), np.tile(code, (6, 40, 40, 1)), fps=5.0)
    example = tf.train.SequenceExample.FromString(records.encode_example(clip, example_id="a"))
    example.context.feature[schema.FLOW_SATURATION].float_list.value[:] = [saturation]
    parsed = parsing.parse(example.SerializeToString(), SPEC)
    flow = decode(parsed, [2, 3, crop, crop])["flow"]
    stored = (code[:2] / 255 * 2 - 1) * saturation  # pixels of the stored frame
    expected = np.clip(stored * 16 / crop, -20, 20)
    np.testing.assert_allclose((flow / 255 * 2 - 1) * 20, np.broadcast_to(expected, flow.shape),
                               atol=20 / 255 + 1e-6)


def test_flow_without_a_stored_saturation_is_not_read_as_zero(parsed_noise):
    parsed, _, flows = parsed_noise
    window = decode({**parsed, "flow_clip": tf.constant(0.0)}, [0, 0, 16, 16])
    assert np.array_equal(window["flow"], flows[1:5, :16, :16, :2])


def test_training_crops_go_everywhere_and_the_test_crop_is_central(
        tmp_path, make_clip, write_split):
    # x and y of every pixel are its red and green.
    y, x = np.mgrid[0:40, 0:40] * 6
    frames = np.broadcast_to(np.stack([x, y, 0 * x], -1).astype(np.uint8), (6, 40, 40, 3))
    write_split(tmp_path, "unlabelled", [
        records.encode_example(make_clip(frames, fps=5.0), example_id="a")])
    spec = dataclasses.replace(SPEC, crop=0.4)  # 16 of 40 pixels
    corners = []
    batch = next(pipeline.training_clips(Records(str(tmp_path)), "unlabelled", spec,
                                         batch_size=150, seed=1).as_numpy_iterator())
    for i in range(150):
        clip = {name: value[i] for name, value in batch.items()}
        red, green = (clip["rgb"][0, ..., c].astype(float) / 6 for c in (0, 1))
        corners.append((round(red.min()), round(green.min())))
        assert (clip["rgb"][1:] == clip["rgb"][0]).all()  # one crop for the whole clip
        other = clip["other_rgb"][0, ..., 0]
        assert np.array_equal(other, clip["rgb"][0, ..., 0])  # and for its other window
    for axis in np.transpose(corners):
        assert axis.min() <= 2 and axis.max() >= 22 and axis.max() <= 24
        assert abs(axis.mean() - 12) < 3
    batch = next(iter(pipeline.testing_clips(
        Records(str(tmp_path)), "unlabelled", spec, batch_size=1)))
    assert abs(batch["rgb"][0, 0, 0, 0, 0] / 6 - 12) < 0.6
    assert abs(batch["rgb"][0, 0, 0, 0, 1] / 6 - 12) < 0.6


def test_resizing_is_bilinear_with_antialias():
    video = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)
    resized = decoding.resize(tf.constant(video), 16).numpy()
    centres = (np.arange(16) + 0.5) * 1.5
    weights = np.maximum(0, 1 - np.abs(np.arange(24) + 0.5 - centres[:, None]) / 1.5)
    weights /= weights.sum(1, keepdims=True)
    expected = np.einsum("yh,thwc,xw->tyxc", weights, video.astype(float), weights)
    assert np.abs(resized - expected).max() <= 0.5 + 1e-3


def test_training_clips_leave_the_host_as_large_as_asked(tmp_path, make_clip, write_split):
    flows = np.tile(np.array([200, 90, 0], np.uint8), (6, 40, 40, 1))
    write_split(tmp_path, "unlabelled", [records.encode_example(
        make_clip(np.zeros((6, 40, 40, 3), np.uint8), flows, fps=5.0), example_id="a")])
    spec = dataclasses.replace(SPEC, host_size=20)
    batch = next(pipeline.training_clips(Records(str(tmp_path)), "unlabelled", spec, batch_size=2,
                                seed=1).as_numpy_iterator())
    assert batch["rgb"].shape == (2, 6, 20, 20, 3) and batch["flow"].shape == (2, 6, 20, 20, 2)
    assert batch["other_rgb"].shape == (2, 4, 20, 20, 3)
    # Flow is in pixels of the frame as it leaves the host: half of the stored ones.
    stored = (np.array([200, 90]) / 255 * 2 - 1) * 20
    np.testing.assert_allclose((batch["flow"][0, 0, 0, 0] / 255 * 2 - 1) * 20, stored / 2,
                               atol=20 / 255 + 1e-6)
    tested = next(pipeline.testing_clips(Records(str(tmp_path)), "unlabelled", spec,
                                batch_size=1).as_numpy_iterator())
    assert tested["rgb"].shape == (1, 4, 16, 16, 3)


@pytest.mark.parametrize(("height", "width", "crops", "expected"), [
    (10, 17, 3, [(0, 0), (0, 3), (0, 7)]), (17, 10, 3, [(0, 0), (3, 0), (7, 0)]),
    (10, 10, 3, [(0, 0)] * 3), (10, 17, 1, [(0, 3)]), (10, 16, 2, [(0, 0), (0, 6)]),
    (13, 10, 4, [(0, 0), (1, 0), (2, 0), (3, 0)])])
def test_crops_are_spread_over_the_longer_side(height, width, crops, expected):
    boxes = [decoding.spread_box(tf.constant(height), tf.constant(width), SPEC, crops,
                                 tf.constant(crop)).numpy().tolist() for crop in range(crops)]
    assert boxes == [[y, x, 10, 10] for y, x in expected]


def test_flow_of_another_writer_is_read(make_clip, encode_image):
    """One picture fewer than frames, and coded as JPEG."""
    y, x = np.mgrid[0:16, 0:16]
    code = np.stack([100 + 4 * x, 200 - 5 * y, 0 * x], -1).astype(np.uint8)
    clip = make_clip(np.zeros((6, 16, 16, 3), np.uint8), fps=5.0)
    clip.flows = [encode_image(code + np.uint8(i), "JPEG", quality=100, subsampling=0)
                  for i in range(5)]
    parsed = parsing.parse(records.encode_example(clip, example_id="a"), SPEC)
    flow = decoding.decode_window(parsed, tf.constant(2), 4, tf.constant([0, 0, 16, 16]), 16,
                                  SPEC)["flow"].numpy()
    for k, i in enumerate([2, 3, 4, 4]):  # of the last frame there is none: the one before it
        expected = np.asarray(Image.open(io.BytesIO(clip.flows[i])))[..., :2]
        assert np.abs(flow[k].astype(int) - expected).max() <= 1


def test_flow_of_another_size_than_the_frames_is_refused(make_clip):
    clip = make_clip(np.zeros((6, 16, 16, 3), np.uint8), np.zeros((6, 8, 8, 3), np.uint8), fps=5.0)
    parsed = parsing.parse(records.encode_example(clip, example_id="odd.mp4"), SPEC)
    with pytest.raises(tf.errors.InvalidArgumentError, match="odd.mp4 has flow of another size"):
        decoding.decode_window(parsed, tf.constant(0), 4, tf.constant([0, 0, 16, 16]), 16, SPEC)
