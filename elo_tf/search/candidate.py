"""What a search finds out: of a candidate, of the untrained network, of a generation."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

OK = "ok"
FAILED = "failed: "


def check(condition: bool, message: str) -> None:
    """Raises ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    return (isinstance(value, (int, float)) and not isinstance(value, bool)
            and math.isfinite(value))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What is measured of a network's features.

    Attributes:
      repeat: 0 for the search's own seed; others give other initial variables, order and draws.
      status: "ok" or "failed: <reason>".
      zipf: divergence of the cluster sizes from Zipf's law, in nats, lower is better; None where
        the guards failed the features.
      weak: accuracy on labelled clips, in [0, 1]; None without labels, or where failed.
      histogram: each cluster's share, largest first.
      spread: of the features; None where unknown.
      effective_rank: of the features; None where unknown.
      seconds: wall time by part.
    """

    repeat: int = 0
    status: str = OK
    zipf: float | None = None
    weak: float | None = None
    histogram: tuple[float, ...] = ()
    spread: float | None = None
    effective_rank: float | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check(self.status == OK or self.status.startswith(FAILED),
              f"status is {self.status!r}; it must be 'ok' or start with 'failed: '")
        check(isinstance(self.repeat, int) and self.repeat >= 0,
              f"repeat is {self.repeat!r}; it must be 0 or more")
        for name in ("zipf", "weak", "spread", "effective_rank"):
            value = getattr(self, name)
            check(value is None or finite(value), f"{name} is {value!r}; it must be a number")

    @property
    def ok(self) -> bool:
        """Whether the features passed."""
        return self.status == OK


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate(Measured):
    """One weight vector and what became of it.

    Attributes:
      generation: from 0.
      index: place in its generation, from 0.
      weights: of all losses by name, as asked (before any dead zone).
      fitness: what guides the search: finite, lower is better; the search's failed_fitness where
        the status is not ok.
      losses: raw losses by name, of those that were trained; None for one that is not finite.
      seconds: wall time by part: total, train, features, cluster, weak; and wait, the part of
        train for which the devices waited for data.
      worker: "host:pid" of the process that evaluated it.
    """

    generation: int
    index: int
    weights: Mapping[str, float]
    fitness: float
    losses: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    worker: str = ""

    def __post_init__(self):
        super().__post_init__()
        check(isinstance(self.weights, Mapping) and all(map(finite, self.weights.values())),
              "weights must be finite numbers by name")
        check(finite(self.fitness), f"fitness is {self.fitness!r}; it must be a finite number")

    @property
    def place(self) -> tuple[int, int]:
        """(generation, index), by which candidates are ordered."""
        return self.generation, self.index


@dataclasses.dataclass(frozen=True, kw_only=True)
class Control(Measured):
    """The untrained network, measured as candidates are: a random encoder.

    Attributes:
      seconds: build (network, and decoding where it is cached), compile (the first step), step
        (one more), features, cluster, weak.
      facts: of the worker that measured it: devices, gpus, cores.
    """

    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """A generation that the strategy was told of.

    Attributes:
      generation: from 0.
      best: least fitness of its candidates.
      mean: the weights at the strategy's mean after it, by name.
      sigma: the strategy's step size after it.
      axes: leading axes of the search distribution: (length, {name: component}) each.
    """

    generation: int
    best: float
    mean: Mapping[str, float]
    sigma: float
    axes: tuple[tuple[float, Mapping[str, float]], ...] = ()

    def __post_init__(self):
        check(finite(self.best) and finite(self.sigma), "best and sigma must be finite numbers")
