"""Checks the pictures of one record: its frames and its optical flow, every one decoded."""

import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, JpegImagePlugin

from elo_tf.data import schema
from elo_tf.data.inspection.record_values import Facts, Findings, Record

CLIPPED_SHARE = 0.05
"""More flow than this at the largest value that can be stored is worth a warning (our choice)."""

STILL_CODES = (127, 128)
"""The two codes around zero flow, which has none of its own."""

JPEG_NOISE = 24
"""What JPEG may make of a channel of zeros."""

_FEATURE_MEND = ("write a feature list with one Feature for each picture, "
                 "`feature_list[key].feature.add().bytes_list.value.append(picture)`")


class _Picture(NamedTuple):
    """What is kept of a decoded picture: long clips would fill the memory with pixels."""

    size: tuple[int, int]
    format: str
    channels: int
    halved: bool


class _Codes:
    """Counts the codes of flow images."""

    def __init__(self):
        self.counts = np.zeros(65536, np.int64)
        self.blue = 0

    def add(self, pixels: np.ndarray) -> None:
        """Counts those of one image, uint8 [H, W, 3]; others are left out."""
        if pixels.ndim == 3 and pixels.shape[-1] == 3:
            code = pixels[..., 0].astype(np.uint16) * 256 + pixels[..., 1]
            self.counts += np.bincount(code.ravel(), minlength=65536)
            self.blue = max(self.blue, int(pixels[..., 2].max()))


def check_frames(record: Record, facts: Facts, found: Findings) -> None:
    """Checks that the frames are there, decode, and are as large as the record says.

    Args:
      record: the parsed record.
      facts: gets frames, size and bytes.
      found: gets what is wrong.
    """
    encoded = _encoded(record, schema.IMAGE_ENCODED, "frames", found)
    facts.frames = len(encoded)
    facts.image_bytes = sum(map(len, encoded))
    if not encoded:
        if not found.has("frames"):
            found.error("frames", f"there are no frames, the feature list {schema.IMAGE_ENCODED} "
                        "is missing; convert the video again")
        return
    pictures = _decode(encoded, "frame", found)
    _check_sizes(record, pictures, schema.IMAGE_HEIGHT, schema.IMAGE_WIDTH, "frame", found)
    if others := sum(picture.format != "JPEG" for picture in pictures):
        found.error("frame format", f"{others} of {len(pictures)} frames are PNGs, which readers "
                    "do not crop while decoding; store JPEGs")
    _check_stated(record, pictures, schema.IMAGE_FORMAT, schema.IMAGE_CHANNELS, "frame", found)
    if pictures:
        facts.width, facts.height = pictures[0].size


def check_flow(record: Record, facts: Facts, found: Findings) -> None:
    """Checks the optical flow of a record that has some; needs `facts` of the frames.

    Args:
      record: the parsed record.
      facts: gets the histogram of the codes.
      found: gets what is wrong.
    """
    if record.feature_list(schema.FLOW_ENCODED) is None:
        return
    encoded = _encoded(record, schema.FLOW_ENCODED, "flow", found)
    if not encoded:
        if not found.has("flow"):
            found.error("flow", f"the feature list {schema.FLOW_ENCODED} is empty; leave the key "
                        "out where there is no flow")
        return
    facts.flows = len(encoded)
    saturation = record.scalar(schema.FLOW_SATURATION)
    facts.flow_clip = schema.FLOW_CLIP if saturation is None else float(saturation)
    if not 0 < facts.flow_clip < float("inf"):
        found.error("flow saturation", f"{schema.FLOW_SATURATION} is {facts.flow_clip:g}; it is "
                    "the largest flow that can be stored, in pixels, such as 20")
    if facts.frames and len(encoded) == facts.frames - 1:
        found.warning("flow count", f"{len(encoded)} flow images for {facts.frames} frames; "
                      "repeat the last one, so that each frame has its flow")
    elif facts.frames and len(encoded) != facts.frames:
        found.error("flow count", f"{len(encoded)} flow images for {facts.frames} frames; write "
                    "one for each frame")
    codes = _Codes()
    pictures = _decode(encoded, "flow image", found, codes.add)
    _check_sizes(record, pictures, schema.FLOW_HEIGHT, schema.FLOW_WIDTH, "flow image", found)
    _check_stated(record, pictures, schema.FLOW_FORMAT, schema.FLOW_CHANNELS, "flow image", found)
    if pictures and facts.width and pictures[0].size != (facts.width, facts.height):
        found.error("flow size", f"flow images are {_size(pictures[0].size)}, frames "
                    f"{_size((facts.width, facts.height))}; resize the flow, and its values with "
                    "it")
    gray = sum(picture.channels != 3 for picture in pictures)
    if gray and not found.has("flow image channels"):
        found.error("flow channels", f"{gray} of {len(pictures)} flow images are not RGB; red is "
                    "x, green is y, blue is 0")
    if halved := sum(picture.halved for picture in pictures):
        found.warning("flow chroma", f"{halved} of {len(pictures)} flow images are JPEGs with "
                      "halved colour (4:2:0 or 4:2:2), which puts the flow wrong by pixels; store "
                      "PNG, or JPEG 4:4:4")
    if codes.counts.any():
        lossy = any(picture.format == "JPEG" for picture in pictures)
        _check_values(codes, JPEG_NOISE if lossy else 0, facts, found)


def _encoded(record: Record, key: str, check: str, found: Findings) -> list[bytes]:
    """The pictures of a feature list; none where they are not one to a Feature."""
    features = record.feature_list(key)
    if features is None:
        misplaced = record.context_values(key)
        if misplaced is not None:
            found.error(check, f"{key} lies in the context, all {len(misplaced)} values in one "
                        f"Feature; {_FEATURE_MEND}")
        return []
    wrong = [kind for kind, _ in features if kind != "bytes_list"]
    if wrong:
        found.error(check, f"{key} holds {wrong[0] or 'nothing'} in {len(wrong)} of "
                    f"{len(features)} Features; store each picture as the bytes of a JPEG or PNG")
        return []
    counts = [len(values) for _, values in features]
    if len(counts) == 1 and counts[0] > 1:
        found.error(check, f"all {counts[0]} pictures of {key} lie in one Feature; {_FEATURE_MEND}")
        return []
    if any(count != 1 for count in counts):
        place = next(index for index, count in enumerate(counts) if count != 1)
        found.error(check, f"Feature {place} of {key} holds {counts[place]} pictures; "
                    f"{_FEATURE_MEND}")
        return []
    return [values[0] for _, values in features]


def _decode(encoded: Sequence[bytes], what: str, found: Findings,
            use: Callable[[np.ndarray], None] | None = None) -> list[_Picture]:
    """Decodes all pictures, whose pixels `use` gets; those that do not decode become a finding."""
    pictures, failed = [], []
    for index, data in enumerate(encoded):
        try:
            image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
            picture = _Picture(
                image.size, image.format or "", len(image.getbands()),
                image.format == "JPEG" and JpegImagePlugin.get_sampling(image) > 0)
            if use is None:
                # Reads every coefficient of a JPEG, and makes few pixels: three times as fast.
                image.draft("L", (image.width // 8, image.height // 8))
            image.load()
        except Image.UnidentifiedImageError:
            head = data[:8].hex(" ") or "nothing"
            failed.append((index, f"neither a JPEG nor a PNG, it begins with {head}"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            # Pillow's error about a broken PNG is a SyntaxError.
            failed.append((index, str(error)))
        else:
            pictures.append(picture)
            if use is not None:
                use(np.asarray(image))
    if failed:
        index, reason = failed[0]
        found.error(f"{what} decode", f"{len(failed)} of {len(encoded)} {what}s do not decode, "
                    f"first number {index}: {reason}; convert the video again")
    return pictures


def _check_sizes(record: Record, pictures: Sequence[_Picture], height_key: str,
                 width_key: str, what: str, found: Findings) -> None:
    sizes = {picture.size: None for picture in pictures}
    if len(sizes) > 1:
        found.error(f"{what} size", f"{what}s of one clip have {len(sizes)} sizes: "
                    f"{', '.join(map(_size, list(sizes)[:4]))}; resize them to one")
    height, width = record.scalar(height_key), record.scalar(width_key)
    if not sizes or (height is None and width is None):
        return
    actual = next(iter(sizes))
    stated = (actual[0] if width is None else width, actual[1] if height is None else height)
    if stated != actual:
        found.error(f"{what} size", f"{what}s are {_size(actual)}, but {height_key} and "
                    f"{width_key.rpartition('/')[2]} say {_size(stated)}; write the size that is "
                    "stored")


def _check_stated(record: Record, pictures: Sequence[_Picture], format_key: str,
                  channels_key: str, what: str, found: Findings) -> None:
    formats = sorted({picture.format for picture in pictures})
    stated = record.scalar(format_key)
    if stated is not None and pictures and not found.has(f"{what} format"):
        name = stated.decode(errors="replace").upper().replace("JPG", "JPEG")
        if formats != [name]:
            found.error(f"{what} format", f"{what}s are {' and '.join(formats)}, but {format_key} "
                        f"says {name!r}; write the format that is stored")
    channels = record.scalar(channels_key)
    actual = sorted({picture.channels for picture in pictures})
    if channels is not None and pictures and actual != [channels]:
        found.error(f"{what} channels", f"{what}s have {' and '.join(map(str, actual))} channels, "
                    f"but {channels_key} says {channels}; store them as RGB")


def _check_values(codes: _Codes, tolerance: int, facts: Facts, found: Findings) -> None:
    blue_used = codes.blue > tolerance
    red_used = codes.counts[256 * (tolerance + 1):].any()
    if blue_used and not red_used:
        found.error("flow channels", "the flow's first channel is 0 everywhere and its third is "
                    "not: the channels lie in BGR order; write red = x, green = y, blue = 0")
        return
    if blue_used:
        found.warning("flow blue", "the third channel of the flow is not 0; readers ignore it")
    facts.flow_codes = codes.counts
    clipped, still = flow_shares(codes.counts)
    if clipped > CLIPPED_SHARE:
        found.warning("flow clipped", f"{clipped:.0%} of the flow is at the largest value that "
                      f"can be stored, {facts.flow_clip:g} px; store more frames a second, or "
                      "smaller ones")
    if still == 1.0 and facts.frames > 1:
        found.warning("flow still", "the flow is zero everywhere, in every frame")


def flow_shares(codes: np.ndarray) -> tuple[float, float]:
    """Shares of the pixels whose flow is clipped, and that are exactly still.

    Args:
      codes: int64 [65536], counts of 256 * (code of x) + (code of y).

    Returns:
      The share where x or y has the first or the last code, and that where both have one of the
      two codes around zero; 0 without pixels.
    """
    grid = codes.reshape(256, 256)
    total = max(int(grid.sum()), 1)
    inside = int(grid[1:255, 1:255].sum())
    first, last = STILL_CODES
    still = int(grid[first:last + 1, first:last + 1].sum())
    return (int(grid.sum()) - inside) / total, still / total


def flow_percentiles(codes: dict[float, np.ndarray], percents: Sequence[float]) -> list[float]:
    """Percentiles of the length of the flow, exact.

    Args:
      codes: {clip in pixels: counts as in `flow_shares`}.
      percents: which.

    Returns:
      For each, the smallest length that at least so many percent of the pixels do not exceed, in
      pixels; nothing without pixels.
    """
    if not codes:
        return []
    lengths, counts = [], []
    for clip, table in codes.items():
        used = np.flatnonzero(table)
        x, y = (np.stack(np.divmod(used, 256)) / 255 - 0.5) * 2 * clip
        lengths.append(np.hypot(x, y))
        counts.append(table[used])
    lengths, counts = np.concatenate(lengths), np.concatenate(counts)
    order = np.argsort(lengths)
    reached = np.cumsum(counts[order])
    places = np.searchsorted(reached, np.ceil(np.asarray(percents) / 100 * reached[-1]))
    return [float(lengths[order][place]) for place in places]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
