"""An RGB encoder with one linear layer on top, trained and tested as a whole; compiled once.

Its steps are for any weights of the same architecture: a series of trainings puts the variables
back (`reset`) and traces nothing again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from elo_tf import cli
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.evaluation.layerwise import apply_gradients, layer_rates
from elo_tf.models.convolution import FactorisedConv3D
from elo_tf.models.normalization import BatchNorm
from elo_tf.training.batch_statistics import BatchStatistics
from elo_tf.training.optimization import create_slots
from elo_tf.views.augmentation import Augmentation, uniform
from elo_tf.views.clip_views import ClipViews

_DROPOUT = 1000  # what draws are for; the views' purposes are small numbers

Optimizer: TypeAlias = tf.keras.optimizers.legacy.Optimizer


class Classifier:
    """The network, its two kinds of step and its test.

    Attributes:
      encoder: of RGB, on the strategy's devices.
      head: the linear layer.
      optimizers: "head" and "all".
      traces: how often a step was traced.
    """

    def __init__(self, encoder: tf.keras.Model, clip: ClipSpec, classes: int, *,
                 strategy: tf.distribute.Strategy, make_optimizers: Callable[[], tuple[
                     Optimizer, Optimizer]], augmentation: Augmentation | None = None,
                 layer_decay: float = 1.0, dropout: float = 0.0, label_smoothing: float = 0.0):
        """Builds it; nothing is traced yet.

        Args:
          encoder: as saved, whose architecture is taken over.
          clip: the clip's size.
          classes: of the linear layer.
          strategy: the devices.
          make_optimizers: called in the strategy's scope; gives that of the linear layer by itself,
            and that of the whole network.
          augmentation: of training clips.
          layer_decay: see `layerwise.layer_rates`.
          dropout: share of the embedding that is zeroed in training.
          label_smoothing: share of the target that all classes have in common.
        """
        self._strategy = strategy
        self._clip = clip
        self._augmentation = augmentation
        self._dropout = dropout
        self._smoothing = label_smoothing
        self._classes = classes
        self.traces = 0
        with strategy.scope():
            self.encoder = for_training(encoder)
            self.head = tf.keras.layers.Dense(classes, name="classifier")
            self.head.build([None, encoder.output["embedding"].shape[-1]])
            last, every = make_optimizers()
            create_slots(last, self.head.trainable_variables)
            create_slots(every, self._variables)
        self.optimizers = {"head": last, "all": every}
        self._rates = [*layer_rates(self.encoder, layer_decay),
                       *[1.0] * len(self.head.trainable_variables)]
        self._statistics = BatchStatistics(self.encoder)
        self.head_step = self._compiled(self._head_step)
        self.full_step = self._compiled(self._full_step)
        shape = [None, clip.frames, clip.size, clip.size, 3]

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8)])
        def probabilities(rgb: tf.Tensor) -> tf.Tensor:
            frames = ClipViews({"rgb": rgb}, clip).view("rgb", "intact")
            return tf.nn.softmax(self.head(self.encoder(frames, training=False)["embedding"]))

        self._probabilities = probabilities

    @property
    def _variables(self) -> list[tf.Variable]:
        return [*self.encoder.trainable_variables, *self.head.trainable_variables]

    @property
    def parts(self) -> dict:
        """What a checkpoint of its training holds."""
        return {"encoder": self.encoder, "head": self.head, "optimizers": self.optimizers}

    def reset(self, encoder: tf.keras.Model, seed: int) -> None:
        """Begins anew: the encoder's weights, a drawn linear layer, optimisers that did no step.

        Args:
          encoder: of the same architecture.
          seed: of the linear layer (Glorot and Bengio's uniform values).
        """
        self.encoder.set_weights(encoder.get_weights())
        draw = tf.keras.initializers.GlorotUniform(seed=seed)
        self.head.set_weights([draw(self.head.kernel.shape), np.zeros(self._classes)])
        for optimizer in self.optimizers.values():
            for variable in optimizer.variables():
                variable.assign(tf.zeros(variable.shape, variable.dtype))

    def estimate_statistics(self, batches: Iterable[Mapping[str, tf.Tensor]]) -> None:
        """Sets the batch norms' averages to those of these clips, not augmented."""
        self._statistics.estimate(
            ClipViews(batch, self._clip).view("rgb", "intact") for batch in batches)

    def predict(self, batches: Iterable[Mapping[str, tf.Tensor]], views: int, *,
                total: int | None = None, desc: str = "") -> tuple[np.ndarray, np.ndarray]:
        """Classifies every video by the mean of its views' softmax probabilities.

        Args:
          batches: of `data.pipeline.testing_clips`.
          views: of each video, one after the other.
          total: batches, to tell the time left.
          desc: title of the progress bar.

        Returns:
          Probabilities float32 [N, classes] of the videos, and their labels, int64 [N].
        """
        found, labels = [np.zeros((0, self._classes), np.float32)], [np.zeros(0, np.int64)]
        for batch in cli.progress(batches, total=total, desc=desc, unit="batch"):
            found.append(self._probabilities(batch["rgb"]).numpy())
            labels.append(batch["label"].numpy())
        return average_views(np.concatenate(found), views), np.concatenate(labels)[::views]

    def _compiled(self, replica_step: Callable) -> Callable[[Iterator], dict[str, tf.Tensor]]:
        """A function of an iterator over distributed batches of `training_clips`.

        It returns the loss, over the global batch, and gradient_norm: float32 [] each.
        """
        strategy = self._strategy

        @tf.function
        def step(iterator: Iterator) -> dict[str, tf.Tensor]:
            self.traces += 1
            report = strategy.run(replica_step, args=(next(iterator),))
            return {name: strategy.experimental_local_results(x)[0] for name, x in report.items()}

        return step

    def _head_step(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        embedding = tf.stop_gradient(self.encoder(self._frames(batch), training=False)["embedding"])
        variables = self.head.trainable_variables
        with tf.GradientTape() as tape:
            share = self._loss_share(embedding, batch)
        gradients, report = self._summed(tape.gradient(share, variables), share)
        self.optimizers["head"].apply_gradients(zip(gradients, variables, strict=True),
                                                experimental_aggregate_gradients=False)
        return report

    def _full_step(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        frames = self._frames(batch)
        with tf.GradientTape() as tape:
            share = self._loss_share(self.encoder(frames, training=True)["embedding"], batch)
        gradients, report = self._summed(tape.gradient(share, self._variables), share)
        apply_gradients(self.optimizers["all"], gradients, self._variables, self._rates)
        return report

    def _frames(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        views = ClipViews(batch, self._clip, augmentation=self._augmentation)
        return views.encoder_input("rgb", "intact")

    def _loss_share(self, embedding: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """This device's part of the mean cross-entropy over the global batch."""
        if self._dropout:
            drawn = uniform(batch["index"], batch["key"], [0, _DROPOUT], embedding.shape[-1])
            kept = tf.cast(drawn >= self._dropout, tf.float32) / (1.0 - self._dropout)
            embedding = embedding * kept
        losses = tf.keras.losses.categorical_crossentropy(
            tf.one_hot(batch["label"], self._classes), self.head(embedding), from_logits=True,
            label_smoothing=self._smoothing)
        count = batch["label"].shape[0] * self._strategy.num_replicas_in_sync
        return tf.reduce_sum(losses) / count

    def _summed(self, gradients: list[tf.Tensor], share: tf.Tensor
                ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """Gradients over all devices, and the step's report."""
        if self._strategy.num_replicas_in_sync > 1:
            *gradients, share = tf.distribute.get_replica_context().all_reduce(
                tf.distribute.ReduceOp.SUM, [*gradients, share])
        return gradients, {"loss": share, "gradient_norm": tf.linalg.global_norm(gradients)}


def for_training(encoder: tf.keras.Model) -> tf.keras.Model:
    """A saved encoder with our layers, faster on CPUs and for several devices; new weights."""
    synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1

    def ours(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
        config = layer.get_config()
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            return BatchNorm.from_config(config | {"synchronized": synchronized})
        if isinstance(layer, tf.keras.layers.Conv3D):
            return FactorisedConv3D.from_config(config)
        return layer.__class__.from_config(config)

    return tf.keras.models.clone_model(encoder, clone_function=ours)


def average_views(probabilities: np.ndarray, views: int) -> np.ndarray:
    """The means [N, C] over the `views` rows of each video of probabilities [N * views, C]."""
    return probabilities.reshape(-1, views, probabilities.shape[-1]).mean(axis=1)
