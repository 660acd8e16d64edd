"""TensorFlow Serving's REST protocol: the subset that docs/serving.md lists.

    {"signature_name": "embed_jpeg", "instances": [{"frames": [{"b64": "..."}, ...]}, ...]}
    {"predictions": [[0.1, ...], ...]}

Instances may differ in their numbers and sizes of frames, which is more than TensorFlow Serving
allows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import tensorflow as tf

from elo_tf.serving import tensors
from elo_tf.serving.limits import Limits, RequestError
from elo_tf.serving.served_model import ServedModel, Signature

KEYS = ("signature_name", "instances")


def parse(body: bytes, signatures: Mapping[str, Signature], limits: Limits) -> tensors.Query:
    """A body of `:predict`.

    Raises:
      RequestError: anything of it is wrong.
    """
    document = tensors.json_object(body)
    if "inputs" in document:
        raise RequestError("the columnar form (inputs) is not supported: give instances")
    for key in document:
        if key not in KEYS:
            raise RequestError(f"unknown key {tensors.shown(key)}; a request has "
                               f"{' and '.join(KEYS)}")
    signature = tensors.find_signature(signatures, document.get("signature_name"))
    instances = document.get("instances")
    if not isinstance(instances, list):
        raise RequestError("instances, a list of clips, is missing")
    limits.check_clips(len(instances))
    inputs: dict[str, list[np.ndarray]] = {name: [] for name in signature.inputs}
    for number, instance in enumerate(instances):
        try:
            for name, value in _named(instance, signature).items():
                inputs[name].append(_array(value, signature.inputs[name], limits))
        except RequestError as error:
            raise RequestError(f"instance {number}: {error.message}") from error
    return tensors.Query(signature, tensors.clips_of(signature, inputs))


def answer(query: tensors.Query, results: Sequence[Mapping[str, np.ndarray]]) -> bytes:
    """The body of the answer: a list of values, or of objects where there are several outputs."""
    if len(query.signature.outputs) == 1:
        name, = query.signature.outputs
        predictions: list = [_json(x[name]) for x in results]
    else:
        predictions = [{name: _json(value) for name, value in x.items()} for x in results]
    return orjson.dumps({"predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY)


def status(model: ServedModel, ready: bool) -> dict:
    """What `GET /v1/models/<name>` answers; `name` and `ready` are kserve's."""
    state = {"version": model.version, "state": "AVAILABLE" if ready else "LOADING",
             "status": {"error_code": "OK", "error_message": ""}}
    return {"model_version_status": [state], "name": model.name, "ready": ready}


def metadata(model: ServedModel) -> dict:
    """What `GET /v1/models/<name>/metadata` answers."""
    return {"model_spec": {"name": model.name, "signature_name": "", "version": model.version},
            "metadata": {"signature_def": {"signature_def": model.signature_def}}}


def _named(instance: Any, signature: Signature) -> dict[str, Any]:
    """Input's name -> value; an instance may be the value itself where there is one input."""
    if isinstance(instance, dict):
        tensors.check_names(list(instance), signature.inputs)
        return instance
    if len(signature.inputs) > 1:
        raise RequestError(f"an instance is an object with {', '.join(signature.inputs)}")
    name, = signature.inputs
    return {name: instance}


def _array(value: Any, spec: tf.TensorSpec, limits: Limits) -> np.ndarray:
    """A clip of JSON."""
    if spec.dtype != tf.string:
        return tensors.raw_frames(value, spec, limits)
    if not isinstance(value, list):
        raise RequestError('frames are a list [T] of {"b64": "..."}, not '
                           f"{tensors.shown(value)}")
    limits.check_frames(len(value))
    files = []
    for frame in value:
        if not isinstance(frame, dict) or list(frame) != ["b64"]:
            raise RequestError('a JPEG file is given as {"b64": "..."}, not '
                               f"{tensors.shown(frame)}")
        files.append(tensors.decode_base64(frame["b64"]))
    return tensors.encoded_frames(files, limits)


def _json(value: Any) -> Any:
    """An array of one clip as orjson takes it; strings are text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [_json(x) for x in value]
    return np.ascontiguousarray(value)
