"""What a served model computes: frames of any number and size in, embedding or classes out.

Everything between decoded (or JPEG) frames and the embedding is in the graph: frame sampling,
centre crop, resizing, normalisation, the encoder.
"""

import os
from collections.abc import Mapping

import tensorflow as tf

from elo_tf.data import decoding
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.evaluation.heads import Head

_JPEG = b"\xff\xd8\xff"  # how each such file begins
_RAW = tf.TensorSpec([None, None, None, None, 3], tf.uint8, "frames")
_ENCODED = tf.TensorSpec([None, None], tf.string, "frames")


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

    @tf.function(input_signature=[_RAW])
    def __call__(self, frames: tf.Tensor) -> tf.Tensor:
        """Embedding float32 [B, D] of frames uint8 [B, T, H, W, 3]."""
        frames = _checked(frames, tf.reduce_min(tf.shape(frames)[1:4]) >= 1,
                          "a clip needs at least one frame of at least one pixel; the shape is",
                          tf.shape(frames))
        frames = self._sampled(frames)
        shape = tf.shape(frames)
        images = self._squared(tf.reshape(frames, tf.concat([[-1], shape[2:]], axis=0)))
        return self._embedded(images, batch=shape[0], length=shape[1])

    @tf.function(input_signature=[_ENCODED])
    def from_jpeg(self, frames: tf.Tensor) -> tf.Tensor:
        """Embedding float32 [B, D] of frames string [B, T], JPEG files of any sizes."""
        frames = _checked(frames, tf.shape(frames)[1] >= 1,
                          "a clip needs at least one frame; the shape is", tf.shape(frames))
        others = tf.where(tf.strings.substr(frames, 0, len(_JPEG)) != _JPEG)
        frames = _checked(frames, tf.shape(others)[0] == 0,
                          "every string must be a JPEG file; the first that is not, at [clip, "
                          "frame], is", others[:1])
        frames = self._sampled(frames)
        shape = tf.shape(frames)
        size = self._clip.size
        images = tf.map_fn(
            lambda x: self._squared(tf.io.decode_jpeg(
                x, channels=3, dct_method="INTEGER_ACCURATE")[tf.newaxis])[0],
            tf.reshape(frames, [-1]),
            fn_output_signature=tf.TensorSpec([size, size, 3], tf.uint8))
        return self._embedded(images, batch=shape[0], length=shape[1])

    @tf.function(input_signature=[_RAW])
    def embed(self, frames: tf.Tensor) -> dict[str, tf.Tensor]:
        """The signature `embed`: frames uint8 [B, T, H, W, 3]."""
        return {"embedding": self(frames)}

    @tf.function(input_signature=[_ENCODED])
    def embed_jpeg(self, frames: tf.Tensor) -> dict[str, tf.Tensor]:
        """The signature `embed_jpeg`: frames string [B, T]."""
        return {"embedding": self.from_jpeg(frames)}

    def signatures(self) -> Mapping[str, tf.types.experimental.GenericFunction]:
        """All signatures by name."""
        return {"serving_default": self.embed, "embed": self.embed, "embed_jpeg": self.embed_jpeg}

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


class ClassifyingModule(EmbeddingModule):
    """Frames in, embedding or class probabilities out."""

    def __init__(self, encoder: tf.keras.Model, clip: ClipSpec, mean: float | list[float],
                 scale: float | list[float], head: Head, labels_file: str | os.PathLike):
        """Makes the module.

        Args:
          encoder: as for `EmbeddingModule`; of a fine-tuned head, its own.
          clip: the clip's size.
          mean: one number, or one for each colour.
          scale: one number, or one for each colour.
          head: on the encoder's embedding.
          labels_file: names of its classes, one a line; it becomes an asset of the SavedModel.
        """
        super().__init__(encoder, clip, mean, scale)
        self._kernel = tf.Variable(head.kernel, trainable=False, name="kernel")
        self._bias = tf.Variable(head.bias, trainable=False, name="bias")
        self._names = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(labels_file), tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER,
                tf.string, tf.lookup.TextFileIndex.WHOLE_LINE), default_value="")

    @tf.function(input_signature=[_RAW])
    def classify(self, frames: tf.Tensor) -> dict[str, tf.Tensor]:
        """The signature `classify`: frames uint8 [B, T, H, W, 3]."""
        return self._classes(self(frames))

    @tf.function(input_signature=[_ENCODED])
    def classify_jpeg(self, frames: tf.Tensor) -> dict[str, tf.Tensor]:
        """The signature `classify_jpeg`: frames string [B, T]."""
        return self._classes(self.from_jpeg(frames))

    def signatures(self) -> Mapping[str, tf.types.experimental.GenericFunction]:
        """All signatures by name."""
        return {**super().signatures(), "classify": self.classify,
                "classify_jpeg": self.classify_jpeg}

    def _classes(self, embedding: tf.Tensor) -> dict[str, tf.Tensor]:
        """probabilities float32 [B, C] and labels string [B, C], the same in each row."""
        probabilities = tf.nn.softmax(embedding @ self._kernel + self._bias)
        names = self._names.lookup(tf.range(self._bias.shape[0], dtype=tf.int64))
        labels = tf.repeat(names[tf.newaxis], tf.shape(embedding)[0], axis=0)
        return {"probabilities": probabilities, "labels": tf.ensure_shape(
            labels, [None, self._bias.shape[0]])}


def _checked(frames: tf.Tensor, good: tf.Tensor, message: str, shown: tf.Tensor) -> tf.Tensor:
    """`frames`, if they are `good`: later ops would fail too, but less clearly."""
    with tf.control_dependencies([tf.debugging.Assert(good, [f"frames: {message}", shown])]):
        return tf.identity(frames)
