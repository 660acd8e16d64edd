"""A trained RGB encoder -> the features of a record set, for fitness and evaluation alike."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from elo_tf import cli
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.views.clip_views import ClipViews


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of N videos, in the order of the records.

    Attributes:
      embedding: float32 [N, D].
      ids: of the videos.
      labels: int64 [N], -1 where there is none.
    """

    embedding: np.ndarray
    ids: list[str]
    labels: np.ndarray


class FeatureExtractor:
    """Runs an encoder over clips, with the moving averages of its batch norms; compiled once."""

    def __init__(self, encoder: tf.keras.Model, clip: ClipSpec, *, static: bool = False):
        """Wraps an encoder.

        Args:
          encoder: of RGB.
          clip: the clip's size.
          static: show the middle frame of each clip all the time, so that nothing moves.
        """
        shape = [None, clip.frames, clip.size, clip.size, 3]

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8)])
        def embed(rgb: tf.Tensor) -> tf.Tensor:
            if static:
                rgb = tf.repeat(rgb[:, clip.frames // 2, tf.newaxis], clip.frames, axis=1)
            views = ClipViews({"rgb": rgb}, clip)
            return encoder(views.view("rgb", "intact"), training=False)["embedding"]

        self._embed = embed
        self._width = encoder.output["embedding"].shape[-1]

    def __call__(self, batches: Iterable[Mapping[str, tf.Tensor]], *, views: int = 1,
                 desc: str | None = None) -> Features:
        """Extracts features.

        Args:
          batches: of `data.pipeline.testing_clips`.
          views: of each video, one after the other; their features are averaged.
          desc: title of a progress bar; none is shown without it.

        Returns:
          The features of all videos.
        """
        embeddings, ids, labels = [np.zeros((0, self._width), np.float32)], [], []
        for batch in cli.progress(batches, desc=desc, unit="batch") if desc else batches:
            embeddings.append(self._embed(batch["rgb"]).numpy())
            ids.extend(batch["id"].numpy())
            labels.extend(batch["label"].numpy())
        clips = np.concatenate(embeddings)
        videos = clips.reshape(-1, views, clips.shape[-1]).mean(axis=1)
        return Features(embedding=videos, ids=[x.decode(errors="replace") for x in ids[::views]],
                        labels=np.array(labels[::views], np.int64))
