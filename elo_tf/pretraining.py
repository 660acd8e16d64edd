"""The Keras model whose train step is the paper's equation.

    L = sum_{m,t} lambda_{m,t} L_{m,t} + sum_d lambda_d L_d

Each view that a task asks for is made once and encoded once; all views of a modality go through its
encoder in one call. Clips that lack a view are gathered out before the encoder, since they would
enter its batch statistics. The weights are one variable, so that one compiled graph serves a
whole search; where they are fixed, tasks of weight 0 are not built at all.
"""

from collections.abc import Callable, Mapping, Sequence

import gin
import numpy as np
import tensorflow as tf

from elo_tf.data.clip_spec import CHANNELS, ClipSpec
from elo_tf.losses import LossSpace, global_shares
from elo_tf.models.audio_resnet import audio_encoder
from elo_tf.models.normalization import counted_examples
from elo_tf.models.video_resnet import video_encoder
from elo_tf.tasks.task import Shapes, Task, ViewKey, sum_over_replicas
from elo_tf.views.augmentation import Augmentation
from elo_tf.views.clip_views import ClipViews
from elo_tf.views.log_mel import LogMel

SITES = ("block1", "block2", "block3", "block4", "embedding")


@gin.register
class PretrainingModel(tf.keras.Model):
    """Encoders, heads, and the weighted sum of their losses.

    Attributes:
      names: the losses that are built, in the order of the weight vector.
      encoders: by modality; the RGB encoder is always there.
      tasks: in the order of `names`.
      loss_weights: float32 variable [len(names)].
      modalities: what batches must hold, of "rgb", "flow" and "audio".
      needs_other: whether batches must hold the window of another time.
    """

    def __init__(self, clip: ClipSpec, space: LossSpace, *, names: Sequence[str] | None = None,
                 seed: int = 1,
                 make_video_encoder: Callable[..., tf.keras.Model] = video_encoder,
                 make_audio_encoder: Callable[..., tf.keras.Model] = audio_encoder,
                 make_log_mel: Callable[..., LogMel] = LogMel,
                 make_augmentation: Callable[[], Augmentation] = Augmentation):
        """Builds encoders and heads; call it inside the strategy's scope.

        Args:
          clip: the clip's size.
          space: the loss space.
          names: the losses to build; all of the space by default.
          seed: of the initial variables, the views' draws and the augmentation's.
          make_video_encoder: called with the number of channels and `name`.
          make_audio_encoder: called with the number of mel bins and `name`.
          make_log_mel: see `ClipViews`.
          make_augmentation: of the clips that are trained on; they alone are augmented.
        """
        super().__init__(name="pretraining")
        self.names = tuple(space.names if names is None else names)
        self._clip = clip
        self._space = space
        self._seed = seed
        self._log_mel = make_log_mel
        self._augmentation = make_augmentation()
        wanted = {key for name in self.names for key in space.task(name).encodes}
        self._views = {m: sorted({v for n, v in wanted if n == m})
                       for m in ("rgb", "flow", "gray", "audio")}
        self._views["rgb"] = sorted({"intact", *self._views["rgb"]})
        self.encoders = {}
        # A seed for each encoder, so that leaving tasks out does not change the others.
        for i, (modality, views) in enumerate(self._views.items()):
            if views:
                tf.keras.utils.set_random_seed(seed * 1000 + i)
                self.encoders[modality] = (
                    make_audio_encoder(clip.mel_bins, name="audio") if modality == "audio"
                    else make_video_encoder(CHANNELS[modality], name=modality))
        tf.keras.utils.set_random_seed(seed * 1000 + len(self._views))
        shapes = Shapes(clip=clip, widths={
            m: {site: encoder.output[site].shape[-1] for site in SITES}
            for m, encoder in self.encoders.items()})
        self.tasks: list[Task] = space.build_tasks(self.names, shapes)
        self.loss_weights = tf.Variable(tf.zeros([len(self.names)]), trainable=False,
                                        name="loss_weights")
        used = wanted.union(*(task.decodes for task in self.tasks), {("rgb", "intact")})
        modalities = {"rgb" if m == "gray" else m for m, _ in used}
        self.modalities = tuple(m for m in ("rgb", "flow", "audio") if m in modalities)
        self.needs_other = any(view == "other_time" for _, view in used)

    def set_weights_by_name(self, weights: Mapping[str, float]) -> None:
        """Sets the losses' weights; those in the space's dead zone become 0."""
        effective = self._space.effective(weights)
        self.loss_weights.assign(np.array([effective[name] for name in self.names], np.float32))

    def encode(self, views: ClipViews, *, training: bool) -> "EncodedViews":
        """Encodes every view that the tasks need, once."""
        return EncodedViews(views, {
            modality: encode_modality(encoder, views, modality, self._views[modality], training)
            for modality, encoder in self.encoders.items()})

    def loss_shares(self, batch: Mapping[str, tf.Tensor], *, training: bool,
                    augmented: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """This replica's shares of the raw losses; see `losses.global_shares`.

        Args:
          batch: of `training_clips`.
          training: whether batch normalisation uses the batch's statistics.
          augmented: whether the clips are varied.

        Returns:
          shares float32 [n] and global counts of valid examples float32 [n].
        """
        views = ClipViews(batch, self._clip, self._seed, self._log_mel,
                          self._augmentation if augmented else None)
        encoded = self.encode(views, training=training)
        outputs = [task(encoded) for task in self.tasks]
        return global_shares(outputs, normalise=self._space.normalise, floor=self._space.floor)

    def train_step(self, data: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step down the weighted sum.

        Returns:
          total: the weighted sum; losses: float32 [n], the raw losses over the global batch.
        """
        with tf.GradientTape() as tape:
            shares, counts = self.loss_shares(data, training=True, augmented=True)
            total = tf.tensordot(self.loss_weights, shares, 1)
        variables = self.trainable_variables
        gradients = tape.gradient(total, variables, unconnected_gradients="zero")
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self._report(shares, counts)

    def test_step(self, data: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The same losses, without a step or augmentation; batch normalisation as in training."""
        return self._report(*self.loss_shares(data, training=True))

    def _report(self, shares: tf.Tensor, counts: tf.Tensor) -> dict[str, tf.Tensor]:
        losses = sum_over_replicas(tf.stop_gradient(shares))
        return {"total": tf.tensordot(self.loss_weights, losses, 1), "losses": losses,
                "counts": counts}


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


def encode_modality(encoder: tf.keras.Model, views: ClipViews, modality: str,
                    names: Sequence[str], training: bool) -> dict[ViewKey, tf.Tensor]:
    """Encodes some views of a modality in one call, without the examples that lack them.

    Args:
      encoder: of the modality.
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
        outputs = encoder(tf.concat(inputs, axis=0), training=training)
    else:
        outputs = _encode_optional(encoder, inputs, whole[0], training)

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


def _encode_optional(encoder: tf.keras.Model, inputs: Sequence[tf.Tensor], whole: tf.Tensor,
                     training: bool) -> dict[str, tf.Tensor]:
    """Encodes views that all examples may lack.

    An encoder needs an example, also where no clip of this replica has the modality: the first
    clip then stands in. Its activations reach no task, and the statistics of batch normalisation
    count it only where no replica has any (the first replica's, as if it were the only one).
    """
    present = sum(tf.shape(x)[0] for x in inputs)
    needed = tf.cast(tf.equal(present, 0), tf.int32)
    joined = tf.concat([*inputs, whole[:needed]], axis=0)
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return encoder(joined, training=training)
    anywhere = sum_over_replicas(tf.cast(present, tf.float32))
    first = tf.equal(context.replica_id_in_sync_group, 0)
    stands_in = tf.logical_and(tf.equal(anywhere, 0.0), first)
    counted = tf.concat([tf.fill([present], True), tf.fill([needed], stands_in)], axis=0)
    with counted_examples(counted):
        return encoder(joined, training=training)
