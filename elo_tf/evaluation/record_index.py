"""Who is in a split: ids, videos and labels, from the contexts of its records alone.

A record's context comes first in its bytes, so that of a record of a megabyte one disk block is
read, and nothing is decoded.
"""

import dataclasses
import hashlib
import json
import os
import struct
from collections.abc import Iterator

import tensorflow as tf
from google.protobuf import message

from elo_tf import cli
from elo_tf.data import schema
from elo_tf.data.record_set import FRAMING_BYTES, MixedRecords, Records

_HEAD = 4096  # bytes read of a record at first
_LENGTH_BYTES = 12  # of a TFRecord before its record: the length, and its checksum
_CONTEXT_TAG = 0x0A  # field 1 of a SequenceExample, of bytes


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """The records of a split.

    Attributes:
      ids: of the records, as `parsing.record_id` gives them.
      videos: what each was cut from: its media id, or else its id.
      labels: of each; -1 without one.
      fingerprint: SHA-256, in hexadecimal, over the sorted ids with their labels, and the names
        and sizes of the shards.
    """

    ids: tuple[str, ...]
    videos: tuple[str, ...]
    labels: tuple[int, ...]
    fingerprint: str


def read_index(records: Records | MixedRecords, split: str,
               desc: str | None = None) -> RecordIndex:
    """Reads the contexts of a split.

    What is damaged is left out here; reading its frames will say so.

    Args:
      records: the record set.
      split: of it.
      desc: title of a progress bar over shards; none is shown without it.

    Raises:
      UserError: if the split or a shard is missing.
    """
    shards = [path for source, _ in records.weighted() for path in source.shards(split)]
    found: list[tuple[str, str, int]] = []
    for path in cli.progress(shards, desc=desc, unit="shard") if desc else shards:
        found += _records(path)
    ids, videos, labels = map(tuple, zip(*found, strict=True)) if found else ((), (), ())
    content = [sorted(zip(ids, labels, strict=True)),
               [(os.path.basename(path), os.path.getsize(path)) for path in shards]]
    fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return RecordIndex(ids, videos, labels, fingerprint)


def _records(path: str) -> Iterator[tuple[str, str, int]]:
    """Id, video and label of each record of a TFRecord file."""
    end = os.path.getsize(path)
    with open(path, "rb", buffering=0) as file:
        place = 0
        while place + FRAMING_BYTES <= end:
            file.seek(place)
            block = file.read(_LENGTH_BYTES + _HEAD)
            size, = struct.unpack_from("<Q", block)
            start = place + _LENGTH_BYTES
            place += size + FRAMING_BYTES
            if place > end:
                return

            def read(length: int, start: int = start) -> bytes:
                file.seek(start)
                return file.read(length)

            head = block[_LENGTH_BYTES:][:size]
            length = _context_length(head)
            needed = size if length is None else min(length, size)
            try:
                example = tf.train.SequenceExample.FromString(
                    head[:needed] if needed <= len(head) else read(needed))
            except message.DecodeError:
                continue
            feature = example.context.feature
            identity = _text(feature, schema.EXAMPLE_ID) or _name(feature, read, size)
            label = list(feature[schema.LABEL_INDEX].int64_list.value)[:1] or [-1]
            yield identity, _text(feature, schema.MEDIA_ID) or identity, label[0]


def _context_length(head: bytes) -> int | None:
    """Bytes of a record up to the end of its context; None where that does not come first."""
    if not head or head[0] != _CONTEXT_TAG:
        return None
    length = 0
    for number, byte in enumerate(head[1:11]):  # a varint: 7 bits a byte, the lowest first
        length |= (byte & 0x7F) << (7 * number)
        if byte < 0x80:
            return 2 + number + length
    return None


def _text(feature, key: str) -> str:
    values = feature[key].bytes_list.value
    return values[0].decode(errors="replace") if values else ""


def _name(feature, read, size: int) -> str:
    """What `parsing.record_id` calls a record without an id."""
    filename = _text(feature, schema.FILENAME)
    if filename:
        start = feature[schema.START_TIMESTAMP].int64_list.value
        return f"{filename}:{(start[0] if start else 0) / schema.MICROSECONDS:.3f}"
    fingerprint = tf.strings.to_hash_bucket_fast(read(size), 2**63 - 1)
    return f"record {int(fingerprint)}"
