"""The journal of a search: JSON lines that survive being killed at any moment.

One object a line, in this order: `search` (the header), then for each generation its `candidate`
lines by index and a `generation` line, at last `end`. Each line is written by one call and reaches
the disk before the search goes on. A line counts once its newline is there: what a kill left of a
half-written one is cut off when the journal is opened again, and ignored by readers. Floats are
written by Python's repr, which gives back the same float64.
"""

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from elo_tf.errors import UserError

VERSION = 1
OK = "ok"
FAILED = "failed: "


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _finite(value: Any) -> bool:
    return (isinstance(value, (int, float)) and not isinstance(value, bool)
            and math.isfinite(value))


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One weight vector and what became of it.

    Attributes:
      generation: from 0.
      index: place in its generation, from 0.
      weights: the vector by name, as asked (before any dead zone).
      fitness: finite, lower is better; the search's failed_fitness where the status is not ok.
      status: "ok" or "failed: <reason>".
      losses: raw held-out losses by name; None for one that is not finite.
      histogram: each cluster's share, largest first.
      spread: of the features; None where unknown.
      effective_rank: of the features; None where unknown.
      seconds: wall time by part: total, train, features, cluster; and wait, the part of train for
        which the devices waited for data.
      worker: "host:pid" of the process that evaluated it.
    """

    generation: int
    index: int
    weights: Mapping[str, float]
    fitness: float
    status: str = OK
    losses: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    histogram: tuple[float, ...] = ()
    spread: float | None = None
    effective_rank: float | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    worker: str = ""

    def __post_init__(self):
        _check(isinstance(self.weights, Mapping) and all(map(_finite, self.weights.values())),
               "weights must be finite numbers by name")
        _check(_finite(self.fitness), f"fitness is {self.fitness!r}; it must be a finite number")
        _check(self.status == OK or self.status.startswith(FAILED),
               f"status is {self.status!r}; it must be 'ok' or start with 'failed: '")

    @property
    def ok(self) -> bool:
        """Whether the candidate has a fitness of its own."""
        return self.status == OK


@dataclasses.dataclass(frozen=True)
class Generation:
    """A generation that the strategy was told of.

    Attributes:
      generation: from 0.
      best: least fitness of its candidates.
      mean: the strategy's mean after it, by name.
      sigma: the strategy's step size after it.
    """

    generation: int
    best: float
    mean: Mapping[str, float]
    sigma: float

    def __post_init__(self):
        _check(_finite(self.best) and _finite(self.sigma), "best and sigma must be finite numbers")


@dataclasses.dataclass
class Journal:
    """What a journal holds.

    Attributes:
      header: the `search` line: version, names, strategy, seed, population, generations and
        whatever else the search was given.
      candidates: in order.
      generations: in order; the last one's candidates may lack their generation.
      end: {"reason", "best"} of a finished search, else None.
      size: bytes of whole lines.
    """

    header: dict[str, Any] = dataclasses.field(default_factory=dict)
    candidates: list[Candidate] = dataclasses.field(default_factory=list)
    generations: list[Generation] = dataclasses.field(default_factory=list)
    end: dict[str, Any] | None = None
    size: int = 0

    @property
    def best(self) -> Candidate | None:
        """The candidate of least fitness that did not fail, the first of equals."""
        return min((c for c in self.candidates if c.ok), key=lambda c: c.fitness, default=None)

    def add(self, record: Mapping[str, Any]) -> None:
        """Takes in the next record.

        Raises:
          ValueError: it is not a valid record, or not one that may come next.
        """
        fields = dict(record)
        kind = fields.pop("type", None)
        _check(self.end is None, f"a {kind!r} record after the end")
        _check(bool(self.header) != (kind == "search"), "the first record, and no other, must be "
               f"'search'; this one is {kind!r}")
        generation, index = divmod(len(self.candidates), self.header.get("population", 1))
        try:
            if kind == "search":
                _check(fields["version"] == VERSION,
                       f"version {fields['version']!r}, this program writes {VERSION}")
                _check(isinstance(fields["population"], int) and fields["population"] > 0
                       and isinstance(fields["names"], list),
                       "names must be a list and population a positive integer")
                self.header = fields
            elif kind == "candidate":
                fields["histogram"] = tuple(fields.get("histogram", ()))
                candidate = Candidate(**fields)
                _check((candidate.generation, candidate.index) == (generation, index)
                       and len(self.generations) == generation,
                       f"candidate {candidate.index} of generation {candidate.generation} is out "
                       "of order")
                _check(list(candidate.weights) == self.header["names"],
                       "the weights' names are not the header's")
                self.candidates.append(candidate)
            elif kind == "generation":
                record_ = Generation(**fields)
                _check(index == 0 and record_.generation == len(self.generations) == generation - 1,
                       f"generation {record_.generation} is out of order")
                self.generations.append(record_)
            elif kind == "end":
                _check(isinstance(fields["reason"], str) and isinstance(fields["best"], dict),
                       "reason must be a text and best an object")
                self.end = fields
            else:
                raise ValueError(f"unknown type {kind!r}")
        except KeyError as error:
            raise ValueError(f"the {kind} record has no {error}") from error
        except TypeError as error:
            raise ValueError(f"the {kind} record is malformed: {error}") from error


def read_journal(path: str | os.PathLike) -> Journal:
    """Reads the journal of a search, finished or not; one that does not exist is empty.

    Args:
      path: of journal.jsonl. It is not changed, and may be in use by a running search.

    Returns:
      The journal.

    Raises:
      UserError: a whole line is not a valid record, or not one that may stand there.
    """
    path = pathlib.Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    journal = Journal(size=content.rfind(b"\n") + 1)
    for number, line in enumerate(content[:journal.size].splitlines(), start=1):
        try:
            record = json.loads(line)
            _check(isinstance(record, dict), "not an object")
            journal.add(record)
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: {error}; this file was changed by something other than "
                "a search. Cut it before that line to resume from there, or use a new "
                "--run_dir") from error
    return journal


def _strict(value: Any) -> Any:
    """`value` as JSON holds it: NumPy becomes Python, what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(k): _strict(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _strict(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_strict(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class JournalWriter:
    """Appends records to a journal; `journal` is what it holds, read back and new."""

    def __init__(self, path: pathlib.Path, descriptor: int):
        self.path = path
        self.journal = read_journal(path)
        self._descriptor = descriptor
        if os.fstat(descriptor).st_size > self.journal.size:
            os.ftruncate(descriptor, self.journal.size)

    def write(self, kind: str, **fields: Any) -> None:
        """Appends one record and returns when it is on the disk.

        Args:
          kind: the record's type.
          **fields: the rest of it.

        Raises:
          ValueError: the record may not come next.
          OSError: the disk is full or gone.
        """
        line = json.dumps({"type": kind, **_strict(fields)}, allow_nan=False)
        # What is checked is what a reader will see.
        self.journal.add(json.loads(line))
        data = line.encode() + b"\n"
        written = os.write(self._descriptor, data)
        if written != len(data):
            raise OSError(f"{self.path}: only {written} of {len(data)} bytes of a record could be "
                          "written; is the disk full?")
        os.fsync(self._descriptor)
        self.journal.size += len(data)


@contextlib.contextmanager
def open_journal(path: str | os.PathLike) -> Iterator[JournalWriter]:
    """Opens a journal for appending, making it where there is none.

    A half-written last line is cut off. The file is locked until the block ends or the process
    dies.

    Args:
      path: of journal.jsonl; its folder must exist.

    Yields:
      The writer.

    Raises:
      UserError: another process is writing it, or it holds an invalid record.
    """
    path = pathlib.Path(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{path} is in use by another search; wait for it to end, or use another "
                "--run_dir") from error
        # The file's name must reach the disk too.
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        yield JournalWriter(path, descriptor)
    finally:
        os.close(descriptor)
