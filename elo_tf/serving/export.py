"""A trained RGB encoder as a SavedModel that needs none of this code.

It loads with `tf.saved_model.load`, `hub.KerasLayer`, `saved_model_cli` and TensorFlow Serving:

    saved_model.pb, variables/                   what `module` computes
    assets/labels.txt                            of `classify`: the names of its classes, one a line
    assets.extra/tf_serving_warmup_requests      a request for each signature
    assets.extra/provenance.json                 where it comes from, for programs
    model_card.md                                the same for people
"""

import json
import os
import pathlib
import tempfile

import gin
import numpy as np
import tensorflow as tf
from absl import logging

from elo_tf import files, provenance
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.errors import UserError
from elo_tf.evaluation.heads import Head, digest, load_head
from elo_tf.serving import model_card
from elo_tf.serving.module import ClassifyingModule, EmbeddingModule
from elo_tf.training import encoder_files

WARMUP_FILE = "tf_serving_warmup_requests"
LABELS_FILE = "labels.txt"


@gin.configurable
def export_encoder(encoder_dir: str | os.PathLike, export_dir: str | os.PathLike, *,
                   head_dir: str | os.PathLike | None = None,
                   evaluation: str | os.PathLike | None = None,
                   version: int | None = None, warmup: bool = True) -> str:
    """Writes `<export_dir>/<version>/`, a SavedModel as TensorFlow Serving wants it.

    Signatures: `serving_default` and `embed` take frames uint8 [B, T, H, W, 3], any T >= 1 and any
    H and W; `embed_jpeg` takes frames string [B, T]. Each returns embedding float32 [B, D]. With a
    head, `classify` and `classify_jpeg` take the same and return probabilities float32 [B, C] and
    labels string [B, C], the names of the classes in the order of the label map, in each row.
    With a fine-tuned head the embedding too is that of the fine-tuned network.
    Must be called outside a distribution strategy's scope. The folder appears when it is whole.

    Args:
      encoder_dir: folder with `rgb.keras` and `clip.json`, as the pre-training writes it.
      export_dir: the served model's folder, whose name is the model's name.
      head_dir: folder of a classifier of this encoder that an evaluation kept.
      evaluation: evaluation.json of this encoder, or its folder, for the model card.
      version: the version's number; the next free one if None. An existing one is refused.
      warmup: whether to write warm-up requests, so that the first real one is not slow.

    Returns:
      The path of the version's folder.

    Raises:
      UserError: a file is missing or damaged or of another encoder, or the version exists.
    """
    if tf.distribute.has_strategy():
        raise ValueError("export_encoder must be called outside a distribution strategy's scope")
    encoder_dir = pathlib.Path(encoder_dir)
    encoder, clip, origin = _load(encoder_dir)
    head = None if head_dir is None else load_head(head_dir, encoder_dir)
    if head is not None:
        encoder = _classified(encoder, head)
    scores = None if evaluation is None else model_card.read_evaluation(evaluation, encoder_dir)
    export_dir = pathlib.Path(export_dir)
    export_dir.mkdir(parents=True, exist_ok=True)
    target = export_dir / str(_version(export_dir, version))
    # A name that starts with a dot is no version for a server that watches the folder.
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=export_dir) as temporary:
        model_dir = pathlib.Path(temporary) / "model"
        if head is None:
            module = EmbeddingModule(encoder, clip, origin["mean"], origin["scale"])
        else:
            labels = pathlib.Path(temporary) / LABELS_FILE
            labels.write_text("".join(f"{x}\n" for x in head.facts.classes), encoding="utf-8")
            module = ClassifyingModule(encoder, clip, origin["mean"], origin["scale"], head, labels)
        tf.saved_model.save(module, str(model_dir), signatures=module.signatures())
        size = int(encoder.output["embedding"].shape[-1])
        extra = model_dir / "assets.extra"
        files.write_atomic(extra / "provenance.json", json.dumps({
            "trained_by_commit": origin.get("commit", "unknown"),
            "config": origin.get("config", "unknown"),
            "encoder": digest(encoder_dir / encoder_files.TRAINED),
            "exported_by_commit": provenance.commit(),
            "tensorflow": tf.__version__,
            "embedding_size": size,
            "clip": {key: x for key, x in origin.items() if key not in ("commit", "config")},
            "signatures": sorted(module.signatures()),
            "head": None if head is None else {
                "kind": head.facts.kind, "classes": len(head.facts.classes),
                "test_accuracy": head.facts.test_accuracy, "commit": head.commit},
        }, indent=2) + "\n")
        name = export_dir.resolve().name
        if warmup:
            _write_warmup(extra / WARMUP_FILE, name, clip, list(module.signatures()))
        files.write_atomic(model_dir / model_card.FILE, model_card.model_card(
            f"{name}, version {target.name}", encoder_dir, clip=clip, embedding=size,
            parameters=encoder.count_params(), head=head, evaluation=scores))
        try:
            os.rename(model_dir, target)
        except OSError as error:
            raise _exists(target) from error
    logging.info("SavedModel: %s", target)
    return str(target)


def _load(encoder_dir: pathlib.Path) -> tuple[tf.keras.Model, ClipSpec, dict]:
    """The encoder, its clip, and all that clip.json says."""
    clip = encoder_files.load_clip(encoder_dir)
    clip_path = encoder_dir / encoder_files.CLIP
    encoder_path = encoder_dir / encoder_files.TRAINED
    origin = json.loads(clip_path.read_text(encoding="utf-8"))
    for key in ("mean", "scale"):
        if key not in origin:
            raise UserError(f"{clip_path} has no {key!r}: run the pre-training again")
    encoder = encoder_files.load_encoder(encoder_dir)
    if not isinstance(encoder.output, dict) or "embedding" not in encoder.output:
        raise UserError(f"{encoder_path} has no output named 'embedding': give the encoder that "
                        "the pre-training wrote")
    return encoder, clip, origin


def _classified(encoder: tf.keras.Model, head: Head) -> tf.keras.Model:
    """The network whose embedding a head takes: its own one, or the encoder."""
    if head.network is not None:
        encoder = encoder_files.load_encoder(head.network)
    size = encoder.output["embedding"].shape[-1]
    if len(head.kernel) != size:
        raise UserError(f"the classifier is for an embedding of {len(head.kernel)} numbers, and "
                        f"the network gives {size}: evaluate this encoder, and export its own one")
    return encoder


def _version(export_dir: pathlib.Path, version: int | None) -> int:
    """The version asked for, if it is free, or the next free one."""
    if version is None:
        return 1 + max((int(x.name) for x in export_dir.iterdir() if x.name.isdigit()), default=0)
    if version < 0:
        raise UserError(f"version {version} cannot be served: give a whole number from 0 on")
    if (export_dir / str(version)).exists():
        raise _exists(export_dir / str(version))
    return version


def _exists(target: pathlib.Path) -> UserError:
    return UserError(f"{target} exists: leave the version out for the next free one, or remove it")


def _write_warmup(path: pathlib.Path, model_name: str, clip: ClipSpec,
                  signatures: list[str]) -> None:
    """A request of one grey clip for each signature."""
    # Imported here: it brings gRPC, which nothing else of the export needs.
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    frames = np.full([1, clip.frames, clip.size, clip.size, 3], 128, np.uint8)
    jpeg = tf.io.encode_jpeg(frames[0, 0]).numpy()
    jpegs = np.full([1, clip.frames], jpeg, dtype=object)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature in signatures:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model_name
            request.model_spec.signature_name = signature
            request.inputs["frames"].CopyFrom(tf.make_tensor_proto(
                jpegs if signature.endswith("_jpeg") else frames))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
