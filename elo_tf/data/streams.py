"""Serialized records in order: shards, parts of a set, shuffling and mixing; nothing is decoded.

The order is a function of the seed and of the files, for any number of processors. In memory are
the shuffle buffer and a few records of each shard that is being read.
An element is (place, example): place int64 [3] holds the numbers of the source, of the shard in it,
and of the record in that; example is a string [], serialized.
"""

import os
from collections.abc import Callable, Collection

import numpy as np
import tensorflow as tf

from elo_tf.data.parsing import example_id, require, video_key
from elo_tf.data.record_set import FRAMING_BYTES, MixedRecords, Records

PARTS = ("all", "fit", "heldout")
CYCLE = 8  # shards that are read in turn, so that the clips of a long video are not in a row

# What is mapped here has no Python control flow over tensors, and converting it takes a second.
plain = tf.autograph.experimental.do_not_convert


class Stream:
    """The serialized records of one part of a split.

    Attributes:
      labelled: whether label indices mean the same in all sources.
      skips: whether a source leaves out damaged records.
    """

    def __init__(self, records: Records | MixedRecords, split: str, part: str = "all", *,
                 keep: Collection[str] | None = None, name_damaged: bool = False):
        """Finds the files.

        Args:
          records: the record set.
          split: of it.
          part: "all", or the "fit" or "heldout" part.
          keep: ids of the records that are read; None for all.
          name_damaged: whether errors name the record that cannot be decoded, at the price of
            what skipping costs (an eighth of the decoding).

        Raises:
          UserError: if a file is missing.
        """
        if part not in PARTS:
            raise ValueError(f"part is {part!r}; it is one of {PARTS}")
        if keep is not None and not keep:
            raise ValueError("there is no record to keep")
        self._split = split
        self._part = part
        self._keep = None if keep is None else np.sort(fingerprints(sorted(keep)).numpy())
        self._sources, self._shares = zip(*records.weighted(), strict=True)
        self._shards = [source.shards(split) for source in self._sources]
        self.skips = any(source.on_corrupt == "skip" for source in self._sources)
        self._guarded = self.skips or name_damaged
        self.labelled = len(self._sources) == 1 or bool(records.labels())

    def once(self) -> tf.data.Dataset:
        """Every record once: source after source, shard after shard."""
        whole, *others = [self._read(number, np.arange(len(self._shards[number])), cycle=1)
                          for number in range(len(self._sources))]
        for other in others:
            whole = whole.concatenate(other)
        return whole

    def endless(self, seed: int) -> tf.data.Dataset:
        """Epoch after epoch of each source, shuffled; whose turn it is, is drawn by weight."""
        streams = [self._epochs(number, seed + 1000 * number)
                   for number in range(len(self._sources))]
        if len(streams) == 1:
            return streams[0]
        bounds = np.cumsum(self._shares)[:-1].astype(np.float32)

        @plain
        def choose(index: tf.Tensor) -> tf.Tensor:
            own = tf.random.experimental.stateless_fold_in(tf.constant([seed, 2]), index)
            draw = tf.random.stateless_uniform([], own)
            return tf.reduce_sum(tf.cast(draw >= bounds, tf.int64))

        return tf.data.Dataset.choose_from_datasets(
            streams, tf.data.Dataset.range(2**40).map(choose))

    def rates(self, place: tf.Tensor) -> dict[str, tf.Tensor]:
        """Frame and sample rate to be assumed of the record at a place, float32 [] each."""
        return {name: tf.gather(tf.constant([float(getattr(x, name)) for x in self._sources]),
                                place[0])
                for name in ("frame_rate", "sample_rate")}

    def say(self, unsaid: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        """Fails where a record does not say a rate (`parsing.parse`), naming both."""
        return require(tf.equal(unsaid, ""), lambda: tf.strings.join([
            self._name(place), " does not say its ", unsaid, "; set Records.", unsaid]))

    def _damaged(self, place: tf.Tensor, *, cut: bool = False) -> tf.Tensor:
        """Counts a record as skipped; an error that names it where its source does not skip.

        Args:
          place: of the record.
          cut: the file cannot be read from there on.

        Returns:
          False, bool [], for the filter that drops the record.
        """

        def note(place: np.ndarray) -> bool:
            source, shard, number = map(int, place)
            skipped = self._sources[source].skipped
            (skipped.add_cut if cut else skipped.add_record)(self._shards[source][shard], number)
            return False

        skips = tf.constant([source.on_corrupt == "skip" for source in self._sources])
        what = ((" and what follows it cannot be read" if cut else " cannot be decoded")
                + "; set Records.on_corrupt = 'skip' to leave out what is damaged")
        named = require(tf.gather(skips, place[0]), lambda: tf.strings.join([
            self._name(place), what]))
        with tf.control_dependencies([named]):
            return tf.ensure_shape(tf.numpy_function(note, [place], tf.bool), [])

    def _name(self, place: tf.Tensor) -> tf.Tensor:
        """The record at a place, for messages."""
        counts = [len(paths) for paths in self._shards]
        first = tf.constant(np.cumsum([0, *counts[:-1]]), tf.int64)
        path = tf.gather(tf.constant(sum(self._shards, [])), first[place[0]] + place[1])
        return tf.strings.join(["record number ", tf.strings.as_string(place[2]), " of ", path])

    def _epochs(self, source: int, seed: int) -> tf.data.Dataset:
        count = len(self._shards[source])
        buffer = self._sources[source].shuffle_records(self._split)

        @plain
        def epoch(number: tf.Tensor) -> tf.data.Dataset:
            draws = tf.random.stateless_uniform(
                [count], tf.stack([seed, tf.cast(number, tf.int32)]))
            examples = self._read(source, tf.argsort(draws), cycle=CYCLE)
            # A seed of its own for each epoch, unlike `reshuffle_each_iteration`, whose order
            # would also depend on how often this process has read the set before; and of this
            # function's graph, since the order would else depend on the global seed. That may not
            # be 0, at which TensorFlow compares the epoch's, a tensor, with 0.
            tf.compat.v1.set_random_seed(seed or 2**31 - 2)
            return examples.shuffle(buffer, seed=number, reshuffle_each_iteration=False)

        return tf.data.Dataset.range(2**40).flat_map(epoch)

    def _read(self, source: int, order: tf.Tensor | np.ndarray, cycle: int) -> tf.data.Dataset:
        """The records of a source's shards, in the order said, `cycle` shards in turn."""
        paths = self._shards[source]
        sizes = [os.path.getsize(path) for path in paths]
        files = tf.data.Dataset.from_tensor_slices((
            tf.cast(order, tf.int64), tf.gather(paths, order),
            tf.gather(tf.constant(sizes, tf.int64), order)))
        if cycle == 1:
            return files.flat_map(self._reader(source))
        return files.interleave(self._reader(source), cycle_length=cycle,
                                num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def _reader(self, source: int) -> Callable[..., tf.data.Dataset]:
        """A function of a shard's number, path and size: its records, of the part wanted."""
        heldout = self._sources[source].heldout_percent
        always = tf.data.Dataset.from_tensors

        @plain
        def follow(state: tuple[tf.Tensor, tf.Tensor], shard: tf.Tensor, size: tf.Tensor,
                   example: tf.Tensor, there: tf.Tensor):
            number, used = state
            place = tf.stack([source, shard, number])
            damaged = tf.logical_and(tf.logical_not(there), used < size)
            wanted = tf.cond(damaged, lambda: self._damaged(place, cut=True), lambda: there)
            used += FRAMING_BYTES + tf.cast(tf.strings.length(example), tf.int64)
            return (number + 1, used), (place, example, wanted)

        @plain
        def read(shard: tf.Tensor, path: tf.Tensor, size: tf.Tensor) -> tf.data.Dataset:
            # Unbuffered: records are larger than any buffer.
            examples = tf.data.TFRecordDataset(path, buffer_size=0).ignore_errors()
            marked = tf.data.Dataset.zip((examples, always(True).repeat()))
            # At the end: were all bytes of the file read?
            marked = marked.concatenate(tf.data.Dataset.zip((always(""), always(False))))
            elements = tf.data.Dataset.zip((always(shard).repeat(), always(size).repeat(), marked))
            followed = elements.map(lambda shard, size, pair: (shard, size, *pair)).scan(
                (tf.constant(0, tf.int64), tf.constant(0, tf.int64)),
                lambda state, element: follow(state, *element))
            found = followed.filter(lambda place, example, wanted: wanted).map(
                lambda place, example, wanted: (place, example))
            if self._part == "all" and self._keep is None:
                return found
            return found.filter(plain(
                lambda place, example: self._in_part(place, example, heldout)))

        return read

    def _in_part(self, place: tf.Tensor, example: tf.Tensor, heldout: int) -> tf.Tensor:
        """Whether a record is of the part wanted, and to be kept, bool []."""

        def wanted(example: tf.Tensor) -> tf.Tensor:
            kept = tf.constant(True)
            if self._keep is not None:
                own = fingerprints(example_id(example))
                near = tf.searchsorted(self._keep, [own], side="left")
                kept = tf.reduce_any(tf.gather(self._keep, near[:1] % len(self._keep)) == own)
            if self._part == "all":
                return kept
            in_heldout = video_key(example) % 100 < heldout
            inside = in_heldout if self._part == "heldout" else tf.logical_not(in_heldout)
            return tf.logical_and(inside, kept)

        found, good = self.attempt(wanted, place, example)
        return tf.logical_and(found, good)

    def attempt(self, function: Callable, place: tf.Tensor, *arguments: tf.Tensor) -> tuple:
        """Calls a function of a record; where that is damaged, it is skipped or an error.

        Args:
          function: of `arguments`.
          place: of the record.
          *arguments: tensors.

        Returns:
          What the function returns, or zeros of the same shapes where it fails; and whether it
          did not, bool [].
        """
        if not self._guarded:
            return function(*arguments), tf.constant(True)
        result, good = attempt(function, *arguments)
        return result, tf.cond(good, lambda: good, lambda: self._damaged(place))


def fingerprints(names: tf.Tensor) -> tf.Tensor:
    """An int64 for each string, of 63 bits: that of two names in millions is not the same."""
    return tf.strings.to_hash_bucket_fast(names, 2**63 - 1)


def attempt(function: Callable, *arguments: tf.Tensor) -> tuple:
    """Calls a function inside the graph, and goes on where it fails.

    Returns:
      What the function returns, or zeros of the same shapes where it fails; and whether it did
      not, bool [].
    """
    result = tf.data.Dataset.from_tensors(arguments).map(plain(function)).ignore_errors()
    zeros = tf.nest.map_structure(
        lambda x: tf.zeros([size or 0 for size in x.shape], x.dtype), result.element_spec)
    pair = [tf.data.Dataset.zip((values, tf.data.Dataset.from_tensors(good)))
            for values, good in ((result, True), (tf.data.Dataset.from_tensors(zeros), False))]
    return pair[0].concatenate(pair[1]).take(1).get_single_element()
