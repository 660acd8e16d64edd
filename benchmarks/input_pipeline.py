"""How many clips a second are read from shards, beside Model Garden's reader and the limit.

    python -m benchmarks.input_pipeline --work=/tmp/input_benchmark

Makes shards of 200 clips of 48 frames, once of 128 and once of 256 pixels on the shorter side, and
reads batches of 16 clips of 16 frames, RGB alone, in turn:

  ours          data.pipeline.training_clips (T + N = 12 + 4 frames), uint8 of 112x112
  Model Garden  the peer: official.vision.dataloaders.video_input in training mode, by its own input
                reader, float32 of 112x112, of frames resized to 128
  limit         only `decode_and_crop_jpeg` of 16 random frames in a random window that gives
                112x112, with the same reading as ours

and prints the median of the rounds' rates, and the medians of the ratios within a round.
"""

import pathlib
import statistics
import time

import tensorflow as tf
from absl import flags
from official.core import input_reader
from official.vision.configs import video_classification
from official.vision.dataloaders import video_input

from benchmarks import noise_records
from elo_tf import cli
from elo_tf.data import schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.pipeline import training_clips
from elo_tf.data.record_set import Records
from elo_tf.data.streams import Stream, plain

WORK = flags.DEFINE_string("work", None, "Folder for the shards.", required=True)
CLIPS = flags.DEFINE_integer("clips", 200, "Clips in the shards.", lower_bound=16)
ROUNDS = flags.DEFINE_integer("rounds", 9, "How often all are run in turn.", lower_bound=1)
BATCHES = flags.DEFINE_integer("batches", 60, "Batches of a run.", lower_bound=1)
WARM_UP = flags.DEFINE_integer("warm_up", 20, "Batches before it that are not timed.")

BATCH, FRAMES, SIZE = 16, 16, 112
HEIGHTS = (128, 256)


def ours(records: Records) -> tf.data.Dataset:
    """Batches of our own reader."""
    spec = ClipSpec(frames=12, next_frames=FRAMES - 12, fps=8.0, size=SIZE, crop=0.875)
    return training_clips(records, noise_records.SPLIT, spec, batch_size=BATCH, seed=1,
                          modalities=("rgb",), other=False)


def limit(records: Records, height: int) -> tf.data.Dataset:
    """Batches of nothing but the pixels."""
    shrink = height // HEIGHTS[0]
    width = noise_records.width_of(height)

    @plain
    def decode(place: tf.Tensor, example: tf.Tensor) -> tf.Tensor:
        del place
        _, lists = tf.io.parse_single_sequence_example(
            example, {}, {schema.IMAGE_ENCODED: tf.io.FixedLenSequenceFeature([], tf.string)})
        images = lists[schema.IMAGE_ENCODED]
        draw = tf.random.uniform([3])
        room = tf.stack([tf.size(images) - FRAMES, height // shrink - SIZE, width // shrink - SIZE])
        first, y, x = tf.unstack(tf.cast(draw * tf.cast(room + 1, tf.float32), tf.int32))
        box = tf.stack([y, x, SIZE, SIZE])
        frames = [tf.ensure_shape(tf.image.decode_and_crop_jpeg(
            image, box, channels=3, ratio=shrink, dct_method="INTEGER_ACCURATE"), [SIZE, SIZE, 3])
            for image in tf.unstack(images[first:first + FRAMES], FRAMES)]
        return tf.stack(frames)

    examples = Stream(records, noise_records.SPLIT).endless(seed=1)
    clips = examples.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    return clips.batch(BATCH, drop_remainder=True).prefetch(2)


def model_garden(records: Records) -> tf.data.Dataset:
    """Batches of Model Garden's reader, with its settings of training."""
    params = video_classification.DataConfig(
        input_path=str(pathlib.Path(records.directory) / f"{noise_records.SPLIT}-*"),
        global_batch_size=BATCH, is_training=True, feature_shape=(FRAMES, SIZE, SIZE, 3),
        temporal_stride=1, min_image_size=HEIGHTS[0], num_classes=10,
        shuffle_buffer_size=64, dtype="float32")
    return input_reader.InputReader(
        params, dataset_fn=tf.data.TFRecordDataset, decoder_fn=video_input.Decoder().decode,
        parser_fn=video_input.Parser(params).parse_fn(params.is_training),
        postprocess_fn=video_input.PostBatchProcessor(params)).read()


def clips_per_second(dataset: tf.data.Dataset) -> float:
    """Reads a dataset from its beginning."""
    iterator = iter(dataset)
    for _ in range(WARM_UP.value):
        next(iterator)
    started = time.perf_counter()
    for _ in range(BATCHES.value):
        next(iterator)
    return BATCHES.value * BATCH / (time.perf_counter() - started)


def measure(folder: pathlib.Path, height: int) -> None:
    """Reads the shards of one size in all ways, and prints the rates."""
    noise_records.make_records(folder, CLIPS.value, height)
    records = Records(str(folder))
    datasets = {"ours": ours(records), "Model Garden": model_garden(records),
                "limit": limit(records, height)}
    rates = {name: [] for name in datasets}
    for _ in cli.progress(range(ROUNDS.value), desc=f"reading {height} px", unit="round"):
        for name, dataset in datasets.items():
            rates[name].append(clips_per_second(dataset))
    print(f"stored at {height} px: clips of {FRAMES} frames a second, median of {ROUNDS.value} "
          "rounds (lowest, highest)")
    for name, values in rates.items():
        print(f"  {name:14} {statistics.median(values):7.1f}  ({min(values):.1f}, "
              f"{max(values):.1f})")
    for other in ("Model Garden", "limit"):
        ratios = [a / b for a, b in zip(rates["ours"], rates[other], strict=True)]
        print(f"  ours / {other:14} {statistics.median(ratios):.2f}")


def main(argv):
    """Measures."""
    del argv
    for height in HEIGHTS:
        measure(pathlib.Path(WORK.value) / str(height), height)


if __name__ == "__main__":
    cli.run(main)
