"""The Open Inference protocol, version 2, over REST (JSON and the binary extension) and gRPC.

    {"parameters": {"signature_name": "embed_jpeg"},
     "inputs": [{"name": "frames", "datatype": "BYTES", "shape": [1, 16],
                 "parameters": {"content_type": "base64"}, "data": ["...", ...]}]}

In the binary form the header `Inference-Header-Content-Length` says how long the JSON is; the
tensors follow it, as long as their `binary_data_size` says.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import tensorflow as tf
from kserve.protocol import infer_type
from kserve.utils.numpy_codec import from_np_dtype

from elo_tf.serving import tensors
from elo_tf.serving.limits import Limits, RequestError
from elo_tf.serving.served_model import DEFAULT_SIGNATURE, ServedModel, Signature

HEADER = "inference-header-content-length"
EXTENSIONS = ["binary_tensor_data"]


def parse(body: bytes, header_length: str | None, signatures: Mapping[str, Signature],
          limits: Limits) -> tensors.Query:
    """A body of `/infer`.

    Args:
      body: of the request.
      header_length: the header of the binary form, or None.
      signatures: of the model.
      limits: what may be asked for.

    Raises:
      RequestError: anything of it is wrong.
    """
    binary = memoryview(b"")
    if header_length is not None:
        if not header_length.isdecimal() or int(header_length) > len(body):
            raise RequestError(f"the header {HEADER} says {tensors.shown(header_length)}, of a "
                               f"body of {len(body)} bytes")
        binary, body = memoryview(body)[int(header_length):], body[:int(header_length)]
    document = tensors.json_object(body)
    identity = document.get("id")
    if not isinstance(identity, str | None):
        raise RequestError(f"id is a string, not {tensors.shown(identity)}")
    parameters = _parameters(document)
    signature = tensors.find_signature(signatures, parameters.get("signature_name"))
    given = _objects(document, "inputs")
    tensors.check_names([x["name"] for x in given], signature.inputs)
    inputs = {}
    for x in given:
        own = _parameters(x)
        data = x.get("data")
        if "binary_data_size" in own:
            data, binary = _cut(binary, own["binary_data_size"], x["name"])
        elif not isinstance(data, list):
            raise RequestError(f"input {x['name']} has no list data, and no parameter "
                               "binary_data_size")
        inputs[x["name"]] = tensors.tensor(
            signature.inputs[x["name"]], x["name"], x.get("datatype"), x.get("shape"), data,
            base64=own.get("content_type") == "base64", limits=limits)
    if len(binary):
        raise RequestError(f"{len(binary)} bytes follow the last input")
    as_binary = parameters.get("binary_data_output", False) is True
    outputs = None
    if document.get("outputs"):
        wanted = _objects(document, "outputs")
        outputs = {x["name"]: _parameters(x).get("binary_data", as_binary) is True for x in wanted}
        _check_outputs(list(outputs), signature)
    return tensors.Query(signature, tensors.clips_of(signature, inputs), identity, outputs,
                         as_binary)


def parse_grpc(request: infer_type.InferRequest, signatures: Mapping[str, Signature],
               limits: Limits) -> tensors.Query:
    """A request of gRPC, as kserve gives it."""
    parameters = infer_type.to_http_parameters(request.parameters) if request.parameters else {}
    signature = tensors.find_signature(signatures, parameters.get("signature_name"))
    tensors.check_names([x.name for x in request.inputs], signature.inputs)
    inputs = {
        x.name: tensors.tensor(
            signature.inputs[x.name], x.name, x.datatype, [int(y) for y in x.shape],
            x.data if x._raw_data is None else x._raw_data, limits=limits)
        for x in request.inputs}
    outputs = None
    if request.request_outputs:
        outputs = {x.name: False for x in request.request_outputs}
        _check_outputs(list(outputs), signature)
    # Arrays are sent raw in any case, and kserve fails where it is told so.
    return tensors.Query(signature, tensors.clips_of(signature, inputs), request.id or None,
                         outputs)


def answer(query: tensors.Query, results: Sequence[Mapping[str, np.ndarray]],
           model: ServedModel) -> infer_type.InferResponse:
    """The answer, for REST and gRPC alike."""
    names = query.outputs or dict.fromkeys(query.signature.outputs, query.binary)
    outputs = []
    for name in names:
        value = np.stack([x[name] for x in results])
        outputs.append(infer_type.InferOutput(
            name, list(value.shape), from_np_dtype(value.dtype), value))
    wanted = [infer_type.RequestedOutput(name, {"binary_data": binary})
              for name, binary in names.items()]
    return infer_type.InferResponse(
        query.identity or "", model.name, outputs, model_version=model.version,
        use_binary_outputs=query.binary, requested_outputs=wanted)


def rest_answer(query: tensors.Query, results: Sequence[Mapping[str, np.ndarray]],
                model: ServedModel) -> tuple[bytes, int | None]:
    """The body of the answer, and in the binary form how long its JSON is."""
    content, size = answer(query, results, model).to_rest()
    return (orjson.dumps(content), None) if size is None else (content, size)


def metadata(model: ServedModel) -> dict:
    """What `GET /v2/models/<name>` answers: of the default signature, and `signatures` of all."""
    signatures = {name: {"inputs": _described(x.inputs), "outputs": _described(x.outputs)}
                  for name, x in model.signatures.items()}
    first = signatures.get(DEFAULT_SIGNATURE) or next(iter(signatures.values()))
    return {"name": model.name, "versions": [model.version], "platform": "tensorflow_savedmodel",
            **first, "signatures": signatures}


def _described(specs: Mapping[str, tf.TensorSpec]) -> list[dict]:
    return [{"name": name, "datatype": from_np_dtype(np.dtype(x.dtype.as_numpy_dtype)),
             "shape": [-1 if size is None else size for size in x.shape]}
            for name, x in specs.items()]


def _parameters(document: Mapping[str, Any]) -> dict:
    parameters = document.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise RequestError(f"parameters is an object, not {tensors.shown(parameters)}")
    return parameters


def _objects(document: Mapping[str, Any], key: str) -> list[dict]:
    """A list of objects that have names."""
    values = document.get(key)
    if not isinstance(values, list):
        raise RequestError(f"{key}, a list of objects, is missing")
    for x in values:
        if not isinstance(x, dict) or not isinstance(x.get("name"), str):
            raise RequestError(f"each of {key} is an object with a name, not {tensors.shown(x)}")
    return values


def _check_outputs(names: Sequence[str], signature: Signature) -> None:
    for name in names:
        if name not in signature.outputs:
            raise RequestError(f"there is no output {tensors.shown(name)}; the signature has "
                               f"{', '.join(signature.outputs)}")


def _cut(binary: memoryview, size: Any, name: str) -> tuple[bytes, memoryview]:
    """The first `size` bytes, and the rest."""
    if type(size) is not int or not 0 <= size <= len(binary):
        raise RequestError(f"binary_data_size of input {name} is {tensors.shown(size)}, of "
                           f"{len(binary)} bytes")
    return bytes(binary[:size]), binary[size:]
