"""The SavedModel that is served: its newest version, its signatures, and calls of it."""

import dataclasses
import os
import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2

from elo_tf.errors import UserError
from elo_tf.serving import metrics, saved_model
from elo_tf.serving.limits import RequestError

DEFAULT_SIGNATURE = "serving_default"
WARMUP_FILE = pathlib.PurePath("assets.extra", "tf_serving_warmup_requests")
# (frames of any number, height and width, in the type that says how they are given)
RAW, ENCODED = (tf.uint8, 5), (tf.string, 2)
_NO_REASON = ("Graph execution error", "Detected at node", "File ", "(0)")


@dataclasses.dataclass(frozen=True)
class Signature:
    """A function of the model.

    Attributes:
      name: of the signature.
      inputs: name -> type and shape, each uint8 [B, T, H, W, C] or string [B, T].
      outputs: name -> type and shape, [B, ...].
    """

    name: str
    inputs: Mapping[str, tf.TensorSpec]
    outputs: Mapping[str, tf.TensorSpec]


class ServedModel:
    """One version of a SavedModel, called by the names of its signatures.

    Calls go to the functions that were exported, whose shapes are open: nothing is traced here.
    """

    def __init__(self, model_dir: str | os.PathLike, name: str | None = None):
        """Finds the newest version; `load` loads it.

        Args:
          model_dir: with a folder for each version, or one of these.
          name: of the model in requests; that of the folder of all versions if None.

        Raises:
          UserError: there is no version.
        """
        self.path = saved_model.open_model(model_dir).folder
        self.name = name or self.path.parent.name
        self.version = self.path.name
        self.signatures: dict[str, Signature] = {}
        self.signature_def: dict = {}
        self._model: Any = None

    def load(self) -> None:
        """Loads the model.

        Raises:
          UserError: it is damaged, or has no signature that can be served.
        """
        try:
            proto = saved_model_pb2.SavedModel.FromString(
                (self.path / "saved_model.pb").read_bytes())
            self._model = tf.saved_model.load(str(self.path))
        except Exception as error:
            raise UserError(f"{self.path} cannot be loaded: export it again ({error})") from error
        described = proto.meta_graphs[0].signature_def
        for name, function in self._model.signatures.items():
            inputs = dict(function.structured_input_signature[1])
            kinds = {(x.dtype, x.shape.rank) for x in inputs.values()}
            if not inputs or not kinds <= {RAW, ENCODED}:
                logging.warning("signature %s takes something else than frames and is not served",
                                name)
                continue
            outputs = {key: tf.TensorSpec(x.shape, x.dtype, key)
                       for key, x in function.structured_outputs.items()}
            self.signatures[name] = Signature(name, inputs, outputs)
            self.signature_def[name] = json_format.MessageToDict(
                described[name], preserving_proto_field_name=True)
        if not self.signatures:
            raise UserError(f"{self.path} has no signature that takes frames: export it again")

    def warm_up(self) -> int:
        """Runs the requests that were exported with the model, so that no user's is the first.

        Returns:
          How many there were.

        Raises:
          UserError: the file is damaged, or asks for what the model does not have.
        """
        path = self.path / WARMUP_FILE
        if not path.is_file():
            logging.warning("%s is not there: the first requests will be slow", path)
            return 0
        # Imported here: it takes a while, and nothing else needs it.
        from tensorflow_serving.apis import prediction_log_pb2

        count = 0
        try:
            for record in tf.data.TFRecordDataset(str(path)):
                request = prediction_log_pb2.PredictionLog.FromString(
                    record.numpy()).predict_log.request
                inputs = {key: tf.make_ndarray(x) for key, x in request.inputs.items()}
                self._called(request.model_spec.signature_name or DEFAULT_SIGNATURE, inputs)
                count += 1
        except Exception as error:
            raise UserError(f"{path} cannot be run, request {count + 1}: export the model again "
                            f"({error})") from error
        return count

    def call(self, signature: str, clips: Sequence[Mapping[str, np.ndarray]]
             ) -> list[dict[str, np.ndarray]]:
        """Outputs of clips whose shapes are equal, for each.

        Args:
          signature: its name.
          clips: of each, input's name -> uint8 [T, H, W, C], or bytes objects [T].

        Returns:
          Of each clip, output's name -> an array.

        Raises:
          RequestError: the model refuses it, as it does a JPEG that cannot be decoded.
        """
        stacked = {name: np.stack([clip[name] for clip in clips])
                   for name in self.signatures[signature].inputs}
        started = time.perf_counter()
        try:
            outputs = self._called(signature, stacked)
        except tf.errors.InvalidArgumentError as error:
            raise RequestError(f"the model refuses this clip: {_plain(error)}") from error
        metrics.BATCH_SECONDS.labels(signature).observe(time.perf_counter() - started)
        metrics.BATCH_CLIPS.labels(signature).observe(len(clips))
        return [{name: x[i] for name, x in outputs.items()} for i in range(len(clips))]

    def _called(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = self._model.signatures[signature](
            **{name: tf.constant(x) for name, x in inputs.items()})
        return {name: x.numpy() for name, x in outputs.items()}


def _plain(error: tf.errors.OpError) -> str:
    """The sentence in TensorFlow's message, without the names of nodes."""
    text = re.sub(r"\{\{.*?\}\}\s*|\[\[.*?\]\]|\[Op:.*?\]|<stack traces unavailable>", "",
                  error.message or "")
    lines = [x.strip() for x in text.splitlines()]
    lines = [x for x in lines if x and not x.startswith(_NO_REASON) and "root error" not in x]
    return (lines[0] if lines else "no reason given")[:300]
