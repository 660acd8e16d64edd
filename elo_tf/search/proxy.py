"""The proxy training that gives a weight vector its fitness.

Every candidate starts from the same variables and sees the same batches, and the graph is compiled
once for all candidates of a worker: only the variable that holds the weights differs. A repeat has
variables, an order of clips and draws of its own, which are a function of its number.
"""

import dataclasses
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
import numpy as np
import tensorflow as tf
import threadpoolctl

from elo_tf import cli
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.pipeline import reading, require_clips, testing_clips, training_clips
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError
from elo_tf.features import FeatureExtractor, Features
from elo_tf.fitness.guide import Fitness
from elo_tf.losses import LossSpace
from elo_tf.pretraining import PretrainingModel
from elo_tf.search import kept_features
from elo_tf.search.errors import CandidateError
from elo_tf.training.batch_statistics import BatchStatistics
from elo_tf.training.data_wait import DataWait
from elo_tf.training.devices import distribute, make_strategy
from elo_tf.training.optimization import create_slots, make_optimizer
from elo_tf.views.clip_views import ClipViews

TIMED_STEPS = 3


@dataclasses.dataclass(frozen=True)
class _Seeded:
    """What a repeat starts from: values of all variables, and batches."""

    initial: Sequence[tf.Tensor]
    training: tf.distribute.DistributedDataset
    statistics: tf.data.Dataset


@gin.register
class Proxy:
    """Trains a small network with given weights and measures its fitness."""

    def __init__(self, records: Records | MixedRecords = gin.REQUIRED,
                 clip: ClipSpec = gin.REQUIRED,
                 space: LossSpace = gin.REQUIRED, fitness: Fitness = gin.REQUIRED,
                 make_model: Callable[..., PretrainingModel] = PretrainingModel,
                 optimizer: Callable[..., tf.keras.optimizers.legacy.Optimizer] = make_optimizer,
                 split: str = "unlabelled", labelled_split: str = "train", steps: int = 200,
                 batch_size: int = 16, seed: int = 1, statistics_steps: int = 4,
                 cache: bool = True, check_every: int = 10, time_limit: float = 0.0,
                 keep_features: str = "", looks: Sequence[int] = (), quiet: bool = False):
        """Builds the network, reads the clips and compiles a step.

        Args:
          records: the record set; its held-out part gives the features.
          clip: the clip's size.
          space: the loss space; all its losses are built.
          fitness: of the features.
          make_model: called with clip, space and seed.
          optimizer: called with the number of steps and the global batch size.
          split: of the records, to train on and to cluster; its labels are never read.
          labelled_split: of the records, for the weak fitness, where they have it.
          steps: of each training.
          batch_size: of the global batch.
          seed: of initial variables, order and draws; a repeat adds its number.
          statistics_steps: batches of intact clips for the features' batch-norm statistics.
          cache: keep the decoded batches in memory, which spares decoding them for every
            candidate; turn it off where they do not fit.
          check_every: steps between looks at the losses; a training that diverged stops there.
          time_limit: seconds after which a training is given up; 0: none.
          keep_features: folder for the features of every network that is measured, to study the
            fitness on; empty: none. See `kept_features.py`.
          looks: steps after which they are kept as well as at the end.
          quiet: without progress bars.
        """
        started = time.perf_counter()
        for name, value in (("steps", steps), ("batch_size", batch_size),
                            ("check_every", check_every)):
            if value < 1:
                raise UserError(f"Proxy.{name} is {value}; it must be 1 or more")
        require_clips(records, split, "fit", clip)
        require_clips(records, split, "heldout", clip, least=fitness.zipf.k,
                      why=f"ZipfFitness.k = {fitness.zipf.k}")
        self.space = space
        self._records, self._split, self._clip = records, split, clip
        self._fitness = fitness
        self._steps, self._batch_size = steps, batch_size
        self._check_every, self._time_limit = check_every, time_limit
        self._keep, self._looks = keep_features, frozenset(looks)
        if not all(0 < look < steps for look in looks) or (looks and not keep_features):
            raise UserError(f"Proxy.looks is {tuple(looks)}; it holds steps before the last, "
                            f"{steps}, and needs Proxy.keep_features")
        self._statistics_steps, self._cache, self._quiet = statistics_steps, cache, quiet
        self._seed = seed
        self._strategy = make_strategy()
        self._make_model = lambda seed: make_model(clip, space, seed=seed)
        with self._strategy.scope():
            self.model = self._make_model(seed)
            self.model.check_batch_size(batch_size)
            self.model.compile(optimizer=optimizer(steps, batch_size))
            create_slots(self.model.optimizer, self.model.trainable_variables)
        self._wait = DataWait(self.model)
        self._variables = [*self.model.variables, *self.model.optimizer.variables()]
        self._seeded = {0: self._make_seeded(0)}
        self._heldout = self._testing(split, "heldout")
        self._labelled, self._labelled_split = None, labelled_split
        if labelled_split in records.splits() and records.labels():
            labelled = self._testing(labelled_split, "all")
            with reading(records, labelled_split):
                labels = np.concatenate([x["label"].numpy() for x in labelled] or [[]])
            self._labelled = labelled if fitness.check_labels(labels) else None
        else:
            fitness.check_labels(None)
        self._extract = FeatureExtractor(self.model.encoders["rgb"], clip)
        self._estimator = BatchStatistics(self.model.encoders["rgb"])
        # The order in which NumPy's threads add up would change last bits.
        self._one_thread = threadpoolctl.ThreadpoolController()
        built = time.perf_counter()
        self._compile()
        self._times = {"build": built - started, "compile": time.perf_counter() - built}

    def evaluate(self, weights: Mapping[str, float] | None, repeat: int = 0) -> dict[str, Any]:
        """Trains from the initial variables with these weights.

        Args:
          weights: of all losses of the space; None leaves the network untrained: the control.
          repeat: of which the initial variables, the order of clips and all draws are a function.

        Returns:
          fitness, status, zipf, weak, histogram, spread, effective_rank; clusters: shares, and
          ids of the clips nearest to each centre; seconds; worker; traces of the train step. Of a
          candidate: losses, raw, of the last step, of the tasks whose weight is not 0. Of the
          control: facts.

        Raises:
          CandidateError: if the training diverges, runs out of memory or takes too long.
        """
        started = time.perf_counter()
        seeded = self._of_repeat(repeat)
        if weights is None:
            return self._control(seeded, repeat)
        self._reset(seeded)
        self.model.set_weights_by_name(weights)
        self._wait.take()
        with reading(self._records, self._split):
            losses = self._train(seeded, started, weights, repeat)
        waited = self._wait.take().seconds
        trained = time.perf_counter()
        report = self._measure(seeded, weights, repeat, self._steps)
        active = set(self.space.active(weights))
        return {**report, "losses": {n: x for n, x in losses.items() if n in active},
                "seconds": {"train": trained - started, "wait": waited, **report["seconds"],
                            "total": time.perf_counter() - started}}

    @property
    def traces(self) -> int:
        """How often the train step was traced."""
        return self._wait.traces

    def _features(self, seeded: _Seeded, weights: Mapping[str, float] | None, repeat: int,
                  step: int) -> tuple[Features, Features | None]:
        """Those of the held-out and of the labelled clips, of the RGB encoder as it is."""
        with reading(self._records, self._split):
            # What training goes on with does not depend on these statistics.
            self._estimator.estimate(
                ClipViews({"rgb": rgb}, self._clip).view("rgb", "intact")
                for rgb in seeded.statistics)
            features = self._extract(self._heldout)
        labelled = None
        if self._labelled is not None:
            with reading(self._records, self._labelled_split):
                labelled = self._extract(self._labelled)
        if self._keep:
            kept_features.write(self._keep, kept_features.Kept(
                weights, repeat, step, features, labelled))
        return features, labelled

    def _measure(self, seeded: _Seeded, weights: Mapping[str, float] | None, repeat: int,
                 step: int) -> dict[str, Any]:
        """Fitness of the RGB encoder as it is; see `evaluate`."""
        started = time.perf_counter()
        features, labelled = self._features(seeded, weights, repeat, step)
        extracted = time.perf_counter()
        with self._one_thread.limit(limits=1):
            report = (self._fitness(features.embedding) if labelled is None else
                      self._fitness(features.embedding, labelled.embedding, labelled.labels))
        return {
            "fitness": report.fitness, "status": report.status, "zipf": report.zipf,
            "weak": report.weak, "histogram": np.asarray(report.histogram).tolist(),
            "spread": report.spread, "effective_rank": report.effective_rank,
            "clusters": {
                "shares": np.asarray(report.histogram).tolist(),
                "clips": [[features.ids[i] for i in row if i >= 0] for row in report.nearest]},
            "seconds": {"features": extracted - started, **report.seconds},
            "worker": f"{socket.gethostname()}:{os.getpid()}", "traces": self.traces}

    def _control(self, seeded: _Seeded, repeat: int) -> dict[str, Any]:
        """The untrained network's fitness, and what a step takes with all losses."""
        self._reset(seeded)
        self.model.set_weights_by_name(dict.fromkeys(self.space.names, 0.5))
        batches = iter(seeded.training)
        started = time.perf_counter()
        steps = min(TIMED_STEPS, self._steps)
        for _ in range(steps):
            float(self.model.train_function(batches)["total"])
        step = (time.perf_counter() - started) / steps
        self._reset(seeded)
        report = self._measure(seeded, None, repeat, 0)
        gpus = tf.config.list_logical_devices("GPU")
        return {**report, "seconds": {**self._times, "step": step, **report["seconds"]},
                "facts": {"steps": self._steps, "batch_size": self._batch_size,
                          "gpus": len(gpus), "replicas": self._strategy.num_replicas_in_sync}}

    def _train(self, seeded: _Seeded, started: float, weights: Mapping[str, float],
               repeat: int) -> dict[str, float]:
        progress = None if self._quiet else cli.progress(
            total=self._steps, desc="  candidate", unit="step")
        try:
            batches = iter(seeded.training)
            for step in range(1, self._steps + 1):
                report = self.model.train_function(batches)
                if progress is not None:
                    progress.update()
                if step % self._check_every == 0 or step == self._steps:
                    self._check(report, step, time.perf_counter() - started)
                if step in self._looks:
                    self._features(seeded, weights, repeat, step)
            return dict(zip(self.model.names, map(float, report["losses"]), strict=True))
        except tf.errors.ResourceExhaustedError as error:
            raise CandidateError(f"out of memory: {error.message.splitlines()[0]}") from error
        finally:
            if progress is not None:
                progress.close()

    def _check(self, report: Mapping[str, tf.Tensor], step: int, seconds: float) -> None:
        """Gives up a training that has diverged, or takes too long."""
        # The norm is of all gradients: a step that spoils the variables shows before its loss.
        if not np.isfinite(float(report["total"]) + float(report["gradient_norm"])):
            losses = dict(zip(self.model.names, map(float, report["losses"]), strict=True))
            wrong = [f"the loss {n} is {x}" for n, x in losses.items() if not np.isfinite(x)]
            raise CandidateError(
                f"diverged: {wrong[0] if wrong else 'the gradient is not finite'} after {step} "
                "steps")
        if self._time_limit and seconds > self._time_limit and step < self._steps:
            raise CandidateError(f"took {seconds:.0f} s for {step} of {self._steps} steps; the "
                                 f"limit is {self._time_limit:g} s")

    def _compile(self) -> None:
        """Traces and runs a step and the features, so that no candidate's time holds that."""
        seeded = self._seeded[0]
        self.model.set_weights_by_name(dict.fromkeys(self.space.names, 0.5))
        with reading(self._records, self._split):
            float(self.model.train_function(iter(seeded.training))["total"])
            # All of it where it is kept: a cache that was read in part is thrown away.
            self._extract(self._heldout if self._cache else self._heldout.take(1))
        self._reset(seeded)

    def _of_repeat(self, repeat: int) -> _Seeded:
        if repeat not in self._seeded:
            # The search's own, and that of one repeat: batches are large.
            self._seeded = {0: self._seeded[0], repeat: self._make_seeded(repeat)}
        return self._seeded[repeat]

    def _make_seeded(self, repeat: int) -> _Seeded:
        """Initial values and batches of a repeat."""
        records, split, seed = self._records, self._split, self._seed + repeat
        training = training_clips(
            records, split, self._clip, batch_size=self._batch_size, seed=seed, part="fit",
            modalities=self.model.modalities, other=self.model.needs_other).take(self._steps)
        if repeat:  # Draws on the device are a function of the position in the stream.
            training = training.map(
                lambda batch: batch | {"index": batch["index"] + (repeat << 40)})
        statistics = training.take(self._statistics_steps).map(lambda batch: batch["rgb"])
        if self._cache:
            training, statistics = training.cache(), statistics.cache()
            # A cache is kept once it was read to its end, where training stops one step short of.
            with reading(records, split):
                for _ in training if self._quiet else cli.progress(
                        training, total=self._steps, desc="decoding", unit="batch"):
                    pass
        return _Seeded(self._initial(repeat), distribute(self._strategy, training), statistics)

    def _initial(self, repeat: int) -> list[tf.Tensor]:
        """Where the variables of the model and of its optimiser start."""
        if not repeat:
            return [tf.identity(variable) for variable in self._variables]
        with self._strategy.scope():
            variables = self._make_model(self._seed + repeat).variables
        return [*map(tf.identity, variables), *self._seeded[0].initial[len(variables):]]

    def _testing(self, split: str, part: str) -> tf.data.Dataset:
        """Every clip of a split once, cached."""
        clips = testing_clips(
            self._records, split, self._clip, batch_size=self._batch_size, part=part,
            modalities=("rgb",)).map(
                lambda batch: {name: batch[name] for name in ("rgb", "id", "label")})
        return clips.cache() if self._cache else clips

    def _reset(self, seeded: _Seeded) -> None:
        for variable, value in zip(self._variables, seeded.initial, strict=True):
            variable.assign(value)
