"""The journal of a search: JSON lines that survive being killed at any moment.

    search       the first line: names of the losses, strategy, seeds, sizes, configuration, commit
    control      the untrained network
    forecast     what the search will cost
    asked        the strategy proposed so many candidates
    started      a worker began one
    candidate    what became of it; in the order in which they end, some of them again (`repeat`)
    generation   the strategy was told of all of them
    end          why the search ended, and with which candidate

Each line is written by one call and reaches the disk before the search goes on. A line counts once
its newline is there: what a kill left of a half-written one is cut off when the journal is opened
again, and ignored by readers. Weights and losses are lists in the order of the header's names;
floats are written by Python's repr, which gives back the same float64.
"""

import bisect
import contextlib
import dataclasses
import fcntl
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from elo_tf.errors import UserError
from elo_tf.search.candidate import Candidate, Control, Generation, check

VERSION = 2

# Six digits are enough for what is only looked at.
_ROUNDED = ("losses", "histogram", "seconds", "spread", "effective_rank")


@dataclasses.dataclass
class Journal:
    """What a journal holds.

    Attributes:
      header: the `search` line: version, names, strategy, seed, population, generations and
        whatever else the search was given.
      controls: the untrained network, by repeat.
      forecast: what the search was expected to cost.
      candidates: by generation and index; those of the last generation may not be whole.
      repeats: the same evaluated again with other seeds, in the order in which they ended.
      started: what was begun: generation, index, repeat, attempt and worker of each.
      generations: in order.
      end: {"reason", "best"} of a finished search, else None.
      size: bytes of whole lines.
    """

    header: dict[str, Any] = dataclasses.field(default_factory=dict)
    controls: dict[int, Control] = dataclasses.field(default_factory=dict)
    forecast: dict[str, Any] | None = None
    candidates: list[Candidate] = dataclasses.field(default_factory=list)
    repeats: list[Candidate] = dataclasses.field(default_factory=list)
    started: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    generations: list[Generation] = dataclasses.field(default_factory=list)
    end: dict[str, Any] | None = None
    size: int = 0
    _asked: dict[int, int] = dataclasses.field(default_factory=dict)
    _seen: dict[tuple[int, int, int], Candidate] = dataclasses.field(default_factory=dict)

    @property
    def best(self) -> Candidate | None:
        """The candidate that the search chose; before its end, that of least fitness so far."""
        if self.end is not None:
            return self.find(self.end["best"]["generation"], self.end["best"]["index"])
        return min((c for c in self.candidates if c.ok), key=lambda c: c.fitness, default=None)

    def find(self, generation: int, index: int, repeat: int = 0) -> Candidate | None:
        """The candidate of this place, if it has ended."""
        return self._seen.get((generation, index, repeat))

    def get(self, generation: int, index: int, repeat: int = 0) -> Candidate:
        """The candidate of this place, which has ended."""
        return self._seen[generation, index, repeat]

    def repeats_of(self, candidate: Candidate) -> list[Candidate]:
        """The same weights with other seeds, by seed."""
        return sorted((x for x in self.repeats if x.place == candidate.place),
                      key=lambda x: x.repeat)

    def asked(self, generation: int) -> int | None:
        """How many candidates the strategy proposed in a generation."""
        return self._asked.get(generation)

    def add(self, record: Mapping[str, Any]) -> None:
        """Takes in the next record.

        Raises:
          ValueError: it is not a valid record, or not one that may come next.
        """
        fields = dict(record)
        kind = fields.pop("type", None)
        check(self.end is None, f"a {kind!r} record after the end")
        check(bool(self.header) != (kind == "search"), "the first record, and no other, must be "
              f"'search'; this one is {kind!r}")
        adders: dict[Any, Callable[[dict[str, Any]], None]] = {
            "search": self._add_header, "control": self._add_control,
            "forecast": self._add_forecast, "asked": self._add_asked,
            "started": self.started.append, "candidate": self._add_candidate,
            "generation": self._add_generation, "end": self._add_end}
        check(kind in adders, f"unknown type {kind!r}")
        try:
            adders[kind](fields)
        except KeyError as error:
            raise ValueError(f"the {kind} record has no {error}") from error
        except TypeError as error:
            raise ValueError(f"the {kind} record is malformed: {error}") from error

    def _add_header(self, fields: dict[str, Any]) -> None:
        check(fields["version"] == VERSION,
              f"version {fields['version']!r}, this program writes {VERSION}")
        check(isinstance(fields["names"], list), "names must be a list")
        self.header = fields

    def _add_control(self, fields: dict[str, Any]) -> None:
        control = Control(**fields | {"histogram": tuple(fields.get("histogram", ()))})
        check(control.repeat not in self.controls, f"a second control of repeat {control.repeat}")
        self.controls[control.repeat] = control

    def _add_forecast(self, fields: dict[str, Any]) -> None:
        self.forecast = fields

    def _add_asked(self, fields: dict[str, Any]) -> None:
        generation, size = fields["generation"], fields["size"]
        check(generation == len(self.generations) and generation not in self._asked,
              f"generation {generation} is out of order")
        check(isinstance(size, int) and size > 0, f"size is {size!r}; it must be positive")
        self._asked[generation] = size

    def _add_candidate(self, fields: dict[str, Any]) -> None:
        names = self.header["names"]
        for key in ("weights", "losses"):
            values = fields.get(key) or [None] * len(names)
            check(isinstance(values, list) and len(values) == len(names),
                  f"{key} must be a list of {len(names)} numbers")
            fields[key] = dict(zip(names, values, strict=True))
        trained = fields.pop("trained", None)
        if trained is not None:  # losses that are not finite are null, like those left out
            fields["losses"] = {n: v for n, v in fields["losses"].items() if n in set(trained)}
        else:
            fields["losses"] = {n: v for n, v in fields["losses"].items() if v is not None}
        fields["histogram"] = tuple(fields.get("histogram", ()))
        candidate = Candidate(**fields)
        place = (*candidate.place, candidate.repeat)
        check(place not in self._seen, f"a second candidate {candidate.index} of generation "
              f"{candidate.generation} with repeat {candidate.repeat}")
        if candidate.repeat:
            check((*candidate.place, 0) in self._seen, f"candidate {candidate.index} of "
                  f"generation {candidate.generation} is repeated before its first evaluation")
            self.repeats.append(candidate)
        else:
            size = self._asked.get(candidate.generation, 0)
            check(candidate.generation == len(self.generations) and 0 <= candidate.index < size,
                  f"candidate {candidate.index} of generation {candidate.generation} is out of "
                  "order")
            bisect.insort(self.candidates, candidate, key=lambda x: x.place)
        self._seen[place] = candidate

    def _add_generation(self, fields: dict[str, Any]) -> None:
        generation = Generation(**fields | {"axes": tuple(
            (length, direction) for length, direction in fields.get("axes", ()))})
        number = generation.generation
        check(number == len(self.generations) and number in self._asked and all(
            self.find(number, index) for index in range(self._asked[number])),
            f"generation {number} is out of order")
        self.generations.append(generation)

    def _add_end(self, fields: dict[str, Any]) -> None:
        check(isinstance(fields["reason"], str) and isinstance(fields["best"], dict),
              "reason must be a text and best an object")
        check(self.find(fields["best"]["generation"], fields["best"]["index"]) is not None,
              "the best candidate is not in the journal")
        self.end = fields


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
            check(isinstance(record, dict), "not an object")
            journal.add(record)
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: {error}; this file was changed by something other than "
                "a search. Cut it before that line to resume from there, or use a new "
                "--run_dir") from error
    return journal


def candidate_record(candidate: Candidate) -> dict[str, Any]:
    """A candidate as its line holds it, without the type."""
    fields = dict(vars(candidate))
    names = list(candidate.weights)
    fields["weights"] = list(candidate.weights.values())
    if any(loss is None or not math.isfinite(loss) for loss in candidate.losses.values()):
        fields["trained"] = list(candidate.losses)
    fields["losses"] = ([candidate.losses.get(name) for name in names] if candidate.losses
                        else [])
    return fields


def _plain(value: Any) -> Any:
    """`value` as JSON holds it: NumPy becomes Python, what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


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
          OSError: the disk is full or gone; what was written of the record is cut off later.
        """
        plain = _plain(fields)
        plain |= {name: _rounded(plain[name]) for name in _ROUNDED if name in plain}
        line = json.dumps({"type": kind, **plain}, allow_nan=False, separators=(",", ":"))
        data = line.encode() + b"\n"
        # What is checked is what a reader will see.
        self.journal.add(json.loads(line))
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):  # The disk is about full: the next call says so.
                written += os.write(self._descriptor, data[written:])
            os.fsync(self._descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
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
