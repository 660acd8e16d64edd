import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from elo_tf.data import encoding, flow, media, records, schema
from elo_tf.errors import UserError


@pytest.fixture(scope="module")
def clip(tmp_path_factory, make_video, texture):
    """Twelve frames of a texture that moves by (2, 1) a frame, with a tone."""
    world = texture(128)
    frames = np.stack([world[40 - t:104 - t, 40 - 2 * t:104 - 2 * t] for t in range(12)])
    tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(44100) / 44100)
    path = make_video(tmp_path_factory.mktemp("clip") / "a.mp4", frames, audio=tone)
    [clip] = encoding.encode_video(encoding.VideoJob(
        str(path), None, None, encoding.VideoOptions(fps=10, min_side=64)))
    return clip


@pytest.fixture(scope="module")
def full(clip):
    return records.encode_example(clip, example_id="walk/a.mp4:2-3", path="walk/a.mp4",
                                  dataset="set", label=3, label_name="walk")


@pytest.fixture(scope="module")
def bare(clip):
    """A record without flow, sound and label."""
    lacking = encoding.EncodedClip(clip.images, None, None, clip.fps, 1.5, clip.height, clip.width)
    return records.encode_example(lacking, example_id="b.mp4")


def test_pictures_flow_and_sound_come_back(clip, full):
    context, lists = tf.io.parse_single_sequence_example(
        full, schema.context_spec(), schema.sequence_spec())
    assert context[schema.EXAMPLE_ID].numpy() == b"walk/a.mp4:2-3"
    assert context[schema.IMAGE_FRAME_RATE].numpy() == 10
    assert context[schema.LABEL_INDEX].values.numpy().tolist() == [3]
    assert lists[schema.IMAGE_ENCODED].shape == lists[schema.FLOW_ENCODED].shape == (12,)
    assert np.array_equal(lists[schema.WAVEFORM].values, clip.audio)
    assert len(clip.audio) == 19200
    for image in lists[schema.IMAGE_ENCODED].numpy():
        assert tf.io.decode_jpeg(image).shape == (64, 64, 3)
    # decode_jpeg is what DMVR calls, and it reads PNGs too.
    coded = [tf.io.decode_jpeg(step).numpy() for step in lists[schema.FLOW_ENCODED].numpy()]
    moved = flow.dequantise(np.stack(coded))[:, 16:48, 16:48]
    np.testing.assert_allclose(np.median(moved, (0, 1, 2)), (2, 1), atol=0.15)
    assert not np.stack(coded)[..., 2].any()


def test_missing_modalities_have_no_keys_and_parse_as_empty(bare):
    example = tf.train.SequenceExample.FromString(bare)
    assert set(example.feature_lists.feature_list) == {schema.IMAGE_ENCODED,
                                                       schema.IMAGE_TIMESTAMP}
    assert not [key for key in example.context.feature
                if "FLOW" in key or "WAVEFORM" in key or "label" in key]
    context, lists = tf.io.parse_single_sequence_example(
        bare, schema.context_spec(), schema.sequence_spec())
    assert lists[schema.FLOW_ENCODED].shape == (0,)
    assert lists[schema.WAVEFORM].values.shape == (0,)
    assert context[schema.LABEL_INDEX].values.shape == (0,)
    assert context[schema.FLOW_SATURATION].numpy() == 0
    assert context[schema.WAVEFORM_SAMPLE_RATE].numpy() == 0


def test_every_key_of_the_format_is_there(full):
    example = tf.train.SequenceExample.FromString(full)
    context = {
        key: (list(f.bytes_list.value) or list(f.int64_list.value) or list(f.float_list.value))[0]
        for key, f in example.context.feature.items()}
    assert context == {
        "example/id": b"walk/a.mp4:2-3", "example/dataset_name": b"set",
        "clip/data_path": b"walk/a.mp4", "clip/media_id": b"walk/a.mp4",
        "video/filename": b"a.mp4",
        "clip/start/timestamp": 0, "clip/end/timestamp": 1_200_000,
        "clip/label/index": 3, "clip/label/text": b"walk", "clip/label/string": b"walk",
        "image/format": b"JPEG", "image/colorspace": b"RGB", "image/channels": 3,
        "image/height": 64, "image/width": 64, "image/frame_rate": 10.0,
        "FORWARD_FLOW/image/format": b"PNG", "FORWARD_FLOW/image/channels": 3,
        "FORWARD_FLOW/image/height": 64, "FORWARD_FLOW/image/width": 64,
        "FORWARD_FLOW/image/frame_rate": 10.0, "FORWARD_FLOW/image/saturation": 20.0,
        "WAVEFORM/feature/sample_rate": 16000.0, "WAVEFORM/feature/num_channels": 1,
        "WAVEFORM/feature/num_samples": 19200}
    lists = example.feature_lists.feature_list
    assert set(lists) == {
        "image/encoded", "image/timestamp", "FORWARD_FLOW/image/encoded",
        "FORWARD_FLOW/image/timestamp", "WAVEFORM/feature/floats"}
    assert [f.int64_list.value[0] for f in lists["image/timestamp"].feature] == [
        100_000 * k for k in range(12)]
    assert len(lists["WAVEFORM/feature/floats"].feature) == 1


def test_captions_spectrograms_and_damage_are_written_where_there_are_any(clip, full):
    steps = np.random.default_rng(0).normal(size=(2, 100, 128)).astype(np.float32)
    example = tf.train.SequenceExample.FromString(records.encode_example(
        dataclasses.replace(clip, damaged=True), example_id="a", caption="Größe, \U0001f3c3",
        melspec=steps))
    context, lists = example.context.feature, example.feature_lists.feature_list
    assert context["caption/string"].bytes_list.value == ["Größe, \U0001f3c3".encode()]
    assert context["clip/damaged"].int64_list.value == [1]
    # The specification of MBT's reader.
    parsed = tf.io.parse_single_sequence_example(example.SerializeToString(), sequence_features={
        "melspec/feature/floats": tf.io.FixedLenSequenceFeature((100, 128), tf.float32)})[1]
    np.testing.assert_array_equal(parsed["melspec/feature/floats"], steps)
    assert len(lists["melspec/feature/floats"].feature) == 2
    without = tf.train.SequenceExample.FromString(full)
    assert not {"caption/string", "clip/damaged"} & set(without.context.feature)
    assert "melspec/feature/floats" not in without.feature_lists.feature_list


@pytest.mark.parametrize("length", [0, 1, 31, 32, 4095, 4096, 600_000])
def test_floats_are_coded_as_by_the_library(length):
    values = np.random.default_rng(length).normal(size=length).astype(np.float32)
    expected = tf.train.FloatList(value=values.tolist())
    assert tf.train.FloatList.FromString(records._float_list(values.tobytes())) == expected
    if length:
        assert records._float_list(values.tobytes()) == expected.SerializeToString()


def test_timestamps_are_those_of_the_source(bare):
    example = tf.train.SequenceExample.FromString(bare)
    stamps = example.feature_lists.feature_list["image/timestamp"].feature
    assert stamps[0].int64_list.value[0] == 1_500_000
    assert example.context.feature["clip/start/timestamp"].int64_list.value[0] == 1_500_000
    assert example.context.feature["clip/end/timestamp"].int64_list.value[0] == 2_700_000


def test_dmvr_can_parse(full, clip):
    # The specifications that DMVR's SequenceExampleParser builds for image, flow, audio, label.
    context, lists = tf.io.parse_single_sequence_example(
        full,
        {"clip/label/index": tf.io.VarLenFeature(tf.int64),
         "clip/label/text": tf.io.VarLenFeature(tf.string)},
        {"image/encoded": tf.io.FixedLenSequenceFeature((), tf.string),
         "FORWARD_FLOW/image/encoded": tf.io.FixedLenSequenceFeature((), tf.string),
         "WAVEFORM/feature/floats": tf.io.VarLenFeature(tf.float32)})
    assert lists["image/encoded"].shape == lists["FORWARD_FLOW/image/encoded"].shape == (12,)
    audio = tf.sparse.to_dense(lists["WAVEFORM/feature/floats"])[0]
    assert np.array_equal(audio, clip.audio)
    assert context["clip/label/text"].values.numpy().tolist() == [b"walk"]


def test_model_garden_can_parse(full):
    from official.vision.configs import video_classification
    from official.vision.dataloaders import video_input

    config = video_classification.DataConfig(
        feature_shape=(4, 32, 32, 3), min_image_size=40, num_classes=5, is_training=False)
    parse = video_input.Parser(input_params=config).parse_fn(is_training=False)
    features, label = parse(video_input.Decoder().decode(full))
    assert features["image"].shape == (4, 32, 32, 3)
    assert label.numpy().tolist() == [0, 0, 0, 1, 0]


def test_the_same_clip_gives_the_same_bytes(clip, full):
    again = records.encode_example(clip, example_id="walk/a.mp4:2-3", path="walk/a.mp4",
                                   dataset="set", label=3, label_name="walk")
    assert again == full


def test_without_flow(tmp_path, make_video, gray_frames):
    path = make_video(tmp_path / "a.mp4", gray_frames([50, 60, 70]))
    [clip] = encoding.encode_video(encoding.VideoJob(
        str(path), None, None, encoding.VideoOptions(fps=10, min_side=32, flow="none")))
    assert clip.flows is None
    assert [Image.open(io.BytesIO(image)).size for image in clip.images] == [(43, 32)] * 3
    assert clip.seconds == pytest.approx(0.3)


def test_rejection_passes_through_processes():
    import pickle

    error = pickle.loads(pickle.dumps(media.MediaError("too_short", "why")))
    assert (error.reason, error.detail) == ("too_short", "why")


def test_a_shard_appears_only_when_whole(tmp_path):
    path = tmp_path / "a.tfrecord"

    def failing():
        yield b"one"
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        records.write_shard(path, failing())
    assert list(tmp_path.iterdir()) == []
    assert records.write_shard(path, [b"one", b"two"]) == 2
    assert [x.numpy() for x in tf.data.TFRecordDataset(str(path))] == [b"one", b"two"]
    with records.ShardFile(path) as shard:
        shard.write(b"three")
        shard.write(b"four!")
    assert (shard.count, shard.bytes, shard.largest) == (2, 10, 5)
    assert path.stat().st_size == 10 + 2 * 16
    abandoned = records.ShardFile(tmp_path / "b.tfrecord")
    abandoned.write(b"five")
    abandoned.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["a.tfrecord"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        records.write_shard(tmp_path / "file" / "a.tfrecord", [b"one"])
