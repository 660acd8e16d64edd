import cv2
import numpy as np
import pytest

from elo_tf.data import flow, schema


@pytest.mark.parametrize(("dx", "dy"), [(2, 1), (-3, 2), (0, -4)])
def test_a_translation_is_found(texture, dx, dy):
    world = texture(112)
    first = world[20:84, 20:84]
    second = world[20 - dy:84 - dy, 20 - dx:84 - dx]  # What was at p is now at p + (dx, dy).
    found = flow.dis_flow([first, second])[0]
    assert found.dtype == np.float32
    assert found.shape == (64, 64, 2)
    assert np.abs(found[12:-12, 12:-12] - (dx, dy)).max() < 0.25


def test_the_coded_flow_warps_the_next_frame_back(texture):
    world = texture(112)
    frames = [world[20:84, 20 - 2 * t:84 - 2 * t] for t in range(3)]
    coded = [flow.quantise(step) for step in flow.dis_flow(frames)]
    step = flow.dequantise(coded[0])
    y, x = np.mgrid[:64, :64].astype(np.float32)
    back = cv2.remap(frames[1], x + step[..., 0], y + step[..., 1], cv2.INTER_LINEAR)
    error = np.abs(back.astype(int) - frames[0])[12:-12, 12:-12].mean()
    unmoved = np.abs(frames[1].astype(int) - frames[0])[12:-12, 12:-12].mean()
    assert error < 0.1 * unmoved


def test_as_many_flows_as_frames(texture):
    frames = [texture(32, seed) for seed in range(3)]
    flows = flow.dis_flow(frames)
    assert len(flows) == 3
    assert np.array_equal(flows[1], flows[2])
    assert not np.array_equal(flows[0], flows[1])
    assert not flow.dis_flow(frames[:1])[0].any()
    assert not flow.dis_flow([frames[0], frames[0]])[0].any()


def test_quantisation():
    values = np.linspace(-20, 20, 4001, dtype=np.float32)
    pairs = np.stack([values, -values], -1)
    coded = flow.quantise(pairs)
    assert coded.dtype == np.uint8
    assert not coded[:, 2].any()
    assert np.abs(flow.dequantise(coded) - pairs).max() <= schema.FLOW_CLIP / 255 + 1e-5 < 0.1
    expected = np.clip(np.round(255 * (pairs.astype(np.float64) + 20) / 40), 0, 255)
    assert np.abs(coded[:, :2] - expected).max() <= 1
    assert np.mean(coded[:, :2] == expected) > 0.99
    wild = flow.quantise(np.array([[-1e9, 1e9], [np.inf, -np.inf], [np.nan, 0]]))
    assert wild[:2, :2].tolist() == [[0, 255], [255, 0]]
    assert wild[2, 0] in (127, 128)
    assert np.abs(flow.dequantise(flow.quantise(pairs / 4, clip=5.0), clip=5.0)
                  - pairs / 4).max() < 0.02
