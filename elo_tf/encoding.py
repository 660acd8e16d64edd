"""Views -> activations: every view that a task asks for goes through its encoder once.

All views of a modality go through its encoder in one call; those of which samplers have cut out
items of other sizes, in a call for each size. Clips that lack a view are gathered out before the
encoder, since they would enter its batch statistics.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from elo_tf.models.normalization import counted_examples
from elo_tf.models.recompute import recomputing
from elo_tf.tasks.task import ViewKey, sum_over_replicas
from elo_tf.views.clip_views import ClipViews

SITES = ("block1", "block2", "block3", "block4", "embedding")
MAP = "/map"  # after a site's name: its activation as it is

# An encoder as it is called: inputs [B, ...] and `training` -> activations by site.
Encode = Callable[..., Mapping[str, tf.Tensor]]


class EncodedViews:
    """The activations of a batch's views: what tasks see (`tasks.task.Encoded`)."""

    def __init__(self, views: ClipViews, activations: Mapping[str, Mapping[ViewKey, tf.Tensor]],
                 rest: Callable[[str, str], Encode] | None = None):
        """Pairs views with activations.

        Args:
          views: of the batch.
          activations: `{modality: {(view, site): [B, C]}}`.
          rest: of a modality and a site, what its encoder does after it; where tasks need it.
        """
        self._activations = activations
        self._rest = rest
        self.view = views.view
        self.present = views.present
        self.truth = views.truth
        self.labels = views.labels
        self.position = views.position

    def activation(self, modality: str, view: str, site: str = "embedding") -> tf.Tensor:
        """Activation averaged over time and space, [B, C] or [B, K, C]; zeros where absent."""
        return self._activations[modality][view, site]

    def map(self, modality: str, view: str, site: str) -> tf.Tensor:
        """An activation before it is averaged, float32 [B, ..., C]; zeros where absent."""
        return self._activations[modality][view, f"{site}{MAP}"]

    def after(self, modality: str, site: str, activation: tf.Tensor) -> tf.Tensor:
        """The embedding [B, D] that the rest of an encoder makes of an activation at a site."""
        assert self._rest is not None
        return tf.cast(self._rest(modality, site)(activation, training=True), tf.float32)


class TappedViews:
    """The same for one task, with taps on what it takes: where its own gradient can be read.

    Backpropagation sums the gradients of all tasks in an activation. Before the sum, in the tap,
    each task's is there for nothing.

    Attributes:
      taps: float32 [B, C] each.
    """

    # The methods of `EncodedViews` that need no tap.
    view: Any
    present: Any
    truth: Any
    labels: Any
    position: Any
    after: Any

    def __init__(self, encoded: EncodedViews):
        """Wraps the views of a batch."""
        self._encoded = encoded
        self.taps: list[tf.Tensor] = []
        for name in ("view", "present", "truth", "labels", "position", "after"):
            setattr(self, name, getattr(encoded, name))

    def activation(self, modality: str, view: str, site: str = "embedding") -> tf.Tensor:
        """As `EncodedViews.activation`."""
        return self._tap(self._encoded.activation(modality, view, site))

    def map(self, modality: str, view: str, site: str) -> tf.Tensor:
        """As `EncodedViews.map`."""
        return self._tap(self._encoded.map(modality, view, site))

    def _tap(self, activation: tf.Tensor) -> tf.Tensor:
        self.taps.append(tf.identity(activation))
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


def rest_of(encoder: tf.keras.Model, site: str) -> Encode:
    """What an encoder does after a site, up to its embedding."""
    return tf.keras.Model(encoder.output[site], encoder.output["embedding"])


class EncoderInputs(Protocol):
    """What the encoders need of `ClipViews`."""

    def encoder_input(self, modality: str, view: str) -> tf.Tensor:
        """See `ClipViews.encoder_input`."""

    def always_present(self, modality: str, view: str) -> bool:
        """See `ClipViews.always_present`."""

    def present(self, modality: str, view: str) -> tf.Tensor:
        """See `ClipViews.present`."""


def calls(views: EncoderInputs, modality: str, names: Sequence[str]) -> list[list[str]]:
    """Sorts a modality's views by the size of what is encoded: each list is one encoder call."""
    sizes: dict[tuple, list[str]] = {}
    for name in names:
        inputs = views.encoder_input(modality, name)
        # Of items [B, K, t, h, w, C], those of one.
        sizes.setdefault(tuple(inputs.shape[2 if inputs.shape.rank == 6 else 1:]), []).append(name)
    return list(sizes.values())


def encode_modality(encode: Encode, views: EncoderInputs, modality: str, names: Sequence[str],
                    training: bool, maps: Collection[ViewKey] = ()) -> dict[ViewKey, tf.Tensor]:
    """Encodes some views of a modality in one call, without the examples that lack them.

    Args:
      encode: the modality's encoder.
      views: of the batch.
      modality: of `MODALITIES`.
      names: the views, of one size.
      training: passed to the encoder.
      maps: (view, site) of what is also wanted before it is averaged.

    Returns:
      `{(view, site): float32 [B, C]}`, averaged over time and space, [B, K, C] of sampled views;
      and `{(view, site + MAP): float32 [B, ..., C]}`; zeros for examples without the view.
    """
    whole = [views.encoder_input(modality, name) for name in names]
    if modality == "audio":
        whole = [x[..., tf.newaxis] for x in whole]
    rows = [None if views.always_present(modality, name)
            else tf.where(views.present(modality, name)) for name in names]
    inputs = [x if own is None else tf.gather_nd(x, own)
              for x, own in zip(whole, rows, strict=True)]
    inputs, flat = ([tf.reshape(x, [-1, *x.shape[2:]]) if x.shape.rank == 6 else x for x in xs]
                    for xs in (inputs, whole))
    sizes = [tf.shape(x)[0] if x.shape[0] is None else x.shape[0] for x in inputs]
    if None in rows:
        outputs = encode(tf.concat(inputs, axis=0), training=training)
    else:
        outputs = _encode_optional(encode, inputs, flat, training)

    def split(activation: tf.Tensor) -> list[tf.Tensor]:
        parts = tf.split(tf.cast(activation, tf.float32)[:sum(sizes)], sizes)
        found = []
        for own, x, part in zip(rows, whole, parts, strict=True):
            if x.shape.rank == 6:
                part = tf.reshape(part, [-1, x.shape[1], *part.shape[1:]])
            if own is not None:
                shape = tf.concat([tf.shape(x)[:1], tf.shape(part)[1:]], axis=0)
                known = [x.shape[0], *part.shape[1:]]
                part = tf.scatter_nd(own, part, tf.cast(shape, tf.int64))
                part.set_shape(known)
            found.append(part)
        return found

    encoded: dict[ViewKey, tf.Tensor] = {}
    for site in SITES:
        activation = outputs[site]
        pooled = tf.reduce_mean(activation, list(range(1, activation.shape.rank - 1)))
        encoded |= {(name, site): part for name, part in zip(names, split(pooled), strict=True)}
    for site in {site for view, site in maps if view in names}:
        parts = zip(names, split(outputs[site]), strict=True)
        encoded |= {(name, f"{site}{MAP}"): part for name, part in parts if (name, site) in maps}
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
