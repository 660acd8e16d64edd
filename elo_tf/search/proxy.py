"""The proxy training that gives a weight vector its fitness.

Every candidate starts from the same variables and sees the same batches, and the graph is compiled
once for the whole search: only the variable that holds the weights differs.
"""

import functools
import time
from collections.abc import Callable, Mapping

import gin
import numpy as np
import tensorflow as tf

from elo_tf import cli
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.pipeline import reading, require_clips, testing_clips, training_clips
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError
from elo_tf.features import FeatureExtractor
from elo_tf.fitness.fitness import ZipfFitness
from elo_tf.losses import LossSpace
from elo_tf.pretraining import PretrainingModel
from elo_tf.search.loop import CandidateError
from elo_tf.training.batch_statistics import BatchStatistics
from elo_tf.training.data_wait import DataWait
from elo_tf.training.devices import distribute, make_strategy
from elo_tf.training.optimization import create_slots, make_optimizer
from elo_tf.views.clip_views import ClipViews


@gin.register
class Proxy:
    """Trains a small network with given weights and measures its fitness."""

    def __init__(self, records: Records | MixedRecords = gin.REQUIRED,
                 clip: ClipSpec = gin.REQUIRED,
                 space: LossSpace = gin.REQUIRED, fitness: ZipfFitness = gin.REQUIRED,
                 make_model: Callable[..., PretrainingModel] = PretrainingModel,
                 optimizer: Callable[..., tf.keras.optimizers.legacy.Optimizer] = make_optimizer,
                 split: str = "unlabelled", steps: int = 200, batch_size: int = 16,
                 seed: int = 1, statistics_steps: int = 4, cache: bool = True):
        """Builds the network and reads the clips.

        Args:
          records: the record set; its held-out part gives the features.
          clip: the clip's size.
          space: the loss space; all its losses are built.
          fitness: features [N, D] -> report.
          make_model: called with clip, space and seed.
          optimizer: called with the number of steps and the global batch size.
          split: of the records; labels are never read.
          steps: of each training.
          batch_size: of the global batch.
          seed: of initial variables, order and draws.
          statistics_steps: batches of intact clips for the features' batch-norm statistics.
          cache: keep the decoded batches in memory, which spares decoding them for every
            candidate; turn it off where they do not fit.
        """
        for name, value in (("steps", steps), ("batch_size", batch_size)):
            if value < 1:
                raise UserError(f"Proxy.{name} is {value}; it must be 1 or more")
        require_clips(records, split, "fit", clip)
        require_clips(records, split, "heldout", clip, least=fitness.k,
                      why=f"ZipfFitness.k = {fitness.k}")
        self.space = space
        self._reading = functools.partial(reading, records, split)
        self._clip = clip
        self._fitness = fitness
        self._steps = steps
        strategy = make_strategy()
        with strategy.scope():
            self.model = make_model(clip, space, seed=seed)
            self.model.check_batch_size(batch_size)
            self.model.compile(optimizer=optimizer(steps, batch_size))
            create_slots(self.model.optimizer, self.model.trainable_variables)
        self._wait = DataWait(self.model)
        self._variables = [*self.model.variables, *self.model.optimizer.variables()]
        initial = [tf.identity(variable) for variable in self._variables]

        @tf.function
        def reset():
            for variable, value in zip(self._variables, initial, strict=True):
                variable.assign(value)

        self._reset = reset
        training = training_clips(records, split, clip, batch_size=batch_size, seed=seed,
                                  part="fit", modalities=self.model.modalities,
                                  other=self.model.needs_other).take(steps)
        heldout = testing_clips(
            records, split, clip, batch_size=batch_size, part="heldout", modalities=("rgb",)).map(
                lambda batch: {name: batch[name] for name in ("rgb", "id", "label")})
        statistics = training.take(statistics_steps).map(lambda batch: batch["rgb"])
        if cache:
            training, heldout, statistics = (
                x.cache() for x in (training, heldout, statistics))
            # A cache is kept once it was read to its end, where training stops one step short of.
            with reading(records, split):
                for _ in cli.progress(training, total=steps, desc="decoding", unit="batch"):
                    pass
        self._training = distribute(strategy, training)
        self._heldout = heldout
        self._statistics = statistics
        self._extract = FeatureExtractor(self.model.encoders["rgb"], clip)
        self._estimator = BatchStatistics(self.model.encoders["rgb"])

    def evaluate(self, weights: Mapping[str, float]) -> dict:
        """Trains from the initial variables with these weights.

        Args:
          weights: of all losses of the space.

        Returns:
          fitness, status, losses (raw, of the last step), histogram, spread, effective_rank,
          and seconds of training, of its waits for data, of features and of clustering.

        Raises:
          CandidateError: if the training diverges or runs out of memory.
        """
        started = time.perf_counter()
        self._reset()
        self.model.set_weights_by_name(weights)
        self._wait.take()
        with self._reading():
            losses = self._train()
        waited = self._wait.take().seconds
        trained = time.perf_counter()
        report = self.measure()
        total = time.perf_counter() - started
        return {**report, "losses": losses,
                "seconds": {"train": trained - started, "wait": waited, **report["seconds"],
                            "total": total}}

    def measure(self) -> dict:
        """Fitness of the RGB encoder as it is; see `evaluate`."""
        started = time.perf_counter()
        with self._reading():
            self._estimator.estimate(
                ClipViews({"rgb": rgb}, self._clip).view("rgb", "intact")
                for rgb in self._statistics)
            features = self._extract(self._heldout).embedding
        extracted = time.perf_counter()
        report = self._fitness(features)
        return {
            "fitness": report.fitness, "status": report.status,
            "histogram": np.asarray(report.histogram).tolist(), "spread": report.spread,
            "effective_rank": report.effective_rank,
            "seconds": {"features": extracted - started,
                        "cluster": time.perf_counter() - extracted}}

    @property
    def traces(self) -> int:
        """How often the train step was traced."""
        return self._wait.traces

    def _train(self) -> dict[str, float]:
        progress = cli.progress(total=self._steps, desc="  candidate", unit="step")
        try:
            batches = iter(self._training)
            for _ in range(self._steps):
                report = self.model.train_function(batches)
                progress.update()
            losses = dict(zip(self.model.names, map(float, report["losses"]), strict=True))
        except tf.errors.ResourceExhaustedError as error:
            raise CandidateError(f"out of memory: {error.message.splitlines()[0]}") from error
        finally:
            progress.close()
        for name, loss in losses.items():
            if not np.isfinite(loss):
                raise CandidateError(f"the loss {name} is {loss} after {self._steps} steps")
        return losses
