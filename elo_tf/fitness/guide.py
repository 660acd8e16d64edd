"""Both fitnesses of a candidate, and the one that guides the search."""

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Literal

import gin
import numpy as np
from absl import logging

from elo_tf.errors import UserError
from elo_tf.fitness import guards
from elo_tf.fitness.fitness import ZipfFitness
from elo_tf.fitness.weak import WeakFitness

Guide = Literal["zipf", "weak"]


@dataclasses.dataclass(frozen=True)
class CandidateFitness:
    """What both fitnesses say of an encoder.

    Attributes:
      fitness: what guides the search, lower is better: `zipf`, or 1 - `weak`; infinite where the
        guards failed the encoder, whatever guides.
      status: "ok" or "failed: <reason>".
      zipf: divergence from Zipf's law in nats, lower is better; None where failed.
      weak: accuracy in [0, 1], higher is better; None where failed or without enough labels.
      histogram: float64 [k], each cluster's share of the unlabelled clips, largest first; empty
        where failed.
      spread: of the unlabelled features: see `guards.spread`.
      effective_rank: of the unlabelled features: see `guards.effective_rank`.
      nearest: int64 [k, n], the unlabelled clips nearest to each centre: see `FitnessReport`.
      seconds: wall time of "cluster" (guards and Zipf) and of "weak".
    """

    fitness: float
    status: str
    zipf: float | None
    weak: float | None
    histogram: np.ndarray
    spread: float
    effective_rank: float
    nearest: np.ndarray
    seconds: Mapping[str, float]


@gin.register
class Fitness:
    """Zipf and weak fitness of the features of one encoder; one of them guides the search.

    Where Zipf guides, labels move neither fitness nor status: the search stays unsupervised, and
    the weak accuracy is only recorded beside it (the paper's Figure 9 compares the two).
    """

    def __init__(self, zipf: ZipfFitness = gin.REQUIRED, weak: WeakFitness = gin.REQUIRED,
                 guide: Guide = "zipf"):
        """Sets both and the choice.

        Args:
          zipf: of the unlabelled features.
          weak: of the labelled features.
          guide: "zipf", the paper's ELo, or "weak", its ELo-weak.

        Raises:
          UserError: `guide` is neither.
        """
        if guide not in ("zipf", "weak"):
            raise UserError(f"Fitness.guide is {guide!r}; it must be 'zipf' or 'weak'")
        self.zipf = zipf
        self.weak = weak
        self.guide = guide

    def check_labels(self, labels: np.ndarray | None) -> bool:
        """Whether the weak fitness can be measured with these labels.

        A search may call it before it trains or extracts anything.

        Args:
          labels: integers [M], -1 where a clip has none; None where there are no labelled clips.

        Raises:
          UserError: it cannot, and it is the guide.
        """
        if labels is None or not len(labels):
            reason = ("there are no labelled clips: give records with a labelled split, or set "
                      "Fitness.guide = 'zipf'")
        else:
            reason = self.weak.lacking(labels)
        if reason and self.guide == "weak":
            raise UserError(f"Fitness.guide is 'weak', but {reason}")
        if reason and labels is not None and len(labels):
            logging.log_first_n(
                logging.WARNING, "the weak fitness is not recorded: %s", 1, reason)
        return not reason

    def __call__(self, features: np.ndarray, labelled_features: np.ndarray | None = None,
                 labels: np.ndarray | None = None) -> CandidateFitness:
        """Measures what can be measured.

        Args:
          features: [N, D] of unlabelled held-out clips, as the encoder gives them.
          labelled_features: [M, D] of labelled clips, from the same encoder, or None.
          labels: integers [M], -1 where a clip has none, or None.

        Returns:
          Both fitnesses with their evidence.

        Raises:
          UserError: there are fewer clips than clusters, or the guide is "weak" and the labels do
            not suffice.
        """
        measurable = self.check_labels(None if labelled_features is None else labels)
        report = self.zipf(features)
        started = time.perf_counter()
        status, weak = report.status, None
        if (measurable and status == "ok" and labelled_features is not None
                and labels is not None):
            # A collapsed encoder's accuracy is the largest class's share: no small one.
            known = np.asarray(labelled_features)[np.asarray(labels) >= 0]
            verdict = guards.check_features(known).status
            if verdict == "ok":
                weak = self.weak(labelled_features, labels)
            elif self.guide == "weak":
                status = f"{verdict} (labelled clips)"
        fitness = math.inf
        if status == "ok":
            # `check_labels` has seen to it that what guides is measured.
            fitness = (report.fitness if self.guide == "zipf" or weak is None else 1.0 - weak)
        return CandidateFitness(
            fitness=fitness, status=status,
            zipf=report.fitness if report.status == "ok" else None, weak=weak,
            histogram=report.histogram, spread=report.spread,
            effective_rank=report.effective_rank, nearest=report.nearest,
            seconds={"cluster": report.seconds, "weak": time.perf_counter() - started})
