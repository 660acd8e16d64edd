"""Views -> activations: every view that a task asks for goes through its encoder once.

All views of a modality go through its encoder in one call. Clips that lack a view are gathered out
before the encoder, since they would enter its batch statistics.
"""

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from elo_tf.models.normalization import counted_examples
from elo_tf.models.recompute import recomputing
from elo_tf.tasks.task import ViewKey, sum_over_replicas
from elo_tf.views.clip_views import ClipViews

SITES = ("block1", "block2", "block3", "block4", "embedding")

# An encoder as it is called: inputs [B, ...] and `training` -> activations by site.
Encode = Callable[..., Mapping[str, tf.Tensor]]


class EncodedViews:
    """The activations of a batch's views: what tasks see (`tasks.task.Encoded`)."""

    def __init__(self, views: ClipViews, activations: Mapping[str, Mapping[ViewKey, tf.Tensor]]):
        """Pairs views with activations, `{modality: {(view, site): [B, C]}}`."""
        self._views = views
        self._activations = activations
        self.view = views.view
        self.present = views.present

    def activation(self, modality: str, view: str, site: str = "embedding") -> tf.Tensor:
        """Activation averaged over time and space, float32 [B, C]; zeros where absent."""
        return self._activations[modality][view, site]


class TappedViews:
    """The same for one task, with taps on what it takes: where its own gradient can be read.

    Backpropagation sums the gradients of all tasks in an activation. Before the sum, in the tap,
    each task's is there for nothing.

    Attributes:
      taps: float32 [B, C] each.
    """

    def __init__(self, encoded: EncodedViews):
        """Wraps the views of a batch."""
        self._encoded = encoded
        self.taps: list[tf.Tensor] = []
        self.view = encoded.view
        self.present = encoded.present

    def activation(self, modality: str, view: str, site: str = "embedding") -> tf.Tensor:
        """As `EncodedViews.activation`."""
        self.taps.append(tf.identity(self._encoded.activation(modality, view, site)))
        return self.taps[-1]


def runner(encoder: tf.keras.Model, *, recompute: bool, compiled: bool) -> Encode:
    """How an encoder is run in training.

    Args:
      encoder: of a modality.
      recompute: keep only what is between residual units, see `models.recompute`.
      compiled: by XLA, apart from the rest of the step, which gathers clips and is not static.

    Returns:
      What is called as the encoder is.
    """
    run = recomputing(encoder) if recompute else encoder
    if not compiled:
        return run
    return tf.function(lambda inputs, training: run(inputs, training=training),
                       jit_compile=True, reduce_retracing=True, autograph=False)


def encode_modality(encode: Encode, views: ClipViews, modality: str, names: Sequence[str],
                    training: bool) -> dict[ViewKey, tf.Tensor]:
    """Encodes some views of a modality in one call, without the examples that lack them.

    Args:
      encode: the modality's encoder.
      views: of the batch.
      modality: of `MODALITIES`.
      names: the views.
      training: passed to the encoder.

    Returns:
      `{(view, site): float32 [B, C]}`, averaged over time and space; zeros for examples without
      the view.
    """
    whole = [views.encoder_input(modality, name) for name in names]
    if modality == "audio":
        whole = [x[..., tf.newaxis] for x in whole]
    rows = [None if views.always_present(modality, name)
            else tf.where(views.present(modality, name)) for name in names]
    inputs = [x if own is None else tf.gather_nd(x, own)
              for x, own in zip(whole, rows, strict=True)]
    sizes = [tf.shape(x)[0] if x.shape[0] is None else x.shape[0] for x in inputs]
    if None in rows:
        outputs = encode(tf.concat(inputs, axis=0), training=training)
    else:
        outputs = _encode_optional(encode, inputs, whole, training)

    encoded = {}
    for site in SITES:
        activation = outputs[site]
        pooled = tf.reduce_mean(activation, list(range(1, activation.shape.rank - 1)))
        pooled = tf.cast(pooled, tf.float32)[:sum(sizes)]
        parts = tf.split(pooled, sizes)
        for name, own, all_of_it, part in zip(names, rows, whole, parts, strict=True):
            if own is not None:
                shape = tf.stack([tf.shape(all_of_it)[0], part.shape[-1]])
                part = tf.scatter_nd(own, part, tf.cast(shape, tf.int64))
            encoded[name, site] = part
    return encoded


def _encode_optional(encode: Encode, inputs: Sequence[tf.Tensor], whole: Sequence[tf.Tensor],
                     training: bool) -> Mapping[str, tf.Tensor]:
    """Encodes views that all examples may lack.

    An encoder needs an example, also where no clip of this replica has the modality: the first
    clip then stands in. Its activations reach no task, and the statistics of batch normalisation
    count it only where no replica has any (the first replica's, as if it were the only one).
    """
    present = sum(tf.shape(x)[0] for x in inputs)
    needed = tf.cast(tf.equal(present, 0), tf.int32)
    first = tf.concat([x[:1] for x in whole], axis=0)  # of the first view that is not empty
    joined = tf.concat([*inputs, first[:needed]], axis=0)
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return encode(joined, training=training)
    anywhere = sum_over_replicas(tf.cast(present, tf.float32))
    leads = tf.equal(context.replica_id_in_sync_group, 0)
    stands_in = tf.logical_and(tf.equal(anywhere, 0.0), leads)
    counted = tf.concat([tf.fill([present], True), tf.fill([needed], stands_in)], axis=0)
    with counted_examples(counted):
        return encode(joined, training=training)
