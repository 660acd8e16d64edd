"""Records of other writers read by us, and ours by the readers of others."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import signal

from elo_tf.data import pipeline, records, schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.record_set import Records
from elo_tf.errors import UserError

SPEC = ClipSpec(frames=4, next_frames=2, fps=5.0, size=16, crop=1.0, mel_bins=16)
FPS = 10
HZ = 48000


def tone(seconds: float, rate: int, pitch: float) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype("f")


def dmvr_example(encode_image, number: int, *, label=True, audio=True, flow=None,
                 frames=20) -> bytes:
    """A record laid out as DMVR's generate_from_file.py does: no id, no rates, no sizes."""
    example = tf.train.SequenceExample()

    def add(key, **values):
        feature = example.feature_lists.feature_list[key].feature.add()
        for kind, value in values.items():
            getattr(feature, kind).value[:] = value

    context = example.context.feature
    if label:
        context["clip/label/index"].int64_list.value[:] = [number % 3]
        context["clip/label/text"].bytes_list.value[:] = [b"class%d" % (number % 3)]
    for k in range(frames):
        picture = np.full((16, 20, 3), 10 * k + number, np.uint8)
        add("image/encoded", bytes_list=[encode_image(picture, "JPEG", quality=95)])
    for k in range(frames - 1 if flow else 0):
        code = np.full((16, 20, 3), (150 + k, 100, 0), np.uint8)
        add("FORWARD_FLOW/image/encoded",
            bytes_list=[encode_image(code, "JPEG", quality=100, subsampling=0)])
    if audio:
        add("WAVEFORM/feature/floats", float_list=tone(frames / FPS, HZ, 300 + 50 * number))
    context["video/filename"].bytes_list.value[:] = [b"videos/%d.mp4" % (number // 2)]
    context["clip/start/timestamp"].int64_list.value[:] = [2_500_000 * (number % 2)]
    context["clip/end/timestamp"].int64_list.value[:] = [2_500_000 * (number % 2) + 2_000_000]
    return example.SerializeToString()


def write_as_dmvr(folder, examples, shards=2):
    """Round robin to files without a suffix."""
    for shard in range(shards):
        with tf.io.TFRecordWriter(str(folder / f"train-{shard:05d}-of-{shards:05d}")) as writer:
            for example in examples[shard::shards]:
                writer.write(example)


@pytest.fixture(scope="module")
def from_dmvr(tmp_path_factory, encode_image):
    """Eight clips, two of each video; some lack sound or a label, some have flow."""
    folder = tmp_path_factory.mktemp("dmvr")
    write_as_dmvr(folder, [
        dmvr_example(encode_image, i, label=i != 3, audio=i != 5, flow=i in (2, 4))
        for i in range(8)])
    return folder


def clips_by_id(records_, part="all", **options):
    batches = pipeline.testing_clips(records_, "train", SPEC, batch_size=8, part=part, **options)
    return {batch["id"][i].decode(): {name: value[i] for name, value in batch.items()}
            for batch in batches.as_numpy_iterator() for i in range(len(batch["id"]))}


def test_records_of_dmvr_are_read(from_dmvr):
    clips = clips_by_id(Records(str(from_dmvr), frame_rate=FPS, sample_rate=HZ))
    assert sorted(clips) == sorted(
        f"videos/{i // 2}.mp4:{'2.500' if i % 2 else '0.000'}" for i in range(8))
    for i in range(8):
        clip = clips[f"videos/{i // 2}.mp4:{'2.500' if i % 2 else '0.000'}"]
        assert clip["label"] == (-1 if i == 3 else i % 3)
        assert clip["has_audio"] == (i != 5) and clip["has_flow"] == (i in (2, 4))
        # The middle four of ten frames at 5 a second: stored frames 6, 8, 10, 12.
        assert np.abs(clip["rgb"].mean((1, 2, 3)) - (10 * np.array([6, 8, 10, 12]) + i)).max() < 2
        if clip["has_flow"]:
            assert np.abs(clip["flow"][..., 0].mean((1, 2)) - [156, 158, 160, 162]).max() < 2
        if clip["has_audio"]:
            first, count = round(3 / 5 * 16000), SPEC.samples(4)
            expected = tone(2.0, 16000, 300 + 50 * i)[first:first + count]
            assert clip["audio"].shape == (count,)
            assert np.abs(clip["audio"] - expected).max() < 0.01
            poly = signal.resample_poly(tone(2.0, HZ, 300 + 50 * i), 1, 3)[first:first + count]
            assert np.abs(clip["audio"] - poly).max() < 0.01


def test_records_of_dmvr_train(from_dmvr):
    batch = next(pipeline.training_clips(
        Records(str(from_dmvr), frame_rate=FPS, sample_rate=HZ), "train", SPEC, batch_size=8,
        seed=1).as_numpy_iterator())
    assert batch["rgb"].shape == (8, 6, 16, 16, 3) and len(set(batch["key"])) == 8
    assert batch["has_audio"].sum() == 7 and batch["has_flow"].sum() == 2


def test_a_rate_that_nobody_says_is_asked_for(from_dmvr):
    for records_, match in (
            (Records(str(from_dmvr)), "record number 0 of .*train-00000-of-00002 does not say its "
                                      "(frame|sample)_rate; set Records.(frame|sample)_rate"),
            (Records(str(from_dmvr), sample_rate=HZ, on_corrupt="skip"), "its frame_rate"),
            (Records(str(from_dmvr), frame_rate=FPS), "its sample_rate; set Records.sample_rate")):
        with pytest.raises(UserError, match=match):
            pipeline.require_clips(records_, "train", "all", SPEC)
        assert not records_.skipped


def test_sound_is_not_asked_for_where_it_is_not_wanted(from_dmvr):
    batch = next(pipeline.training_clips(
        Records(str(from_dmvr), frame_rate=FPS), "train", SPEC, batch_size=8, seed=1,
        modalities=("rgb",)).as_numpy_iterator())
    assert batch["rgb"].shape == (8, 6, 16, 16, 3)


def test_the_clips_of_a_video_are_on_one_side(tmp_path, encode_image, make_clip):
    """By file name in DMVR's records, by media id in ours."""
    foreign, own = tmp_path / "foreign", tmp_path / "own"
    for folder in (foreign, own):
        folder.mkdir()
    write_as_dmvr(foreign, [dmvr_example(encode_image, i, audio=False, frames=2)
                            for i in range(60)])
    clip = make_clip(np.zeros((2, 16, 16, 3), np.uint8))
    write_as_dmvr(own, [records.encode_example(
        clip, example_id=f"{i // 2}.mp4/{i}-{i + 1}", path=f"{i // 2}.mp4") for i in range(60)])
    for folder, separator in ((foreign, ":"), (own, "/")):
        sides = {}
        for part in ("fit", "heldout"):
            records_ = Records(str(folder), heldout_percent=50, frame_rate=FPS)
            for name in clips_by_id(records_, part, modalities=("rgb",)):
                sides.setdefault(name.rsplit(separator, 1)[0], []).append(part)
        assert len(sides) == 30 and all(len(x) == 2 and len(set(x)) == 1 for x in sides.values())
        assert len({x[0] for x in sides.values()}) == 2


def test_records_without_any_name_are_told_apart(tmp_path, encode_image):
    examples = []
    for i in range(3):
        example = tf.train.SequenceExample.FromString(
            dmvr_example(encode_image, i, audio=False, frames=3))
        for key in list(example.context.feature):
            del example.context.feature[key]
        examples.append(example.SerializeToString())
    write_as_dmvr(tmp_path, examples)
    clips = clips_by_id(Records(str(tmp_path), frame_rate=FPS), modalities=("rgb",))
    assert len(clips) == 3 and all(name.startswith("record ") for name in clips)
    assert len({int(clip["key"]) for clip in clips.values()}) == 3
    assert clips.keys() == clips_by_id(Records(str(tmp_path), frame_rate=FPS)).keys()


def test_a_picture_by_itself_is_a_still_clip(tmp_path, encode_image):
    write_as_dmvr(tmp_path, [dmvr_example(encode_image, 7, audio=False, frames=1)])
    clip, = clips_by_id(Records(str(tmp_path))).values()
    assert (clip["rgb"] == clip["rgb"][0]).all() and abs(clip["rgb"].mean() - 7) < 2


@pytest.fixture(scope="module")
def ours(make_clip):
    """A record of 12 frames with flow, sound and a label."""
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (12, 40, 48, 3), np.uint8)
    flows = generator.integers(0, 256, (12, 40, 48, 3), np.uint8)
    clip = make_clip(frames, flows, tone(1.2, 16000, 440))
    return clip, flows, records.encode_example(clip, example_id="a", label=3, label_name="walk")


@pytest.mark.parametrize("training", [True, False])
def test_model_garden_reads_ours(ours, training):
    from official.vision.configs import video_classification
    from official.vision.dataloaders import video_input

    config = video_classification.DataConfig(
        feature_shape=(4, 32, 32, 3), min_image_size=40, num_classes=5, is_training=training)
    parse = video_input.Parser(input_params=config).parse_fn(is_training=training)
    features, label = parse(video_input.Decoder().decode(ours[2]))
    assert features["image"].shape == (4, 32, 32, 3)
    assert label.numpy().tolist() == [0, 0, 0, 1, 0]
    if not training:
        middle = tf.image.decode_jpeg(ours[0].images[4])[4:36, 8:40] / 255
        assert np.abs(features["image"][0] - middle).max() < 0.03


def test_dmvrs_specification_reads_ours(ours):
    """What DMVR's SequenceExampleParser asks for, decoded as its decoders do."""
    clip, flows, example = ours
    context, lists = tf.io.parse_single_sequence_example(
        example,
        {"clip/label/index": tf.io.VarLenFeature(tf.int64),
         "clip/label/text": tf.io.VarLenFeature(tf.string),
         "example/id": tf.io.FixedLenFeature([], tf.string)},
        {"image/encoded": tf.io.FixedLenSequenceFeature((), tf.string),
         "FORWARD_FLOW/image/encoded": tf.io.FixedLenSequenceFeature((), tf.string),
         "WAVEFORM/feature/floats": tf.io.VarLenFeature(tf.float32)})
    assert tf.sparse.to_dense(context["clip/label/index"]).numpy().tolist() == [3]
    assert tf.sparse.to_dense(context["clip/label/text"]).numpy().tolist() == [b"walk"]
    assert lists["image/encoded"].numpy().tolist() == clip.images
    flow = tf.map_fn(lambda x: tf.io.decode_jpeg(x, channels=3),
                     lists["FORWARD_FLOW/image/encoded"], fn_output_signature=tf.uint8)
    assert np.array_equal(flow, flows)
    audio = tf.sparse.to_dense(lists["WAVEFORM/feature/floats"])[0]
    assert np.array_equal(audio, clip.audio)
    assert math.isclose(len(audio) / schema.SAMPLE_RATE, len(clip.images) / clip.fps)
