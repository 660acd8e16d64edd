"""A trained RGB encoder as a SavedModel that needs none of this code.

Everything between decoded (or JPEG) frames of any number and size and the embedding is in the
graph: frame sampling, centre crop, resizing, normalisation, the encoder. The result loads with
`tf.saved_model.load`, `hub.KerasLayer`, `saved_model_cli` and TensorFlow Serving, for which it
also carries warm-up requests.
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
from elo_tf.data import decoding
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.errors import UserError
from elo_tf.training import encoder_files

WARMUP_FILE = "tf_serving_warmup_requests"


class EmbeddingModule(tf.Module):
    """Frames in, embedding out: the encoder with its preprocessing.

    Frames of a clip (our choice): of T > `frames` input frames the centres of `frames` equal parts
    of the clip are taken, index (2i + 1)T // (2 `frames`); T < `frames` input frames are looped,
    index i mod T. Cropping to a centred square and resizing are those of the evaluation, by the
    same code.
    """

    def __init__(self, encoder: tf.keras.Model, clip: ClipSpec, mean: float | list[float],
                 scale: float | list[float]):
        """Makes the module.

        Args:
          encoder: takes (pixels / 255 - mean) / scale, float32 [B, frames, size, size, 3].
          clip: the clip's size.
          mean: one number, or one for each colour.
          scale: one number, or one for each colour.
        """
        super().__init__(name="elo_encoder")
        self._clip, self._mean, self._scale = clip, tf.constant(mean), tf.constant(scale)
        # Only the variables are tracked: a tracked Keras model would add its own traces.
        self._variables = list(encoder.variables)
        self._encode = lambda clips: encoder(clips, training=False)["embedding"]

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, None, 3], tf.uint8, "frames")])
    def __call__(self, frames: tf.Tensor) -> tf.Tensor:
        """Embedding float32 [B, D] of frames uint8 [B, T, H, W, 3]."""
        frames = _checked(frames, tf.reduce_min(tf.shape(frames)[1:4]),
                          "a clip needs at least one frame of at least one pixel")
        frames = self._sampled(frames)
        shape = tf.shape(frames)
        images = self._squared(tf.reshape(frames, tf.concat([[-1], shape[2:]], axis=0)))
        return self._embedded(images, batch=shape[0], length=shape[1])

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.string, "frames")])
    def from_jpeg(self, frames: tf.Tensor) -> tf.Tensor:
        """Embedding float32 [B, D] of frames string [B, T], JPEG files of any sizes."""
        frames = _checked(frames, tf.shape(frames)[1], "a clip needs at least one frame")
        frames = self._sampled(frames)
        shape = tf.shape(frames)
        size = self._clip.size
        images = tf.map_fn(
            lambda x: self._squared(tf.io.decode_jpeg(
                x, channels=3, dct_method="INTEGER_ACCURATE")[tf.newaxis])[0],
            tf.reshape(frames, [-1]),
            fn_output_signature=tf.TensorSpec([size, size, 3], tf.uint8))
        return self._embedded(images, batch=shape[0], length=shape[1])

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, None, 3], tf.uint8, "frames")])
    def embed(self, frames: tf.Tensor) -> dict[str, tf.Tensor]:
        """The signature `embed`: frames uint8 [B, T, H, W, 3]."""
        return {"embedding": self(frames)}

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.string, "frames")])
    def embed_jpeg(self, frames: tf.Tensor) -> dict[str, tf.Tensor]:
        """The signature `embed_jpeg`: frames string [B, T]."""
        return {"embedding": self.from_jpeg(frames)}

    def _sampled(self, frames: tf.Tensor) -> tf.Tensor:
        """At most `frames` frames of [B, T, ...]; looping comes later, when they are small."""
        total = tf.shape(frames)[1]
        kept = tf.minimum(total, self._clip.frames)
        return tf.gather(frames, (2 * tf.range(kept) + 1) * total // (2 * kept), axis=1)

    def _squared(self, images: tf.Tensor) -> tf.Tensor:
        """Centre square of images uint8 [N, H, W, 3], as uint8 [N, size, size, 3]."""
        shape = tf.shape(images)
        box = decoding.spread_box(shape[1], shape[2], self._clip)
        images = tf.image.crop_to_bounding_box(images, box[0], box[1], box[2], box[3])
        size = self._clip.size
        return tf.ensure_shape(decoding.resize(images, size), [None, size, size, 3])

    def _embedded(self, images: tf.Tensor, *, batch: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Embedding of images uint8 [B * t, size, size, 3], t <= `frames`."""
        clip = self._clip
        clips = tf.reshape(images, [batch, length, clip.size, clip.size, 3])
        clips = tf.gather(clips, tf.range(clip.frames) % length, axis=1)
        clips = (tf.cast(clips, tf.float32) / 255.0 - self._mean) / self._scale
        return tf.cast(self._encode(clips), tf.float32)


@gin.configurable
def export_encoder(encoder_dir: str | os.PathLike, export_dir: str | os.PathLike, *,
                   version: int | None = None, warmup: bool = True) -> str:
    """Writes `<export_dir>/<version>/`, a SavedModel as TensorFlow Serving wants it.

    Signatures: `serving_default` and `embed` take frames uint8 [B, T, H, W, 3], any T >= 1 and any
    H and W; `embed_jpeg` takes frames string [B, T]. Each returns embedding float32 [B, D].
    Must be called outside a distribution strategy's scope. The folder appears when it is whole.

    Args:
      encoder_dir: folder with `rgb.keras` and `clip.json`, as the pre-training writes it.
      export_dir: the served model's folder, whose name is the model's name.
      version: the version's number; the next free one if None. An existing one is refused.
      warmup: whether to write warm-up requests, so that the first real one is not slow.

    Returns:
      The path of the version's folder.

    Raises:
      UserError: a file is missing or damaged, or the version exists.
    """
    if tf.distribute.has_strategy():
        raise ValueError("export_encoder must be called outside a distribution strategy's scope")
    encoder, clip, origin = _load(pathlib.Path(encoder_dir))
    export_dir = pathlib.Path(export_dir)
    export_dir.mkdir(parents=True, exist_ok=True)
    target = export_dir / str(_version(export_dir, version))
    module = EmbeddingModule(encoder, clip, origin["mean"], origin["scale"])
    # A name that starts with a dot is no version for a server that watches the folder.
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=export_dir) as temporary:
        model_dir = pathlib.Path(temporary) / "model"
        tf.saved_model.save(
            module, str(model_dir),
            signatures={"serving_default": module.embed, "embed": module.embed,
                        "embed_jpeg": module.embed_jpeg})
        extra = model_dir / "assets.extra"
        files.write_atomic(extra / "provenance.json", json.dumps({
            "trained_by_commit": origin.get("commit", "unknown"),
            "config": origin.get("config", "unknown"),
            "exported_by_commit": provenance.commit(),
            "tensorflow": tf.__version__,
            "embedding_size": int(encoder.output["embedding"].shape[-1]),
            "clip": {key: x for key, x in origin.items() if key not in ("commit", "config")},
        }, indent=2) + "\n")
        if warmup:
            _write_warmup(extra / WARMUP_FILE, export_dir.resolve().name, clip)
        try:
            os.rename(model_dir, target)
        except OSError as error:
            raise _exists(target) from error
    logging.info("SavedModel: %s", target)
    return str(target)


def _checked(frames: tf.Tensor, least: tf.Tensor, message: str) -> tf.Tensor:
    """`frames`, once `least` >= 1 is known: later ops would fail first, and less clearly."""
    check = tf.debugging.assert_greater_equal(
        least, 1, message=f"frames: {message}", summarize=8)
    with tf.control_dependencies([check]):
        return tf.identity(frames)


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


def _write_warmup(path: pathlib.Path, model_name: str, clip: ClipSpec) -> None:
    """One request for `embed` and one for `embed_jpeg`, of one grey clip each."""
    # Imported here: it brings gRPC, which nothing else of the export needs.
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    frames = np.full([1, clip.frames, clip.size, clip.size, 3], 128, np.uint8)
    jpeg = tf.io.encode_jpeg(frames[0, 0]).numpy()
    inputs = {"embed": frames, "embed_jpeg": np.full([1, clip.frames], jpeg, dtype=object)}
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, value in inputs.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model_name
            request.model_spec.signature_name = signature
            request.inputs["frames"].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
