"""Optical flow between the frames of a clip, and how it is stored in eight bits.

The flow is DIS (Kroeger et al. 2016, OpenCV): 2 ms for a pair of small frames, where TV-L1 takes
a hundred. Stored values follow MediaSequence: clipped to +-`FLOW_CLIP` pixels of the stored frame,
scaled to 0..255 and rounded, x in the first channel, y in the second, 0 in the third. Readers get
back v = q / 255 * 2 * clip - clip, within 0.04 pixels at the default clip of 20.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from elo_tf.data import schema


def dis_flow(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Computes the flow from each frame to the next.

    Args:
      frames: N >= 1 arrays, uint8 [H, W, 3], RGB.

    Returns:
      N arrays, float32 [H, W, 2]: (x, y) displacement in pixels, right and down positive. Where
      the pixel of frame t at p moved to p + flow[t][p] in frame t + 1. The last one, which has no
      next frame, repeats the one before it (zero for a single frame).
    """
    cv2.setNumThreads(1)  # One process a core; and the result must not depend on the machine.
    grays = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    method.setFinestScale(0)  # Stored frames are small: every pixel counts.
    flows = []
    for i in range(len(grays) - 1):
        if frames[i] is frames[i + 1] or np.array_equal(grays[i], grays[i + 1]):
            flows.append(np.zeros((*grays[i].shape, 2), np.float32))
        else:
            flows.append(method.calc(grays[i], grays[i + 1], None))
    last = flows[-1] if flows else np.zeros((*grays[0].shape, 2), np.float32)
    return [*flows, last]


def quantise(flow: np.ndarray, clip: float = schema.FLOW_CLIP) -> np.ndarray:
    """Codes flow in eight bits.

    Args:
      flow: float [..., 2], pixels.
      clip: the largest flow that can be stored, in pixels.

    Returns:
      uint8 [..., 3]: round(255 * (v + clip) / (2 * clip)) of x and y, and 0.
    """
    scaled = (np.asarray(flow, np.float32) + clip) * (255.0 / (2.0 * clip))
    coded = np.clip(np.rint(np.nan_to_num(scaled, nan=127.5)), 0, 255).astype(np.uint8)
    return np.concatenate([coded, np.zeros_like(coded[..., :1])], axis=-1)


def dequantise(coded: np.ndarray, clip: float = schema.FLOW_CLIP) -> np.ndarray:
    """Inverts `quantise`; zero flow comes back as about 0.08 pixels, the coding has no zero.

    Args:
      coded: uint8 [..., 2 or 3].
      clip: the clip it was coded with.

    Returns:
      float32 [..., 2], pixels.
    """
    return coded[..., :2].astype(np.float32) * (2.0 * clip / 255.0) - clip
