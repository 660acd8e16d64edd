"""The parts of a request's body -> the arrays that a signature takes, with every check.

What arrives is JSON of anything, or bytes: each is refused with a sentence, before it is given to
NumPy, which would convert strings and round numbers, or to TensorFlow.
"""

import binascii
import dataclasses
import itertools
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import tensorflow as tf

from elo_tf.serving.batching import Clip
from elo_tf.serving.limits import Limits, RequestError
from elo_tf.serving.served_model import DEFAULT_SIGNATURE, Signature

DATATYPES = {tf.uint8: "UINT8", tf.string: "BYTES", tf.float32: "FP32"}  # Open Inference's names


@dataclasses.dataclass(frozen=True)
class Query:
    """A request, checked.

    Attributes:
      signature: what is asked for.
      clips: what the batcher takes.
      identity: by which the client knows it, or None.
      outputs: names of the outputs that are wanted, and whether each in binary; None takes all.
      binary: whether outputs that are not named are wanted in binary.
    """

    signature: Signature
    clips: list[Clip]
    identity: str | None = None
    outputs: Mapping[str, bool] | None = None
    binary: bool = False


def json_object(body: bytes) -> dict:
    """A body's JSON object.

    Raises:
      RequestError: it is none.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise RequestError("the body is not a JSON object")
    return document


def find_signature(signatures: Mapping[str, Signature], name: Any) -> Signature:
    """The signature that a request names, or the default one where it names none."""
    name = DEFAULT_SIGNATURE if name in (None, "") else name
    if not isinstance(name, str) or name not in signatures:
        raise RequestError(f"there is no signature {shown(name)}; the model has "
                           f"{', '.join(sorted(signatures))}")
    return signatures[name]


def check_names(given: Sequence[str], wanted: Mapping[str, Any], what: str = "input") -> None:
    """Raises RequestError where a name is missing, unknown or given twice."""
    if len(set(given)) < len(given):
        raise RequestError(f"an {what} is given twice")
    for name in given:
        if name not in wanted:
            raise RequestError(f"there is no {what} {shown(name)}; it is called "
                               f"{', '.join(sorted(wanted))}")
    for name in wanted:
        if name not in given:
            raise RequestError(f"{what} {name} is missing")


def shown(value: Any) -> str:
    """A value of the client's in a message, not longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def decode_base64(text: Any) -> bytes:
    """The bytes that a string of base64 (RFC 4648, with padding) stands for."""
    if not isinstance(text, str):
        raise RequestError(f"base64 is a string, not {shown(text)}")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"this is not base64: {error}") from error


def raw_frames(value: Any, spec: tf.TensorSpec, limits: Limits) -> np.ndarray:
    """A clip uint8 [T, H, W, C] of nested lists of whole numbers."""
    if not isinstance(value, list):
        raise RequestError(f"frames are nested lists [T, H, W, C] of numbers, not {shown(value)}")
    limits.check_frames(len(value))
    frames = [_raw_frame(x, spec.shape[-1], limits) for x in value]
    if len({x.shape for x in frames}) > 1:
        raise RequestError("the frames of a clip differ in height or width")
    return np.stack(frames)


def _raw_frame(value: Any, channels: int, limits: Limits) -> np.ndarray:
    """A frame uint8 [H, W, C]."""
    try:
        height, width = len(value), len(value[0])
        limits.check_pixels(height, width)
        for row in value:
            if not isinstance(row, list) or len(row) != width:
                raise RequestError("the rows of a frame differ in length")
            if any(not isinstance(pixel, list) or len(pixel) != channels for pixel in row):
                raise RequestError(f"a pixel is a list of {channels} numbers")
        # bytes() takes whole numbers from 0 to 255, and nothing else.
        pixels = b"".join(bytes(itertools.chain.from_iterable(row)) for row in value)
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise RequestError("frames are nested lists [T, H, W, C] of whole numbers from 0 to 255"
                           ) from error
    return np.frombuffer(pixels, np.uint8).reshape(height, width, channels)


def encoded_frames(values: Sequence[bytes], limits: Limits) -> np.ndarray:
    """A clip of JPEG files, bytes objects [T]."""
    limits.check_frames(len(values))
    for x in values:
        limits.check_jpeg(x)
    frames = np.empty(len(values), object)
    frames[:] = values
    return frames


def tensor(spec: tf.TensorSpec, name: str, datatype: Any, shape: Any, data: Any, *,
           base64: bool = False, limits: Limits) -> list[np.ndarray]:
    """The clips of a tensor [B, T, ...] of the Open Inference protocol.

    Args:
      spec: what the signature takes.
      name: of the input.
      datatype: by the protocol's name.
      shape: of the tensor.
      data: its elements, as bytes (in the binary form of the protocol) or a list, flat or nested.
      base64: whether strings in a list are base64.
      limits: what may be asked for.

    Raises:
      RequestError: anything of it is wrong.
    """
    if datatype != DATATYPES[spec.dtype]:
        raise RequestError(f"input {name} is of type {DATATYPES[spec.dtype]}, not "
                           f"{shown(datatype)}")
    if (not isinstance(shape, list) or len(shape) != spec.shape.rank
            or any(type(x) is not int or x < 0 for x in shape)
            or any(x not in (None, y) for x, y in zip(spec.shape, shape, strict=True))):
        wanted = [-1 if x is None else x for x in spec.shape]
        raise RequestError(f"input {name} has shape {wanted} (-1: any), not {shown(shape)}")
    limits.check_clips(shape[0])
    limits.check_frames(shape[1])
    if spec.dtype == tf.uint8:
        limits.check_pixels(shape[2], shape[3])
        pixels = _numbers(data, shape, name)
        return list(np.frombuffer(pixels, np.uint8).reshape(shape))
    files = _files(data, shape, name, base64)
    return [encoded_frames(files[i:i + shape[1]], limits)
            for i in range(0, len(files), shape[1])]


def _numbers(data: Any, shape: list[int], name: str) -> bytes:
    """The bytes of a tensor of UINT8."""
    if isinstance(data, list):
        try:
            data = bytes(_flat(data, shape, name))
        except (TypeError, ValueError) as error:
            raise RequestError(f"the data of input {name} are not whole numbers from 0 to 255"
                               ) from error
    _check_count(len(data), shape, name)
    return data


def _files(data: Any, shape: list[int], name: str, base64: bool) -> list[bytes]:
    """The elements of a tensor of BYTES."""
    if not isinstance(data, list):
        data = _unpacked(data, name)
    elif all(isinstance(x, bytes) for x in data):  # of gRPC
        pass
    elif base64:
        data = [decode_base64(x) for x in _flat(data, shape, name)]
    else:
        raise RequestError(f"JSON cannot hold the bytes of input {name}: give base64 and say "
                           '"parameters": {"content_type": "base64"}, or use the binary form')
    _check_count(len(data), shape, name)
    return data


def _check_count(count: int, shape: list[int], name: str) -> None:
    if count != math.prod(shape):
        raise RequestError(f"input {name} of shape {shape} has {math.prod(shape)} elements, not "
                           f"{count}")


def _flat(data: list, shape: list[int], name: str) -> list:
    """The elements of lists that are flat, or nested as the shape is."""
    if not data or not isinstance(data[0], list):
        return data
    for size in shape[1:]:
        if not all(isinstance(x, list) and len(x) == size for x in data):
            raise RequestError(f"the data of input {name} are neither flat nor nested as {shape}")
        data = list(itertools.chain.from_iterable(data))
    return data


def _unpacked(data: bytes, name: str) -> list[bytes]:
    """The strings of the protocol's binary form: each after its length, uint32 little-endian."""
    strings, position = [], 0
    while position < len(data):
        try:
            length, = struct.unpack_from("<I", data, position)
        except struct.error as error:
            raise RequestError(f"the binary data of input {name} end within a length") from error
        position += 4
        if position + length > len(data):
            raise RequestError(f"the binary data of input {name} end within a string")
        strings.append(bytes(data[position:position + length]))
        position += length
    return strings


def clips_of(signature: Signature, inputs: Mapping[str, Sequence[np.ndarray]]) -> list[Clip]:
    """Clips for the batcher, whose key is the signature and the shapes.

    Args:
      signature: what is asked for.
      inputs: input's name -> an array for each clip.
    """
    if len({len(x) for x in inputs.values()}) > 1:
        raise RequestError("the inputs differ in their number of clips")
    clips = []
    for arrays in zip(*inputs.values(), strict=True):
        content = dict(zip(inputs, arrays, strict=True))
        shapes = tuple((name, x.shape) for name, x in content.items())
        size = sum(x.nbytes if x.dtype != object else sum(map(len, x)) for x in arrays)
        clips.append(Clip((signature.name, shapes), content, size))
    return clips
