"""Folders of record shards, one or a mixture of several: which files a split has, and its labels.

Shards are named `<split>-00003-of-00010`, with the suffix .tfrecord, .tfrecords or none (as DMVR
writes them). A set is used only when it is whole.
"""

import dataclasses
import math
import os
import pathlib
import re
import struct
import threading
from collections.abc import Sequence
from typing import Literal

import gin
from absl import logging

from elo_tf.data import schema
from elo_tf.errors import UserError

SHARD = re.compile(r"-(\d{5})-of-(\d{5})(\.tfrecords?)?$")
FRAMING_BYTES = 16  # of a TFRecord around its record: a length, and two checksums
SAMPLED_SHARDS = 4
SAMPLED_RECORDS = 256


class Skipped:
    """The damaged records that `on_corrupt = "skip"` left out: each is counted and logged once.

    Attributes:
      records: set of (shard, number in the shard) of those that could not be decoded.
      cut: {shard: number} of the shards that could not be read from that record on.
    """

    def __init__(self):
        self.records: set[tuple[str, int]] = set()
        self.cut: dict[str, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Records that could not be decoded, and shards that could not be read to their end."""
        return len(self.records) + len(self.cut)

    def add_record(self, shard: str, number: int) -> None:
        """Notes a record that cannot be decoded."""
        with self._lock:
            if (shard, number) not in self.records:
                self.records.add((shard, number))
                logging.warning("skipped record %d of %s: it cannot be decoded", number, shard)

    def add_cut(self, shard: str, number: int) -> None:
        """Notes a shard of which only the first `number` records can be read."""
        with self._lock:
            if shard not in self.cut:
                self.cut[shard] = number
                logging.warning("skipped what follows the first %d records of %s: the file is "
                                "damaged there", number, shard)


@gin.register
@dataclasses.dataclass(frozen=True)
class Records:
    """A folder of record shards, as tools/convert_videos, DMVR or MediaSequence write it.

    Attributes:
      directory: the folder.
      heldout_percent: share of the unlabelled clips, chosen by a hash of their video, that is
        never trained on: the search measures its fitness and the final training its losses on
        them (our choice).
      on_corrupt: "error", or "skip" to leave damaged records out: they are counted in `skipped`
        and logged. Where the framing of a shard is damaged, the rest of that shard is lost.
      shuffle_megabytes: about what the shuffle buffer holds: as many serialized records as that
        makes of their mean size, which is that of some; where long ones come together, it holds
        more. Each source of a mixture has a buffer of its own, and a few records more are held
        for each shard being read.
      frame_rate: of records that do not say theirs, in frames a second; 0: that is an error.
      sample_rate: of the sound of records that do not say theirs, in Hz; 0: that is an error.
      skipped: what was left out so far.
    """

    directory: str = gin.REQUIRED
    heldout_percent: int = 20
    on_corrupt: Literal["error", "skip"] = "error"
    shuffle_megabytes: float = 256
    frame_rate: float = 0.0
    sample_rate: float = 0.0
    skipped: Skipped = dataclasses.field(default_factory=Skipped, init=False, repr=False,
                                         compare=False)

    def __post_init__(self):
        if not 0 <= self.heldout_percent <= 100:
            raise UserError(f"Records.heldout_percent is {self.heldout_percent}; it must be "
                            "between 0 and 100")
        if self.on_corrupt not in ("error", "skip"):
            raise UserError(f"Records.on_corrupt is {self.on_corrupt!r}; it must be 'error' or "
                            "'skip'")
        if not 0 < self.shuffle_megabytes < math.inf:
            raise UserError(f"Records.shuffle_megabytes is {self.shuffle_megabytes}; it must be "
                            "positive")
        for name in ("frame_rate", "sample_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"Records.{name} is {getattr(self, name)}; it must be positive, "
                                "or 0")

    def weighted(self) -> list[tuple["Records", float]]:
        """The one source of this set; see `MixedRecords.weighted`."""
        return [(self, 1.0)]

    def splits(self) -> list[str]:
        """The splits in the folder, sorted."""
        return sorted({SHARD.split(p.name)[0] for p in pathlib.Path(self.directory).glob("*-of-*")
                       if SHARD.search(p.name)})

    def shards(self, split: str) -> list[str]:
        """The shards of a split, in order.

        Raises:
          UserError: if the folder or the split is missing, or a shard of it is.
        """
        folder = pathlib.Path(self.directory)
        if not folder.is_dir():
            raise UserError(f"no folder {folder}; make one with tools/convert_videos")
        found: dict[tuple[int, str], dict[int, str]] = {}
        for path in sorted(folder.glob("*-of-*")):
            match = SHARD.search(path.name)
            if match and path.name[:match.start()] == split:
                found.setdefault((int(match[2]), match[3] or ""), {})[int(match[1])] = str(path)
        if not found:
            raise UserError(
                f"{folder} has no records of split {split!r} "
                f"(it has: {', '.join(self.splits()) or 'no records at all'})")
        if len(found) > 1:
            first = [f"{split}-00000-of-{count:05d}{suffix}" for count, suffix in sorted(found)]
            raise UserError(f"{folder} mixes the shard sets of {' and '.join(first)}; keep one")
        ((count, suffix), shards), = found.items()
        missing = [i for i in range(count) if i not in shards]
        if missing:
            raise UserError(f"{folder} lacks {split}-{missing[0]:05d}-of-{count:05d}{suffix} "
                            f"({len(missing)} of {count} shards are missing); convert again")
        return [shards[i] for i in range(count)]

    def shuffle_records(self, split: str) -> int:
        """How many records the shuffle buffer holds: `shuffle_megabytes` over their mean size."""
        size = mean_record_bytes(self.shards(split))
        return max(1, int(self.shuffle_megabytes * 1e6 / size)) if size else 1

    def labels(self) -> list[str]:
        """The label map, empty if there is none."""
        path = pathlib.Path(self.directory) / schema.LABELS_FILE
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


@gin.register
@dataclasses.dataclass(frozen=True)
class MixedRecords:
    """Several record sets, drawn from by weight: takes the place of `Records` everywhere.

    In training each clip's source is drawn by weight, so that a small set is repeated more often
    than a large one; testing reads one after the other. Each source has its own shuffle
    buffer, and every source must have the split. All hold the same share out, so that a video
    that several of them have is held out in each. Labels count only where all sources have the
    same label map.

    Attributes:
      sources: the sets.
      weights: of the sources, in any unit; equal by default. One of weight 0 is not opened.
    """

    sources: Sequence[Records] = gin.REQUIRED
    weights: Sequence[float] | None = None

    def __post_init__(self):
        if not self.sources:
            raise UserError("MixedRecords.sources is empty; name at least one Records()")
        if self.weights is not None:
            self._check_weights(self.weights)
        shares = sorted({source.heldout_percent for source, _ in self.weighted()})
        if len(shares) > 1:
            raise UserError("the sources of MixedRecords have different heldout_percent, "
                            f"{' and '.join(map(str, shares))}: a video that two of them have "
                            "would be both trained on and held out; give all the same")

    def _check_weights(self, weights: Sequence[float]) -> None:
        if len(weights) != len(self.sources):
            raise UserError(f"MixedRecords.weights has {len(weights)} numbers for "
                            f"{len(self.sources)} sources; give one for each")
        if not all(math.isfinite(w) and w >= 0 for w in weights) or not sum(weights):
            raise UserError(f"MixedRecords.weights is {list(weights)}; weights are 0 or "
                            "more, and one at least is positive")

    def weighted(self) -> list[tuple[Records, float]]:
        """The sources of positive weight, with their shares of the training clips."""
        weights = self.weights or [1.0] * len(self.sources)
        total = sum(weights)
        return [(source, weight / total)
                for source, weight in zip(self.sources, weights, strict=True) if weight]

    @property
    def directory(self) -> str:
        """The folders, for messages."""
        return " + ".join(source.directory for source, _ in self.weighted())

    @property
    def heldout_percent(self) -> int:
        """That of all sources."""
        return self.weighted()[0][0].heldout_percent

    def splits(self) -> list[str]:
        """The splits that all sources have, sorted."""
        return sorted(set.intersection(*(set(s.splits()) for s, _ in self.weighted())))

    def labels(self) -> list[str]:
        """The label map that all sources share, empty if they do not."""
        first, *others = [source.labels() for source, _ in self.weighted()]
        return first if all(labels == first for labels in others) else []


def mean_record_bytes(shards: Sequence[str]) -> float:
    """Mean size of serialized records, from the framing of the first ones of a few shards.

    Args:
      shards: TFRecord files.

    Returns:
      Bytes; 0.0 where there is no record. A function of the files alone.
    """
    step = max(1, len(shards) // SAMPLED_SHARDS)
    sizes = [size for path in shards[::step] for size in _record_bytes(path)]
    return sum(sizes) / len(sizes) if sizes else 0.0


def _record_bytes(path: str) -> list[int]:
    """Sizes of the first records of a TFRecord file."""
    sizes: list[int] = []
    end = os.path.getsize(path)
    with open(path, "rb", buffering=0) as file:
        while len(sizes) < SAMPLED_RECORDS:
            header = file.read(8)
            if len(header) < 8:
                break
            size, = struct.unpack("<Q", header)
            if file.tell() + size + FRAMING_BYTES - 8 > end:
                break  # truncated, or no TFRecord: reading will say so
            sizes.append(size)
            file.seek(size + FRAMING_BYTES - 8, os.SEEK_CUR)
    return sizes
