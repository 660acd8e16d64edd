"""Optical flow between the frames of a clip, and how it is stored in eight bits.

Three methods: DIS (Kroeger et al. 2016, OpenCV), the default; Farneback (2003, OpenCV), about as
fast, smoother, and lost where the motion is large; TV-L1 (Zach et al. 2007, scikit-image), which
most published flow uses, at twenty times the cost and more. All run in one thread and give the same
flow on every run. Stored values follow MediaSequence: clipped to +-`FLOW_CLIP` pixels of the
stored frame, scaled to 0..255 and rounded, x in the first channel, y in the second, 0 in the
third. Readers get back v = q / 255 * 2 * clip - clip, within 0.08 pixels at the default clip of 20.
"""

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np

from elo_tf.data import schema
from elo_tf.errors import UserError

_Estimate = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Two uint8 [H, W] images to float32 [H, W, 2], (x, y) in pixels."""

_MIN_SIDE = 16
"""Pixels; smaller frames are padded, since DIS fails under 8 x 12 and TV-L1 on a single row."""

_LARGE = 160
"""Pixels of the shorter side, from which DIS works at half the size."""


def _dis() -> _Estimate:
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def estimate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        # In small frames every pixel counts. In large ones, flow found at half the size and
        # enlarged is still closer than the coding, and takes a quarter of the time (our choice).
        method.setFinestScale(0 if min(first.shape) < _LARGE else 1)
        return method.calc(first, second, None)
    return estimate


def _farneback() -> _Estimate:
    # Our choice, by the error on textures moved by known amounts: as many halvings as the frame
    # allows (up to 5), and OpenCV's larger neighbourhood, which follows larger motion.
    def estimate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return cv2.calcOpticalFlowFarneback(
            first, second, None, pyr_scale=0.5, levels=5, winsize=15, iterations=3, poly_n=7,
            poly_sigma=1.5, flags=0)
    return estimate


def _tvl1() -> _Estimate:
    from skimage.registration import optical_flow_tvl1  # Here: a second that the others save.

    def estimate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        down, right = optical_flow_tvl1(
            first.astype(np.float32) / 255, second.astype(np.float32) / 255, dtype=np.float32)
        return np.stack([right, down], axis=-1)
    return estimate


METHODS: dict[str, Callable[[], _Estimate]] = {
    "dis": _dis, "tvl1": _tvl1, "farneback": _farneback}
"""The methods by the name that options and flags use."""


def optical_flow(frames: Sequence[np.ndarray], method: str = "dis") -> Iterator[np.ndarray]:
    """Computes the flow from each frame to the next, one at a time.

    Frames with a side under 16 pixels are padded by repeating their edges, which the result is
    cut back from.

    Args:
      frames: N >= 1 arrays, uint8 [H, W, 3], RGB.
      method: a key of `METHODS`.

    Returns:
      N arrays, float32 [H, W, 2]: (x, y) displacement in pixels, right and down positive. Where
      the pixel of frame t at p moved to p + flow[t][p] in frame t + 1. Zero between frames that
      are equal. The last one, which has no next frame, repeats the one before it (zero for a
      single frame). Not to be written into: some are the same array.

    Raises:
      UserError: if there is no such method.
    """
    if method not in METHODS:
        raise UserError(f"there is no optical flow {method!r}; use one of {', '.join(METHODS)}")
    return _flows(frames, METHODS[method]())


def _flows(frames: Sequence[np.ndarray], estimate: _Estimate) -> Iterator[np.ndarray]:
    cv2.setNumThreads(1)  # One process a core; and the result must not depend on the machine.
    height, width = frames[0].shape[:2]
    missing = (0, max(_MIN_SIDE - height, 0), 0, max(_MIN_SIDE - width, 0))
    flow = zero = np.zeros((height, width, 2), np.float32)
    before = zero  # is not looked at
    for index, frame in enumerate(frames):
        repeated = index > 0 and frame is frames[index - 1]
        gray = before if repeated else cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        if any(missing) and not repeated:
            gray = cv2.copyMakeBorder(gray, *missing, cv2.BORDER_REPLICATE)
        if index:
            still = repeated or np.array_equal(before, gray)
            flow = zero if still else estimate(before, gray)[:height, :width]
            yield flow
        before = gray
    yield flow


def quantise(flow: np.ndarray, clip: float = schema.FLOW_CLIP) -> np.ndarray:
    """Codes flow in eight bits.

    Args:
      flow: float [..., 2], pixels.
      clip: the largest flow that can be stored, in pixels.

    Returns:
      uint8 [..., 3]: round(255 * (v + clip) / (2 * clip)) of x and y, and 0.
    """
    scaled = (np.asarray(flow, np.float32) + clip) * (255.0 / (2.0 * clip))
    coded = np.zeros((*scaled.shape[:-1], 3), np.uint8)
    scaled = np.nan_to_num(scaled, copy=False, nan=127.5)
    coded[..., :2] = np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled)
    return coded


def dequantise(coded: np.ndarray, clip: float = schema.FLOW_CLIP) -> np.ndarray:
    """Inverts `quantise`; zero flow comes back as about 0.08 pixels, the coding has no zero.

    Args:
      coded: uint8 [..., 2 or 3].
      clip: the clip it was coded with.

    Returns:
      float32 [..., 2], pixels.
    """
    return coded[..., :2].astype(np.float32) * (2.0 * clip / 255.0) - clip
