"""Records -> batches of clips, in the order read, shuffle, parse, sample, decode, batch.

Every draw is stateless, from (seed, position in the stream, example id), and the order is a
function of (seed, epoch): two runs read the same clips, and a run resumed at step n reads what it
would have read.
Only the frames that are used are decoded; what leaves is uint8 (casting is done on the device).
"""

import ast
import contextlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import tensorflow as tf
from absl import logging

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.decoding import crop_side, decode_window, spread_box
from elo_tf.data.parsing import STORED, parse
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.data.sampling import pick, random_windows, spread_windows
from elo_tf.data.streams import Stream, plain
from elo_tf.errors import UserError


def training_clips(records: Records | MixedRecords, split: str, spec: ClipSpec, *,
                   batch_size: int, seed: int, part: str = "all", start_step: int = 0,
                   modalities: Sequence[str] = STORED, other: bool = True,
                   device_only: bool = True, share: tuple[int, int] = (0, 1),
                   keep: Collection[str] | None = None) -> tf.data.Dataset:
    """An endless stream of random clips.

    Args:
      records: where the shards are.
      split: which of them.
      spec: the clip's size.
      batch_size: of the global batch.
      seed: of the order and of every draw.
      part: "all", or the "fit" or "heldout" part of an unlabelled split.
      start_step: batches to skip, as a resumed run does: undecoded, except with
        `on_corrupt = "skip"`, where only decoding tells which clips they held.
      modalities: of rgb, flow and audio; the others are not decoded, and their keys left out.
      other: whether to decode the other window; if not, its keys are left out.
      device_only: leave out `id`, which accelerators cannot hold.
      share: (w, W) gives the worker w of W its rows [w B/W, (w+1) B/W) of every global batch of
        B; the others are read but, except with `on_corrupt = "skip"`, not decoded.
      keep: ids of the clips that the stream is made of, some of every source's; None for all.

    Returns:
      Batches of B = batch_size clips (of a worker, B / W), T + N frames of side S =
      spec.training_size each:
        rgb: uint8 [B, T+N, S, S, 3].
        flow: uint8 [B, T+N, S, S, 2], coded as in `schema.FLOW_CLIP` (pixels of the S x S frame),
          value unknown without flow.
        audio: float32 [B, samples of T+N frames], 0 without sound.
        other_rgb, other_flow, other_audio: T frames of another time of the same video.
        has_flow, has_audio, has_other: bool [B].
        key: int64 [B], a hash of `id`; index: int64 [B], the position in the stream; damaged
          records that are skipped leave gaps.
        label: int64 [B], -1 without one; id: string [B] unless device_only.

    Raises:
      UserError: if the batch cannot be split evenly over the workers.
    """
    worker, workers = share
    if batch_size % workers:
        raise UserError(f"a batch_size of {batch_size} cannot be split evenly over {workers} hosts")
    rows = batch_size // workers
    stream = Stream(records, split, part, keep=keep)

    def sample(parsed: Mapping[str, tf.Tensor], index: tf.Tensor) -> dict[str, tf.Tensor]:
        fold = tf.random.experimental.stateless_fold_in
        own = fold(fold(tf.constant([seed, 0]), index), parsed["key"])
        clip = sample_training_clip(parsed, spec, own, modalities=modalities, other=other)
        if not device_only:
            clip["id"] = parsed["id"]
        return clip | {"index": index}

    before = start_step * batch_size
    numbered = stream.endless(seed).enumerate().skip(0 if stream.skips else before)
    if workers > 1 and not stream.skips:
        numbered = numbered.filter(plain(
            lambda index, element: tf.equal(index % batch_size // rows, worker)))
    elements = numbered.map(lambda index, element: (*element, index))
    clips = _decoded(stream, elements, sample, spec, modalities)
    if not stream.skips:
        batches = clips.batch(rows, drop_remainder=True)
    else:
        batches = clips.skip(before).batch(batch_size, drop_remainder=True)
        if workers > 1:
            batches = batches.map(lambda batch: {
                name: x[worker * rows:(worker + 1) * rows] for name, x in batch.items()})
    # Where a stream might end, several workers ask each other before every step.
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return batches.apply(endless).prefetch(2)


def testing_clips(records: Records | MixedRecords, split: str, spec: ClipSpec, *,
                  batch_size: int, part: str = "all", windows: int = 1, crops: int = 1,
                  modalities: Sequence[str] = STORED) -> tf.data.Dataset:
    """Every clip once, in the order of the records: evenly spread windows and crops.

    Args:
      records: where the shards are.
      split: which of them.
      spec: the clip's size.
      batch_size: views in a batch; the last batch may be smaller.
      part: "all", or the "fit" or "heldout" part of an unlabelled split.
      windows: how many of each video; one is its middle.
      crops: how many of each window, along the longer side; one is its centre.
      modalities: of rgb, flow and audio; the others are not decoded, and their keys left out.

    Returns:
      Batches of rgb uint8 [B, T, S, S, 3], flow, audio, has_flow, has_audio, key, label and id,
      as `training_clips` has them, of T frames each and S = spec.size. The windows x crops views
      of a video are one after the other (the crops of a window first); their features are to be
      averaged.
    """
    stream = Stream(records, split, part)
    views = windows * crops

    def sample(parsed: Mapping[str, tf.Tensor], view: tf.Tensor) -> dict[str, tf.Tensor]:
        places = spread_windows(parsed["track"], windows, spec.frames)
        box = spread_box(parsed["height"], parsed["width"], spec, crops, view % crops)
        clip = decode_window(parsed, places[view // crops, 0], spec.frames, box, spec.size, spec,
                             modalities=modalities)
        return clip | {"id": parsed["id"]}

    @plain
    def all_views(place: tf.Tensor, example: tf.Tensor) -> tf.data.Dataset:
        same = tf.data.Dataset.from_tensors((place, example)).repeat()
        return tf.data.Dataset.zip((same, tf.data.Dataset.range(views))).map(
            lambda element, view: (*element, view))

    elements = stream.once().flat_map(all_views)
    return _decoded(stream, elements, sample, spec, modalities, views).batch(batch_size).prefetch(2)


def _decoded(stream: Stream, elements: tf.data.Dataset, sample: Callable, spec: ClipSpec,
             modalities: Sequence[str], views: int = 1) -> tf.data.Dataset:
    """Parses and samples in parallel; of a damaged record, none of its `views` are left."""

    @plain
    def decode(place: tf.Tensor, example: tf.Tensor, number: tf.Tensor):

        def whole(example: tf.Tensor, number: tf.Tensor):
            parsed = parse(example, spec, modalities=modalities, **stream.rates(place))
            clip = {name: parsed[name] for name in ("key", "label", "has_flow", "has_audio")
                    if name in parsed}
            if not stream.labelled:
                clip["label"] = tf.constant(-1, tf.int64)
            return clip | sample(parsed, number), parsed["unsaid"]

        (clip, unsaid), good = stream.attempt(whole, place, example, number)
        with tf.control_dependencies([stream.say(unsaid, place)]):
            return clip, tf.identity(good)

    clips = elements.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    if stream.skips and views > 1:
        clips = clips.batch(views).filter(lambda clip, good: tf.reduce_all(good)).unbatch()
    elif stream.skips:
        clips = clips.filter(lambda clip, good: good)
    return clips.map(lambda clip, good: clip)


def require_clips(records: Records | MixedRecords, split: str, part: str, spec: ClipSpec, *,
                  least: int = 1, why: str = "") -> None:
    """Fails early where a part of a split cannot be used.

    Where damaged records are skipped, a window of each clip is decoded too: a stream of which all
    clips are damaged would never give a batch.

    Args:
      records: where the shards are.
      split: which of them.
      part: of the split.
      spec: the clip's size.
      least: how many clips are needed.
      why: what needs them.

    Raises:
      UserError: naming the part and the mend, if it has fewer clips or the first of a source is
        no clip.
    """
    def window(parsed: Mapping[str, tf.Tensor], number: tf.Tensor) -> dict[str, tf.Tensor]:
        return sample_training_clip(parsed, spec, tf.stack([0, 0]), other=False)

    total = 0
    with reading(records, split):
        for source, _ in records.weighted():
            stream = Stream(source, split, part)
            sample = window if stream.skips else lambda parsed, number: {}
            clips = _decoded(stream, _unnumbered(stream.once()), sample, spec, STORED)
            count = sum(1 for _ in clips.take(least))
            if not count:
                _too_few(source, split, part, 0)
            total += count
    if total < least:
        _too_few(records, split, part, total, f", and {why} needs {least}" if why else "")


def _too_few(records: Records | MixedRecords, split: str, part: str, count: int,
             needs: str = "") -> None:
    found = f"{count} clips" if count else "no clip"
    skipped = sum(len(source.skipped) for source, _ in records.weighted())
    if skipped and not count:
        found += " that can be decoded"
    mend = "convert the videos again" if skipped else "convert more videos"
    if part != "all":
        mend += f", or change Records.heldout_percent (now {records.heldout_percent})"
    raise UserError(f"{records.directory} has {found} in the {part!r} part of split {split!r}"
                    f"{needs}; {mend}")


@contextlib.contextmanager
def reading(records: Records | MixedRecords, split: str) -> Iterator[None]:
    """Makes what reading fails on a sentence for the user; logs how much was skipped.

    Put it around whatever iterates over clips.

    Args:
      records: what is read.
      split: of it.

    Raises:
      UserError: naming the record that cannot be read, and its file.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if not ("IteratorGetNext" in error.message or isinstance(error, tf.errors.DataLossError)):
            raise
        named = _naming(error) or _find_damaged(records, split)
        if not named:
            raise
        raise UserError(named) from error
    finally:
        for source, _ in records.weighted():
            if source.skipped:
                logging.warning("%s: skipped %d records that cannot be decoded, and the rest of "
                                "%d damaged shards", source.directory,
                                len(source.skipped.records), len(source.skipped.cut))


def _naming(error: tf.errors.OpError) -> str:
    """What `Stream` says of a record in an error; empty if it is another error."""
    found = re.search(r"assertion failed: \[(record .+?)\]\s*\n", error.message)
    # TensorFlow writes quotes as C does, which Python reads too.
    return ast.literal_eval(f"'{found[1]}'") if found else ""


def _find_damaged(records: Records | MixedRecords, split: str) -> str:
    """Names the first record that cannot be decoded; empty if there is none."""
    logging.info("looking for the damaged record: this decodes all of split %r", split)

    @plain
    def decode(image: tf.Tensor) -> tf.Tensor:
        return tf.size(tf.io.decode_image(image, expand_animations=False), tf.int64)

    def pixels(parsed: Mapping[str, tf.Tensor], number: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.concat([parsed["images"], parsed["flows"]], axis=0)
        return {"pixels": tf.map_fn(decode, images, fn_output_signature=tf.int64)}

    stream = Stream(records, split, name_damaged=True)
    try:
        for _ in _decoded(stream, _unnumbered(stream.once()), pixels, ClipSpec(), STORED):
            pass
    except tf.errors.OpError as error:
        return _naming(error)
    return ""


def _unnumbered(elements: tf.data.Dataset) -> tf.data.Dataset:
    return elements.map(lambda place, example: (place, example, tf.constant(0, tf.int64)))


def sample_training_clip(parsed: Mapping[str, tf.Tensor], spec: ClipSpec, seed: tf.Tensor, *,
                         modalities: Sequence[str] = STORED,
                         other: bool = True) -> dict[str, tf.Tensor]:
    """Draws and decodes one clip and its other window; see `training_clips`."""
    draw = tf.random.stateless_uniform([4], seed)
    start, elsewhere, has_other = random_windows(tf.shape(parsed["track"])[0], spec, draw[:2])
    side = crop_side(parsed["height"], parsed["width"], spec)
    box = tf.stack([pick(draw[2], parsed["height"] - side + 1),
                    pick(draw[3], parsed["width"] - side + 1), side, side])
    size = spec.training_size
    clip = decode_window(parsed, start, spec.window, box, size, spec, modalities=modalities,
                         scaled=True)
    if other:
        window = decode_window(parsed, elsewhere, spec.frames, box, size, spec,
                               modalities=modalities, scaled=True)
        clip |= {f"other_{name}": value for name, value in window.items()}
        clip["has_other"] = has_other
    return clip
