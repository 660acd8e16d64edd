"""Records -> batches of clips, in the order parse, sample, decode, batch.

Every draw is stateless, from (seed, position in the stream, example id), and the order is a
function of (seed, epoch): two runs read the same clips, and a run resumed at step n reads what it
would have read.
Only the frames that are used are decoded; what leaves is uint8 (casting is done on the device).
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping

import gin
import tensorflow as tf

from elo_tf.data import schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.sampling import (
    pick,
    random_windows,
    spread_windows,
    track_of,
    waveform_window,
    window_of,
)
from elo_tf.errors import UserError

SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.tfrecord$")
PARTS = ("all", "fit", "heldout")
KEYS = 2**31 - 1  # example ids are hashed to int32, the width of a stateless seed

# What is mapped here has no Python control flow over tensors, and converting it takes a second.
_plain = tf.autograph.experimental.do_not_convert


@gin.register
@dataclasses.dataclass(frozen=True)
class Records:
    """A folder of record shards, as tools/convert_videos writes it.

    Attributes:
      directory: the folder.
      heldout_percent: share of the unlabelled clips, chosen by a hash of their id, that is never
        trained on: the search measures its fitness and the final training its losses on them
        (our choice).
    """

    directory: str = gin.REQUIRED
    heldout_percent: int = 20

    def splits(self) -> list[str]:
        """The splits in the folder, sorted."""
        folder = pathlib.Path(self.directory)
        return sorted({SHARD.split(p.name)[0] for p in folder.glob("*.tfrecord")
                       if SHARD.search(p.name)})

    def shards(self, split: str) -> list[str]:
        """The shards of a split, in order.

        Raises:
          UserError: if the folder or the split is missing, or a shard of it is.
        """
        folder = pathlib.Path(self.directory)
        if not folder.is_dir():
            raise UserError(f"no folder {folder}; make one with tools/convert_videos")
        found = {}
        for path in sorted(folder.glob(f"{split}-*.tfrecord")):
            match = SHARD.search(path.name)
            if match and path.name[:match.start()] == split:
                found.setdefault(int(match[2]), {})[int(match[1])] = str(path)
        if not found:
            raise UserError(
                f"{folder} has no records of split {split!r} "
                f"(it has: {', '.join(self.splits()) or 'no records at all'})")
        if len(found) > 1:
            raise UserError(f"{folder} mixes shard sets of {' and '.join(map(str, sorted(found)))} "
                            f"files for split {split!r}; keep one")
        (count, shards), = found.items()
        missing = [i for i in range(count) if i not in shards]
        if missing:
            raise UserError(f"{folder} lacks {schema.shard_name(split, missing[0], count)} "
                            f"({len(missing)} of {count} shards are missing); convert again")
        return [shards[i] for i in range(count)]

    def labels(self) -> list[str]:
        """The label map, empty if there is none."""
        path = pathlib.Path(self.directory) / schema.LABELS_FILE
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def summary(self, split: str) -> dict:
        """What tools/convert_videos wrote about a split; empty if there is nothing."""
        path = pathlib.Path(self.directory) / schema.summary_name(split)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def training_clips(records: Records, split: str, spec: ClipSpec, *, batch_size: int, seed: int,
                   part: str = "all", start_step: int = 0, shuffle_records: int = 512,
                   device_only: bool = True) -> tf.data.Dataset:
    """An endless stream of random clips.

    Args:
      records: where the shards are.
      split: which of them.
      spec: the clip's size.
      batch_size: of the global batch.
      seed: of the order and of every draw.
      part: "all", or the "fit" or "heldout" part of an unlabelled split.
      start_step: batches to skip, undecoded, as a resumed run does.
      shuffle_records: serialized records in the shuffle buffer.
      device_only: leave out `id`, which accelerators cannot hold.

    Returns:
      Batches of B = batch_size clips, T + N frames of side
      S = spec.training_size each:
        rgb: uint8 [B, T+N, S, S, 3].
        flow: uint8 [B, T+N, S, S, 2], coded as in `schema.FLOW_CLIP`, value unknown without flow.
        audio: float32 [B, samples of T+N frames], 0 without sound.
        other_rgb, other_flow, other_audio: T frames of another time of the same video.
        has_flow, has_audio, has_other: bool [B].
        key: int64 [B], a hash of `id`; index: int64 [B], the position in the stream.
        label: int64 [B], -1 without one; id: string [B] unless device_only.
    """
    shards = records.shards(split)

    @_plain
    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.stateless_uniform(
            [len(shards)], tf.stack([seed, tf.cast(number, tf.int32)]))
        files = tf.data.Dataset.from_tensor_slices(tf.gather(shards, tf.argsort(order)))
        examples = read_files(files, part, records.heldout_percent)
        # A seed of its own for each epoch, unlike `reshuffle_each_iteration`, whose order would
        # also depend on how often this process has read the set before; and of this function's
        # graph, since the order would else depend on the global seed.
        tf.compat.v1.set_random_seed(seed)
        return examples.shuffle(shuffle_records, seed=number, reshuffle_each_iteration=False)

    stream = tf.data.Dataset.range(2**40).flat_map(epoch).enumerate().skip(start_step * batch_size)

    @_plain
    def clip(index: tf.Tensor, example: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = parse(example, spec)
        own = tf.random.experimental.stateless_fold_in(
            tf.random.experimental.stateless_fold_in(tf.constant([seed, 0]), index),
            parsed["key"])
        output = sample_training_clip(parsed, spec, own)
        output["index"] = index
        if device_only:
            del output["id"]
        return output

    dataset = stream.map(clip, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(batch_size, drop_remainder=True).prefetch(2)


def testing_clips(records: Records, split: str, spec: ClipSpec, *, batch_size: int,
                  part: str = "all", windows: int = 1) -> tf.data.Dataset:
    """Every clip once, in the order of the records: centre crop, evenly spread windows.

    Args:
      records: where the shards are.
      split: which of them.
      spec: the clip's size.
      batch_size: the last batch may be smaller.
      part: "all", or the "fit" or "heldout" part of an unlabelled split.
      windows: clips of each video, one after the other; their features are to be averaged.

    Returns:
      Batches of rgb uint8 [B, T, S, S, 3], flow, audio, has_flow, has_audio, key, label and id,
      as `training_clips` has them, of T frames each and S = spec.size.
    """
    files = tf.data.Dataset.from_tensor_slices(records.shards(split))

    @_plain
    def clips(example: tf.Tensor) -> tf.data.Dataset:
        parsed = parse(example, spec)
        box = centre_box(parsed["height"], parsed["width"], spec)
        places = spread_windows(parsed["track"], windows, spec.frames)
        starts = tf.data.Dataset.from_tensor_slices(places[:, 0])
        return starts.map(lambda start: {
            **decode_window(parsed, start, spec.frames, box, spec.size, spec),
            **{name: parsed[name] for name in ("has_flow", "has_audio", "key", "label", "id")}})

    dataset = read_files(files, part, records.heldout_percent).flat_map(clips)
    return dataset.batch(batch_size).prefetch(2)


def require_clips(records: Records, split: str, part: str, spec: ClipSpec, *,
                  least: int = 1, why: str = "") -> None:
    """Fails early where a part of a split cannot be used.

    Args:
      records: where the shards are.
      split: which of them.
      part: of the split.
      spec: the clip's size.
      least: how many clips are needed.
      why: what needs them.

    Raises:
      UserError: naming the part and the mend, if it has fewer clips or its first is no clip.
    """
    files = tf.data.Dataset.from_tensor_slices(records.shards(split))
    examples = read_files(files, part, records.heldout_percent)
    count = 0
    try:
        for example in examples.take(least):
            if not count:
                parse(example, spec)
            count += 1
    except tf.errors.OpError as error:
        raise UserError(f"cannot read split {split!r} in {records.directory}: "
                        f"{' '.join(error.message.split())}") from error
    if count < least:
        found = f"{count} clips" if count else "no clip"
        raise UserError(
            f"{records.directory} has {found} in the {part!r} part of split {split!r}"
            + (f", and {why} needs {least}" if why else "")
            + "; convert more videos, or change Records.heldout_percent "
            f"(now {records.heldout_percent})")


def read_files(files: tf.data.Dataset, part: str, heldout_percent: int) -> tf.data.Dataset:
    """Serialized examples of the files, in their order, of one part of the set."""
    if part not in PARTS:
        raise ValueError(f"part is {part!r}; it is one of {PARTS}")
    examples = files.flat_map(tf.data.TFRecordDataset)
    if part == "all":
        return examples

    @_plain
    def wanted(example: tf.Tensor) -> tf.Tensor:
        context, _ = tf.io.parse_single_sequence_example(
            example, {schema.EXAMPLE_ID: schema.context_spec()[schema.EXAMPLE_ID]})
        heldout = hashed(context[schema.EXAMPLE_ID]) % 100 < heldout_percent
        return heldout if part == "heldout" else tf.logical_not(heldout)

    return examples.filter(wanted)


def hashed(example_id: tf.Tensor) -> tf.Tensor:
    """An int64 in [0, 2^31 - 1) for each id, the same in every process."""
    return tf.strings.to_hash_bucket_fast(example_id, KEYS)


def parse(example: tf.Tensor, spec: ClipSpec) -> dict[str, tf.Tensor]:
    """A serialized record -> its encoded frames, its waveform, and what is known of them."""
    context, lists = tf.io.parse_single_sequence_example(
        example, schema.context_spec(), schema.sequence_spec())
    images = lists[schema.IMAGE_ENCODED]
    name = context[schema.EXAMPLE_ID]
    waveform = lists[schema.WAVEFORM].values
    rate = context[schema.WAVEFORM_SAMPLE_RATE]
    has_audio = tf.size(waveform) > 0
    with tf.control_dependencies([
        tf.debugging.assert_greater(tf.size(images), 0, message="a record has no frames"),
        tf.debugging.Assert(
            tf.logical_or(tf.logical_not(has_audio), tf.equal(rate, spec.sample_rate)),
            ["the sound of record", name, "has a sample rate of", rate,
             f"Hz; ClipSpec.sample_rate is {spec.sample_rate}"]),
    ]):
        shape = tf.io.extract_jpeg_shape(images[0])
    label = context[schema.LABEL_INDEX].values
    return {
        "id": name,
        "key": hashed(name),
        "label": tf.cond(tf.size(label) > 0, lambda: label[0], lambda: tf.constant(-1, tf.int64)),
        "track": track_of(tf.size(images), context[schema.IMAGE_FRAME_RATE], spec.fps),
        "images": images,
        "height": shape[0],
        "width": shape[1],
        "flows": lists[schema.FLOW_ENCODED],
        "flow_clip": context[schema.FLOW_SATURATION],
        "has_flow": tf.size(lists[schema.FLOW_ENCODED]) > 0,
        "waveform": waveform,
        "has_audio": has_audio,
    }


def sample_training_clip(parsed: Mapping[str, tf.Tensor], spec: ClipSpec,
                         seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """Draws and decodes one clip and its other window; see `training_clips`."""
    fold = tf.random.experimental.stateless_fold_in
    start, other, has_other = random_windows(tf.shape(parsed["track"])[0], spec, fold(seed, 1))
    draw = tf.random.stateless_uniform([2], fold(seed, 2))
    side = crop_side(parsed["height"], parsed["width"], spec)
    box = tf.stack([pick(draw[0], parsed["height"] - side + 1),
                    pick(draw[1], parsed["width"] - side + 1), side, side])
    size = spec.training_size
    window = decode_window(parsed, start, spec.window, box, size, spec)
    elsewhere = decode_window(parsed, other, spec.frames, box, size, spec)
    return {
        **window,
        **{f"other_{name}": value for name, value in elsewhere.items()},
        **{name: parsed[name] for name in ("has_flow", "has_audio", "key", "label", "id")},
        "has_other": has_other,
    }


def crop_side(height: tf.Tensor, width: tf.Tensor, spec: ClipSpec) -> tf.Tensor:
    """Side of the square crop, int32 []."""
    shorter = tf.minimum(height, width)
    return tf.maximum(tf.cast(tf.round(tf.cast(shorter, tf.float32) * spec.crop), tf.int32), 1)


def centre_box(height: tf.Tensor, width: tf.Tensor, spec: ClipSpec) -> tf.Tensor:
    """The central crop as int32 [4]: y, x, height, width."""
    side = crop_side(height, width, spec)
    return tf.stack([(height - side) // 2, (width - side) // 2, side, side])


def decode_window(parsed: Mapping[str, tf.Tensor], start: tf.Tensor, frames: int, box: tf.Tensor,
                  size: int, spec: ClipSpec) -> dict[str, tf.Tensor]:
    """Decodes the frames, flow and sound of one window, cropped and resized.

    Args:
      parsed: from `parse`.
      start: int32 [], where the window starts on the track.
      frames: its length.
      box: int32 [4], the crop.
      size: S, the side in pixels to resize to.
      spec: the clip's size.

    Returns:
      rgb uint8 [frames, S, S, 3], flow uint8 [frames, S, S, 2], audio float32 [samples].
    """
    indices = window_of(parsed["track"], start, frames)

    # A column more on either side: the colours of the outermost are blended with those outside,
    # as where the whole picture is decoded (by the exported model, for one).
    left = tf.minimum(box[1], 1)
    right = tf.minimum(parsed["width"] - box[1] - box[3], 1)
    wider = box + tf.stack([0, -left, 0, left + right])

    def decode(encoded: tf.Tensor) -> tf.Tensor:
        # Without a fixed method the pixels may depend on the build.
        image = tf.image.decode_and_crop_jpeg(
            encoded, wider, channels=3, dct_method="INTEGER_ACCURATE")
        return image[:, left:left + box[3]]

    def decode_flow(encoded: tf.Tensor) -> tf.Tensor:
        image = tf.image.decode_png(encoded, channels=3)
        return tf.image.crop_to_bounding_box(image, box[0], box[1], box[2], box[3])[..., :2]

    def decode_all(encoded: tf.Tensor, decoder, channels: int) -> tf.Tensor:
        spec_of_one = tf.TensorSpec([None, None, channels], tf.uint8)
        return tf.map_fn(decoder, tf.gather(encoded, indices), fn_output_signature=spec_of_one)

    def flow() -> tf.Tensor:
        video = resize(decode_all(parsed["flows"], decode_flow, 2), size)
        clip = parsed["flow_clip"]
        clip = tf.where(clip > 0, clip / schema.FLOW_CLIP, 1.0)  # 0: the record does not say
        scale = (size / box[2]) * tf.cast(clip, tf.float64)
        return tf.cond(tf.equal(scale, 1.0), lambda: video, lambda: rescale_flow(video, scale))

    def no_flow() -> tf.Tensor:
        return tf.fill([frames, size, size, 2], tf.constant(128, tf.uint8))

    rgb = resize(decode_all(parsed["images"], decode, 3), size)
    return {
        "rgb": tf.ensure_shape(rgb, [frames, size, size, 3]),
        "flow": tf.ensure_shape(tf.cond(parsed["has_flow"], flow, no_flow),
                                [frames, size, size, 2]),
        "audio": waveform_window(parsed["waveform"], start, tf.shape(parsed["track"])[0], frames,
                                 spec),
    }


def resize(video: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes uint8 [T, h, w, C] to [T, size, size, C]; nothing is done where the size is right."""

    def resized() -> tf.Tensor:
        pixels = tf.image.resize(tf.cast(video, tf.float32), [size, size], antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)

    height, width = tf.shape(video)[1], tf.shape(video)[2]
    right = tf.logical_and(tf.equal(height, size), tf.equal(width, size))
    return tf.cond(right, lambda: video, resized)


def rescale_flow(coded: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Multiplies coded flow by `scale` (float64 []), as its pixels are resized or recoded."""
    centred = tf.cast(coded, tf.float32) - 127.5
    scaled = tf.clip_by_value(tf.round(centred * tf.cast(scale, tf.float32) + 127.5), 0, 255)
    # The two middle codes are zero, and stay so.
    return tf.where(tf.abs(centred) < 1.0, coded, tf.cast(scaled, tf.uint8))
