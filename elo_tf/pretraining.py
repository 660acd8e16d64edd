"""The Keras model whose train step is the paper's equation.

    L = sum_{m,t} lambda_{m,t} L_{m,t} + sum_d lambda_d L_d

The weights are one variable, so that one compiled graph serves a whole search, and skips tasks of
weight 0 as it runs; where the weights are fixed, such tasks are not built at all.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import gin
import numpy as np
import tensorflow as tf

from elo_tf import gradients, skipping, uncertainty
from elo_tf.data.clip_spec import CHANNELS, ClipSpec
from elo_tf.encoding import SITES, EncodedViews, calls, encode_modality, rest_of, runner
from elo_tf.errors import UserError
from elo_tf.losses import LossSpace, global_shares
from elo_tf.models.audio_resnet import audio_encoder
from elo_tf.models.normalization import frozen_averages
from elo_tf.models.video_resnet import video_encoder
from elo_tf.tasks.task import Encoded, Shapes, Task, sum_over_replicas
from elo_tf.views.augmentation import Augmentation
from elo_tf.views.clip_views import ClipViews
from elo_tf.views.log_mel import LogMel


@gin.register
class PretrainingModel(tf.keras.Model):
    """Encoders, heads, and the weighted sum of their losses.

    Attributes:
      names: the losses that are built, in the order of the weight vector.
      encoders: by modality; the RGB encoder is always there.
      tasks: in the order of `names`.
      loss_weights: float32 variable [len(names)].
      log_variances: float32 variable [len(names)] where the weights are learned; None otherwise.
      modalities: what batches must hold, of "rgb", "flow" and "audio".
      skips: whether steps leave out what losses of weight 0 need.
      needs_other: whether batches must hold the window of another time.
      after_step: called with the optimiser's count of steps, inside the train step, at its end.
    """

    def __init__(self, clip: ClipSpec, space: LossSpace, *, names: Sequence[str] | None = None,
                 seed: int = 1,
                 make_video_encoder: Callable[..., tf.keras.Model] = video_encoder,
                 make_audio_encoder: Callable[..., tf.keras.Model] = audio_encoder,
                 make_log_mel: Callable[..., LogMel] = LogMel,
                 make_augmentation: Callable[[], Augmentation] = Augmentation,
                 precision: Literal["float32", "mixed_bfloat16"] = "float32",
                 recompute: Literal["none", "units", "views", "both"] = "none",
                 accumulate: int = 1, xla: bool = False, skip_zero: bool = True,
                 weighting: Literal["fixed", "uncertainty"] = "fixed"):
        """Builds encoders and heads; call it inside the strategy's scope.

        Args:
          clip: the clip's size.
          space: the loss space.
          names: the losses to build, all of the space by default.
          seed: of the initial variables, the views' draws and the augmentation's.
          make_video_encoder: called with the number of channels and `name`.
          make_audio_encoder: called with the number of mel bins and `name`.
          make_log_mel: see `ClipViews`.
          make_augmentation: of the clips that are trained on; they alone are augmented.
          precision: of the encoders. Variables, heads and losses are float32 always: decoders
            are small, and on CPUs the bfloat16 gradient of a transposed convolution to three
            channels is noise.
          recompute: what is computed again in the backward pass instead of being kept: the inside
            of residual `units`, whole `views` one after the other (batch normalisation then sees
            each view by itself), or both.
          accumulate: parts of each replica's batch that are computed one after the other.
          xla: compile the encoders with XLA, for GPUs; it needs a single replica.
          skip_zero: leave out of a step what only losses of weight 0 need (our choice), for weights
            that change. It acts on one replica that takes its batch at once, with `recompute`
            "none" or "units" and without `xla`.
          weighting: "uncertainty" learns the weights in the training (see `uncertainty`);
            `loss_weights` then says by a weight above 0 which losses take part.

        Raises:
          UserError: if the options exclude each other.
        """
        super().__init__(name="pretraining")
        self.distribute_reduction_method = "first"  # reports are of the global batch already
        self.after_step: Callable[[tf.Variable], None] | None = None
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if accumulate < 1:
            raise UserError(f"PretrainingModel.accumulate is {accumulate}; it must be 1 or more")
        if weighting not in ("fixed", "uncertainty"):
            raise UserError(f"PretrainingModel.weighting is {weighting!r}; it must be 'fixed' or "
                            "'uncertainty'")
        if xla and replicas > 1:
            raise UserError("PretrainingModel.xla is True, but XLA cannot compile batch "
                            f"normalisation over {replicas} devices; set it to False")
        self._in_turn = recompute in ("views", "both")
        self._accumulate = accumulate
        self.names = tuple(space.names if names is None else names)
        self._clip = clip
        self._space = space
        self._seed = seed
        self._log_mel = make_log_mel
        self._augmentation = make_augmentation()
        described = [space.task(name) for name in self.names]
        wanted = {key for task in described for key in task.encodes}
        self._maps = {key for task in described for key in task.maps}
        if self._maps and self._in_turn:
            raise UserError(f"PretrainingModel.recompute is {recompute!r}, but a task of "
                            f"{', '.join(self.names)} goes into an encoder between its blocks, "
                            "which views one by one do not allow; set it to 'none' or 'units'")
        self.skips = (skip_zero and replicas == 1 and accumulate == 1 and not xla
                      and not self._in_turn and not self._maps)
        self._views = {m: sorted({v for n, v in wanted if n == m})
                       for m in ("rgb", "flow", "gray", "audio")}
        self.encoders = {}
        with precision_policy(precision):
            # A seed for each encoder, so that leaving tasks out does not change the others.
            for i, (modality, views) in enumerate(self._views.items()):
                if views or modality == "rgb":
                    tf.keras.utils.set_random_seed(seed * 1000 + i)
                    self.encoders[modality] = (
                        make_audio_encoder(clip.mel_bins, name="audio") if modality == "audio"
                        else make_video_encoder(CHANNELS[modality], name=modality))
        tf.keras.utils.set_random_seed(seed * 1000 + len(self._views))
        shapes = Shapes(clip=clip, widths={
            m: {site: encoder.output[site].shape[-1] for site in SITES}
            for m, encoder in self.encoders.items()})
        self.tasks: list[Task] = space.build_tasks(self.names, shapes)
        samplers = {view: sampler for task in self.tasks for view, sampler in task.samplers.items()}
        self._samplers = lambda: samplers  # not to be searched for variables
        rests = {(m, site): rest_of(self.encoders[m], site) for m, _, site in self._maps}
        self._rest = lambda modality, site: rests[modality, site]
        self._run = {m: runner(encoder, recompute=recompute in ("units", "both"), compiled=xla)
                     for m, encoder in self.encoders.items()}
        self.loss_weights = tf.Variable(tf.zeros([len(self.names)]), trainable=False,
                                        name="loss_weights")
        self.log_variances = None
        if weighting == "uncertainty":
            self.log_variances = tf.Variable(tf.zeros([len(self.names)]), name="log_variances")
        used = wanted.union(*(task.decodes for task in self.tasks), {("rgb", "intact")},
                            *(sampler.sources for sampler in samplers.values()))
        modalities = {"rgb" if m == "gray" else m for m, _ in used}
        self.modalities = tuple(m for m in ("rgb", "flow", "audio") if m in modalities)
        self.needs_other = any(view == "other_time" for _, view in used)

    def set_weights_by_name(self, weights: Mapping[str, float]) -> None:
        """Sets the losses' weights; those in the space's dead zone become 0."""
        effective = self._space.effective(weights)
        self.loss_weights.assign(np.array([effective[name] for name in self.names], np.float32))

    def weights_by_name(self) -> dict[str, float]:
        """The losses' weights as they are now."""
        return dict(zip(self.names, map(float, self.step_weights()), strict=True))

    def check_batch_size(self, batch_size: int) -> None:
        """Raises UserError where a global batch cannot be split over devices and parts."""
        replicas = self.distribute_strategy.num_replicas_in_sync
        if batch_size % (replicas * self._accumulate):
            raise UserError(f"a batch_size of {batch_size} cannot be split evenly over {replicas} "
                            f"device(s) and PretrainingModel.accumulate = {self._accumulate} parts")

    def encoded_views(self) -> list[tuple[str, str]]:
        """The views that are encoded, as (modality, view)."""
        return [(modality, view) for modality in self.encoders for view in self._views[modality]]

    def run_encoder(self, modality: str) -> Callable[..., Mapping[str, tf.Tensor]]:
        """A modality's encoder as it is run in training."""
        return self._run[modality]

    def encode(self, views: ClipViews, *, training: bool) -> EncodedViews:
        """Encodes every view that the tasks need, once."""
        found: dict[str, dict] = {}
        for modality in self.encoders:
            maps = {(view, site) for name, view, site in self._maps if name == modality}
            for names in calls(views, modality, self._views[modality]):
                found.setdefault(modality, {}).update(encode_modality(
                    self._run[modality], views, modality, names, training, maps))
        return EncodedViews(views, found, self._rest)

    def step_weights(self) -> tf.Tensor:
        """The weight of every loss in this step, float32 [n]."""
        weights = tf.convert_to_tensor(self.loss_weights)
        if self.log_variances is None:
            return weights
        return uncertainty.learned_weights(self.log_variances, weights > 0)

    @property
    def network_variables(self) -> list[tf.Variable]:
        """The trainable variables of encoders and heads."""
        return [v for v in self.trainable_variables if v is not self.log_variances]

    def shares(self, encoded: Sequence[Encoded], counts: tf.Tensor,
               tasks: Sequence[Task] | None = None) -> tf.Tensor:
        """This replica's shares float32 [n] of the raw losses; see `losses.global_shares`.

        Args:
          encoded: the views for each task.
          counts: float32 [n], valid examples of the global batch.
          tasks: all n of the model by default.
        """
        outputs = [task(own) for task, own in zip(
            self.tasks if tasks is None else tasks, encoded, strict=True)]
        return global_shares(outputs, counts, normalise=self._space.normalise,
                             floor=self._space.floor)

    def train_step(self, data: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step down the weighted sum.

        Args:
          data: a batch of `training_clips`.

        Returns:
          total: the weighted sum; losses: float32 [n], the raw losses over the global batch;
          counts: float32 [n], their valid examples; both 0 of losses that are skipped;
          gradient_norm: of the total, in all
          variables; gradient_norms: float32 [n], of each weighted loss, in the activations that it
          is computed from (as GradNorm measures them: Chen et al. 2018, arXiv 1711.02257);
          weights: float32 [n], where they are learned: those of this step.
        """
        compute = gradients.in_turn if self._in_turn else gradients.together
        variables = self.network_variables
        weights = self.step_weights()
        if self.skips:
            active = skipping.Active(self.loss_weights)
            counts = tf.where(active.losses, self._counts(data), 0.0)
            found = skipping.together(self, self._needed_views(data, active), counts, active)
        elif self._accumulate == 1:
            counts = self._counts(data)
            found = compute(self, self._clip_views(data, augmented=True), counts)
        else:
            nothing = tf.zeros([len(self.names)])
            counts = gradients.accumulated(self._counts, data, self._accumulate, nothing)
            zeros = gradients.Gradients([tf.zeros(v.shape) for v in variables], nothing, nothing)
            found = gradients.accumulated(
                lambda part: compute(self, self._clip_views(part, augmented=True), counts),
                data, self._accumulate, zeros)
        summed = found.gradients
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            summed = context.all_reduce(tf.distribute.ReduceOp.SUM, summed)
        report = self._report(found.shares, counts, weights)
        if self.log_variances is not None:
            variables = [*variables, self.log_variances]
            summed = [*summed, uncertainty.log_variance_gradient(
                weights, report["losses"], counts)]
            report["weights"] = weights
        self.optimizer.apply_gradients(zip(summed, variables, strict=True),
                                       experimental_aggregate_gradients=False)
        if self.after_step is not None:
            self.after_step(self.optimizer.iterations)
        return report | {
            "gradient_norm": tf.linalg.global_norm(summed),
            "gradient_norms": tf.sqrt(sum_over_replicas(found.squares))}

    def test_step(self, data: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The same losses, without a step or augmentation; batch normalisation as in training.

        The moving averages of batch normalisation stay as they are.
        """
        with frozen_averages():
            encoded = self.encode(self._clip_views(data, augmented=False), training=True)
            counts = self._counts(data)
            return self._report(self.shares([encoded] * len(self.tasks), counts), counts,
                                self.step_weights())

    def _clip_views(self, batch: Mapping[str, tf.Tensor], *, augmented: bool) -> ClipViews:
        return ClipViews(batch, self._clip, self._seed, self._log_mel,
                         self._augmentation if augmented else None, self._samplers())

    def _needed_views(self, batch: Mapping[str, tf.Tensor], active: skipping.Active
                      ) -> skipping.NeededViews:
        return skipping.NeededViews(batch, self._clip, self._seed, self._log_mel,
                                    self._augmentation, self._samplers(), tasks=self.tasks,
                                    active=active)

    def _counts(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Valid examples of each loss, float32 [n], in the global batch."""
        views = self._clip_views(batch, augmented=False)
        masks = tf.stack([task.mask(views) for task in self.tasks])
        return sum_over_replicas(tf.reduce_sum(tf.cast(masks, tf.float32), axis=1))

    def _report(self, shares: tf.Tensor, counts: tf.Tensor, weights: tf.Tensor
                ) -> dict[str, tf.Tensor]:
        losses = sum_over_replicas(tf.stop_gradient(shares))
        return {"total": tf.tensordot(weights, losses, 1), "losses": losses, "counts": counts}


@contextlib.contextmanager
def precision_policy(name: str) -> Iterator[None]:
    """Keras's policy for the layers that are made inside."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
