import io

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from elo_tf.data import encoding, flow, schema
from elo_tf.errors import UserError

METHODS = ("dis", "tvl1", "farneback")


def scene(x, y, seed=0):
    """The picture at any place: a sum of waves, so that it can be moved exactly; uint8 [.., 3]."""
    generator = np.random.default_rng(seed)
    angles, phases = generator.uniform(0, 2 * np.pi, (2, 60))
    lengths = generator.uniform(6, 30, 60)
    waves = np.sin(2 * np.pi * (x[..., None] * np.cos(angles) + y[..., None] * np.sin(angles))
                   / lengths + phases)
    colours = [waves[..., k::3].sum(-1) for k in range(3)]
    return np.clip(128 + 18 * np.stack(colours, -1), 0, 255).round().astype(np.uint8)


def grid(height=80, width=96):
    """(x, y) from the centre."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return x - (width - 1) / 2, y - (height - 1) / 2


def moved(transform, *size):
    """Two frames and the true flow, where the point p of the first lies at A p + b in the second.

    Args:
      transform: (A [2, 2], b [2]).
      size: height and width.
    """
    matrix, offset = np.asarray(transform[0], float), np.asarray(transform[1], float)
    points = np.stack(grid(*size), -1)
    origins = (points - offset) @ np.linalg.inv(matrix).T
    true = points @ matrix.T + offset - points
    return scene(*grid(*size)), scene(origins[..., 0], origins[..., 1]), true


def turn(degrees):
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return [[cosine, -sine], [sine, cosine]]


MOTIONS = {
    "right and up": (np.eye(2), (1.5, -0.75)),
    "left and down": (np.eye(2), (-3.3, 2.2)),
    "right": (np.eye(2), (0.4, 0)),
    "down": (np.eye(2), (0, 2.6)),
    "rotation": (turn(3), (0, 0)),
    "expansion": (np.eye(2) * 1.05, (0, 0)),
    "contraction and shift": (np.eye(2) * 0.96, (0.5, -1)),
}
# Largest mean and largest error of a pixel, in pixels; the motions are 0.4 to 4 pixels.
BOUNDS = {"dis": (0.1, 0.4), "tvl1": (0.08, 0.3), "farneback": (0.2, 0.6)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("motion", MOTIONS)
def test_a_known_motion_is_found(method, motion):
    first, second, true = moved(MOTIONS[motion])
    step, last = flow.optical_flow([first, second], method)
    assert step.dtype == np.float32
    assert step.shape == true.shape
    assert np.array_equal(step, last)
    error = np.linalg.norm(step - true, axis=-1)[12:-12, 12:-12]
    mean, largest = BOUNDS[method]
    assert error.mean() < mean
    assert error.max() < largest


@pytest.mark.parametrize("motion", ["left and down", "rotation", "contraction and shift"])
def test_large_frames(motion):
    first, second, true = moved(MOTIONS[motion], 200, 240)
    step = next(flow.optical_flow([first, second]))
    error = np.linalg.norm(step - true, axis=-1)[12:-12, 12:-12]
    assert error.mean() < 0.1
    assert np.quantile(error, 0.99) < 0.25


@pytest.mark.parametrize("method", METHODS)
def test_an_object_moves_and_the_rest_does_not(method):
    x, y = grid()
    background = scene(x, y)
    frames = []
    for shift in (0, 3):
        inside = (np.abs(x - shift) < 20) & (np.abs(y) < 16)
        frames.append(np.where(inside[..., None], scene(x - shift, y, seed=1), background))
    step = next(flow.optical_flow(frames, method))
    inside = (np.abs(x) < 14) & (np.abs(y) < 10)
    outside = (np.abs(x) > 30) | (np.abs(y) > 26)
    assert np.abs(np.median(step[inside], axis=0) - (3, 0)).max() < 0.1
    assert np.abs(np.median(step[outside], axis=0)).max() < 0.05


def test_the_coded_flow_warps_the_next_frame_back(texture):
    world = texture(112)
    frames = [world[20:84, 20 - 2 * t:84 - 2 * t] for t in range(3)]
    coded = [flow.quantise(step) for step in flow.optical_flow(frames)]
    step = flow.dequantise(coded[0])
    y, x = np.mgrid[:64, :64].astype(np.float32)
    back = cv2.remap(frames[1], x + step[..., 0], y + step[..., 1], cv2.INTER_LINEAR)
    error = np.abs(back.astype(int) - frames[0])[12:-12, 12:-12].mean()
    unmoved = np.abs(frames[1].astype(int) - frames[0])[12:-12, 12:-12].mean()
    assert error < 0.1 * unmoved


@pytest.mark.parametrize("method", METHODS)
def test_as_many_flows_as_frames_and_none_between_equal_ones(texture, method):
    a, b = texture(32), texture(32, seed=1)
    flows = list(flow.optical_flow([a, a, b, b.copy(), a], method))
    assert len(flows) == 5
    assert not flows[0].any() and not flows[2].any()
    assert flows[1].any() and flows[3].any()
    assert np.array_equal(flows[3], flows[4])
    # What a pair gives does not depend on the frames around it.
    assert np.array_equal(flows[1], next(flow.optical_flow([a, b], method)))
    (alone,) = flow.optical_flow([a], method)
    assert alone.shape == (32, 32, 2) and not alone.any()


@pytest.mark.parametrize("method", METHODS)
def test_two_runs_give_the_same_bytes_whatever_the_threads(texture, method):
    frames = [texture(128, seed) for seed in range(2)]
    first = next(flow.optical_flow(frames, method)).tobytes()
    cv2.setNumThreads(4)
    assert next(flow.optical_flow(frames, method)).tobytes() == first


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 20), (7, 64), (8, 11), (11, 8), (40, 2),
                                               (16, 320), (320, 16)])
def test_frames_of_any_shape(texture, method, height, width):
    frames = [texture(320, seed)[:height, :width] for seed in range(2)]
    step, _ = flow.optical_flow(frames, method)
    assert step.shape == (height, width, 2)
    assert np.isfinite(step).all()


def test_small_frames_are_padded_with_their_edges():
    x, y = grid(10, 24)
    step = next(flow.optical_flow([scene(x, y), scene(x - 1, y)]))
    assert np.abs(np.median(step[3:-3, 4:-4], axis=(0, 1)) - (1, 0)).max() < 0.15


def test_an_unknown_method():
    with pytest.raises(UserError, match="'raft'; use one of dis, tvl1, farneback"):
        flow.optical_flow([], "raft")


def test_quantisation():
    values = np.linspace(-20, 20, 4001, dtype=np.float32)
    pairs = np.stack([values, -values], -1)
    coded = flow.quantise(pairs)
    assert coded.dtype == np.uint8
    assert not coded[:, 2].any()
    expected = np.clip(np.round(255 * (pairs.astype(np.float64) + 20) / 40), 0, 255)
    assert np.abs(coded[:, :2] - expected).max() <= 1
    assert np.mean(coded[:, :2] == expected) > 0.99
    wild = flow.quantise(np.array([[-1e9, 1e9], [np.inf, -np.inf], [np.nan, 0]]))
    assert wild[:2, :2].tolist() == [[0, 255], [255, 0]]
    assert wild[2, 0] in (127, 128)
    assert np.abs(flow.dequantise(flow.quantise(pairs / 4, clip=5.0), clip=5.0)
                  - pairs / 4).max() < 0.02


def test_a_stored_flow_is_less_than_a_tenth_of_a_pixel_off():
    assert schema.FLOW_CLIP == 20
    values = np.linspace(-20, 20, 256 * 256, dtype=np.float32).reshape(256, 256)
    field = np.stack([values, values.T[::-1]], -1)
    before = field.copy()
    (data,) = encoding._encode_all([field], ".png", encoding._PNG, flow.quantise)
    assert np.array_equal(field, before)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        by_pillow = np.asarray(image)
    # As DMVR reads it: this decoder takes PNG too.
    by_tensorflow = tf.image.decode_jpeg(data, channels=3).numpy()
    for coded in (by_pillow, by_tensorflow):
        assert not coded[..., 2].any()
        read = coded[..., :2] / 255 * 2 * schema.FLOW_CLIP - schema.FLOW_CLIP
        assert np.abs(read - field).max() < 0.0785 < 0.1
        assert np.allclose(flow.dequantise(coded), read, atol=1e-5)
