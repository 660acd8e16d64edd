"""Clips read from records that the converter's own code wrote."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from elo_tf.data import (
    conversion,
    decoding,
    encoding,
    parsing,
    pipeline,
    records,
    schema,
    streams,
)
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.pipeline import training_clips
from elo_tf.data.record_set import Records
from elo_tf.errors import UserError
from elo_tf.reporting import record_samples

SPEC = ClipSpec(frames=4, next_frames=2, fps=5.0, size=16, crop=1.0, mel_bins=16)


def encoded(image: np.ndarray, file_format: str, **settings) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, file_format, **settings)
    return buffer.getvalue()


def make_clip(frames, flows=None, audio=None, fps=10.0) -> encoding.EncodedClip:
    """An encoded clip of frames uint8 [N, H, W, 3] and flow codes uint8 [N, H, W, 3]."""
    return encoding.EncodedClip(
        images=[encoded(x, "JPEG", quality=100, subsampling=0) for x in frames],
        flows=None if flows is None else [encoded(x, "PNG") for x in flows],
        audio=audio, fps=fps, start=0.0, height=frames.shape[1], width=frames.shape[2])


def write_split(folder, split, examples, shards=1):
    for i in range(shards):
        records.write_shard(folder / schema.shard_name(split, i, shards), examples[i::shards])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 unlabelled records in 3 shards, of brightness 10 i; a third each lack sound and flow."""
    folder = tmp_path_factory.mktemp("records")
    generator = np.random.default_rng(0)
    examples = []
    for i in range(24):
        frames = np.full((9 + i % 4, 16, 16, 3), 10 * i, np.uint8)
        flows = None if i % 3 == 0 else generator.integers(0, 256, frames.shape, np.uint8)
        seconds = len(frames) / 10
        audio = None if i % 3 == 1 else generator.normal(size=round(seconds * 16000)).astype("f")
        examples.append(records.encode_example(
            make_clip(frames, flows, audio), example_id=f"v{i:02}", label=None if i % 2 else i,
            label_name=None if i % 2 else f"class{i}"))
    write_split(folder, "unlabelled", examples, shards=3)
    return folder


def stream(folder, count, **options):
    """The first `count` clips, one by one, as NumPy."""
    options = {"batch_size": 4, "seed": 5, "device_only": False} | options
    dataset = training_clips(Records(str(folder)), "unlabelled", SPEC, **options)
    clips = []
    for batch in dataset.as_numpy_iterator():
        size = len(batch["key"])
        clips += [{name: x[i] for name, x in batch.items()} for i in range(size)]
        if len(clips) >= count:
            return clips[:count]
    return clips


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a[name], b[name]) for a, b in zip(first, second, strict=True) for name in a)


def ids(clips):
    return [clip["id"].decode() for clip in clips]


# --- time -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clock(tmp_path_factory, make_video, gray_frames):
    """A converted video of 6 s: brightness is the number of the frame, a click every second."""
    root = tmp_path_factory.mktemp("clock")
    audio = np.zeros(44100 * 6)
    burst = 0.9 * np.random.default_rng(0).choice([-1, 1], 220)
    for second in range(1, 6):
        audio[44100 * second:44100 * second + 220] = burst
    (root / "videos").mkdir()
    make_video(root / "videos" / "clock.mp4", gray_frames(20 + 3 * np.arange(60)), audio=audio)
    conversion.convert(conversion.Conversion(
        source=str(root / "videos"), output=str(root / "records"), split="unlabelled", workers=0,
        options=encoding.VideoOptions(fps=10, min_side=16)))
    return root / "records"


def shown_at(video: np.ndarray) -> np.ndarray:
    """The seconds at which the frames of a clip are shown in its source."""
    return np.round((video.mean((1, 2, 3)) - 20) / 3) / 10


def clicks(audio: np.ndarray) -> np.ndarray:
    """Where clicks start, in seconds."""
    loud = np.flatnonzero(np.abs(audio) > 0.25)
    return loud[np.diff(loud, prepend=-4000) > 2000] / 16000


@pytest.mark.parametrize("fps", [5.0, 10.0, 4.0, 3.0])
def test_frames_and_sound_of_a_window_are_of_the_same_seconds(clock, fps):
    spec = dataclasses.replace(SPEC, fps=fps, frames=6, next_frames=2, other_gap=1.0)
    dataset = training_clips(Records(str(clock)), "unlabelled", spec, batch_size=4, seed=1)
    starts, heard = set(), 0
    for batch in dataset.take(10).as_numpy_iterator():
        for i in range(4):
            times = {}
            for name, frames in (("", 8), ("other_", 6)):
                times[name] = shown_at(batch[f"{name}rgb"][i])
                offsets = np.arange(frames) / fps
                assert len(times[name]) == frames
                # The frame shown at an instant is at most one stored frame old.
                start = times[name][0]
                late = start + offsets - times[name]
                assert (np.abs(late) < 0.1 + 1e-6).all(), (start, times[name])
                for click in clicks(batch[f"{name}audio"][i]):
                    # `start` is up to one stored frame before the window's own start.
                    second = start + click
                    assert -0.006 < second - round(second) + (0.1 if fps in (4, 3) else 0) < 0.106
                    if fps in (5, 10):
                        assert abs(second - round(second)) < 0.006
                    heard += 1
            assert batch["has_other"][i] == (abs(times[""][0] - times["other_"][0]) > 0.9)
            starts.add(times[""][0])
    assert len(starts) > 5 and heard > 20


def test_a_short_video_is_repeated_with_its_sound(tmp_path, make_video, gray_frames):
    (tmp_path / "videos").mkdir()
    audio = np.zeros(44100)
    audio[22050:22050 + 220] = 0.9 * np.random.default_rng(0).choice([-1, 1], 220)
    make_video(tmp_path / "videos" / "a.mp4", gray_frames(20 + 3 * np.arange(10)), audio=audio)
    conversion.convert(conversion.Conversion(
        source=str(tmp_path / "videos"), output=str(tmp_path), split="unlabelled", workers=0,
        options=encoding.VideoOptions(fps=10, min_side=16)))
    spec = dataclasses.replace(SPEC, frames=8, next_frames=4)
    clip, = stream_of(tmp_path, spec, 1)
    np.testing.assert_allclose(shown_at(clip["rgb"]), np.tile([0, 0.2, 0.4, 0.6, 0.8], 3)[:12])
    np.testing.assert_allclose(clicks(clip["audio"]), [0.5, 1.5], atol=0.006)
    assert not clip["has_other"]


def stream_of(folder, spec, count):
    batches = training_clips(Records(str(folder)), "unlabelled", spec, batch_size=1, seed=1)
    return [{name: x[0] for name, x in batch.items()}
            for batch in batches.take(count).as_numpy_iterator()]


# --- space ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parsed_noise():
    """A record of 6 noisy frames of 20 x 26 and its flow codes, parsed."""
    generator = np.random.default_rng(1)
    frames = generator.integers(0, 256, (6, 20, 26, 3), np.uint8)
    flows = generator.integers(0, 256, (6, 20, 26, 3), np.uint8)
    clip = make_clip(frames, flows, fps=5.0)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(x))) for x in clip.images])
    return parsing.parse(records.encode_example(clip, example_id="a"), SPEC), pixels, flows


def decode(parsed, box, spec=SPEC):
    window = decoding.decode_window(
        parsed, tf.constant(1), spec.frames, tf.constant(box), spec.size, spec)
    return {name: x.numpy() for name, x in window.items()}


def test_the_crop_is_the_same_of_frames_and_flow(parsed_noise):
    parsed, pixels, flows = parsed_noise
    window = decode(parsed, [3, 7, 16, 16])
    assert np.array_equal(window["rgb"], pixels[1:5, 3:19, 7:23])
    assert np.array_equal(window["flow"], flows[1:5, 3:19, 7:23, :2])


@pytest.mark.parametrize("box", [(2, 2, 28, 28), (0, 16, 16, 16), (9, 15, 20, 20), (0, 0, 31, 31),
                                 (1, 8, 33, 33), (0, 7, 34, 34)])
def test_a_crop_has_the_pixels_of_the_whole_picture(box):
    """Also where colour is stored at half the resolution, as converted records have it."""
    frames = np.random.default_rng(2).integers(0, 256, (4, 34, 41, 3), np.uint8)
    images = [encoded(x, "JPEG", quality=92) for x in frames]
    clip = encoding.EncodedClip(images, None, None, 5.0, 0.0, 34, 41)
    parsed = parsing.parse(records.encode_example(clip, example_id="a"), SPEC)
    spec = dataclasses.replace(SPEC, size=box[2])
    whole = [tf.io.decode_jpeg(images[i], dct_method="INTEGER_ACCURATE") for i in (1, 2, 3, 0)]
    y, x, side, _ = box
    expected = np.stack(whole)[:, y:y + side, x:x + side]
    assert np.array_equal(decode(parsed, list(box), spec)["rgb"], expected)


@pytest.mark.parametrize(("crop", "saturation"), [(16, 20.0), (32, 20.0), (24, 40.0), (8, 10.0)])
def test_flow_is_scaled_with_the_pixels(crop, saturation):
    code = np.array([200, 90, 0], np.uint8)
    clip = make_clip(np.zeros((6, 40, 40, 3), np.uint8), np.tile(code, (6, 40, 40, 1)), fps=5.0)
    example = tf.train.SequenceExample.FromString(records.encode_example(clip, example_id="a"))
    example.context.feature[schema.FLOW_SATURATION].float_list.value[:] = [saturation]
    parsed = parsing.parse(example.SerializeToString(), SPEC)
    flow = decode(parsed, [2, 3, crop, crop])["flow"]
    stored = (code[:2] / 255 * 2 - 1) * saturation  # pixels of the stored frame
    expected = np.clip(stored * 16 / crop, -20, 20)
    np.testing.assert_allclose((flow / 255 * 2 - 1) * 20, np.broadcast_to(expected, flow.shape),
                               atol=20 / 255 + 1e-6)


def test_flow_without_a_stored_saturation_is_not_read_as_zero(parsed_noise):
    parsed, _, flows = parsed_noise
    window = decode({**parsed, "flow_clip": tf.constant(0.0)}, [0, 0, 16, 16])
    assert np.array_equal(window["flow"], flows[1:5, :16, :16, :2])


def test_training_crops_go_everywhere_and_the_test_crop_is_central(tmp_path):
    # x and y of every pixel are its red and green.
    y, x = np.mgrid[0:40, 0:40] * 6
    frames = np.broadcast_to(np.stack([x, y, 0 * x], -1).astype(np.uint8), (6, 40, 40, 3))
    write_split(tmp_path, "unlabelled", [
        records.encode_example(make_clip(frames, fps=5.0), example_id="a")])
    spec = dataclasses.replace(SPEC, crop=0.4)  # 16 of 40 pixels
    corners = []
    for clip in stream_of(tmp_path, spec, 150):
        red, green = (clip["rgb"][0, ..., c].astype(float) / 6 for c in (0, 1))
        corners.append((round(red.min()), round(green.min())))
        assert (clip["rgb"][1:] == clip["rgb"][0]).all()  # one crop for the whole clip
        other = clip["other_rgb"][0, ..., 0]
        assert np.array_equal(other, clip["rgb"][0, ..., 0])  # and for its other window
    for axis in np.transpose(corners):
        assert axis.min() <= 2 and axis.max() >= 22 and axis.max() <= 24
        assert abs(axis.mean() - 12) < 3
    batch = next(iter(pipeline.testing_clips(
        Records(str(tmp_path)), "unlabelled", spec, batch_size=1)))
    assert abs(batch["rgb"][0, 0, 0, 0, 0] / 6 - 12) < 0.6
    assert abs(batch["rgb"][0, 0, 0, 0, 1] / 6 - 12) < 0.6


def test_resizing_is_bilinear_with_antialias():
    video = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)
    resized = decoding.resize(tf.constant(video), 16).numpy()
    centres = (np.arange(16) + 0.5) * 1.5
    weights = np.maximum(0, 1 - np.abs(np.arange(24) + 0.5 - centres[:, None]) / 1.5)
    weights /= weights.sum(1, keepdims=True)
    expected = np.einsum("yh,thwc,xw->tyxc", weights, video.astype(float), weights)
    assert np.abs(resized - expected).max() <= 0.5 + 1e-3


# --- what is missing ------------------------------------------------------------------------------


def test_missing_flow_and_sound_are_masks(folder):
    clips = stream(folder, 48)
    for clip in clips:
        i = int(clip["id"].decode()[1:])
        assert clip["has_flow"] == (i % 3 != 0)
        assert clip["has_audio"] == (i % 3 != 1)
        assert clip["label"] == (-1 if i % 2 else i)
        assert np.abs(clip["rgb"].astype(int) - 10 * i).max() <= 1
        assert clip["flow"].shape == (6, 16, 16, 2)
        assert clip["audio"].shape == (SPEC.samples(6),)
        assert bool(clip["audio"].any()) == clip["has_audio"]
        if not clip["has_flow"]:
            assert len(np.unique(clip["flow"])) == 1


# --- order ----------------------------------------------------------------------------------------


def test_the_stream_is_a_function_of_the_seed_alone(folder):
    first = stream(folder, 60)
    tf.random.set_seed(77)
    assert same(first, stream(folder, 60))
    assert ids(first) != ids(stream(folder, 60, seed=6))


def test_two_iterations_of_one_dataset_are_the_same(folder):
    dataset = training_clips(
        Records(str(folder)), "unlabelled", SPEC, batch_size=4, seed=5, device_only=False).take(15)
    first, second = ([x["id"].tolist() for x in dataset.as_numpy_iterator()] for _ in range(2))
    assert first == second


def test_every_epoch_has_each_record_once_in_an_order_of_its_own(folder):
    order = ids(stream(folder, 72))
    epochs = [order[:24], order[24:48], order[48:]]
    everything = [f"v{i:02}" for i in range(24)]
    assert all(sorted(epoch) == everything for epoch in epochs)
    assert len({tuple(x) for x in [*epochs, everything]}) == 4


def test_a_record_is_cut_anew_in_every_epoch(folder):
    clips = stream(folder, 24 * 6)
    first_audio = {}
    for clip in clips:
        if clip["has_audio"]:
            first_audio.setdefault(clip["id"], set()).add(clip["audio"][0])
    # Records of 9 to 12 frames at 10 fps have only one place for 6 frames at 5 fps.
    assert all(len(x) <= 1 for x in first_audio.values())
    spec = dataclasses.replace(SPEC, frames=2, next_frames=1)
    dataset = training_clips(Records(str(folder)), "unlabelled", spec, batch_size=24, seed=5)
    batches = list(dataset.take(6).as_numpy_iterator())
    cuts = {}
    for batch in batches:
        for key, audio, has in zip(batch["key"], batch["audio"], batch["has_audio"], strict=True):
            if has:
                cuts.setdefault(key, set()).add(audio[0])
    assert sum(len(x) > 1 for x in cuts.values()) > len(cuts) / 2


@pytest.mark.parametrize("start", [1, 7, 13])
def test_a_resumed_stream_goes_on_where_it_was(folder, start):
    whole = stream(folder, 72)
    resumed = stream(folder, 72 - 4 * start, start_step=start)
    assert same(whole[4 * start:], resumed)
    assert [x["index"] for x in resumed[:3]] == [4 * start, 4 * start + 1, 4 * start + 2]


def test_a_clip_does_not_depend_on_its_neighbours(folder):
    assert same(stream(folder, 48), stream(folder, 48, batch_size=12))


# --- parts and shards -----------------------------------------------------------------------------


def test_fit_and_heldout_are_disjoint_and_complete(folder):
    few = Records(str(folder), heldout_percent=30)
    parts = {part: read_ids(few, part) for part in streams.PARTS}
    assert len(parts["all"]) == 24
    assert sorted(parts["fit"] + parts["heldout"]) == sorted(parts["all"])
    assert not set(parts["fit"]) & set(parts["heldout"])
    assert parts["heldout"] and parts["fit"]
    drawn = set(ids(stream(folder, 60, part="fit")))
    assert not drawn & {x.decode() for x in read_ids(Records(str(folder)), "heldout")}


def read_ids(records_, part):
    batches = pipeline.testing_clips(records_, "unlabelled", SPEC, batch_size=5, part=part)
    return [x for batch in batches for x in batch["id"].numpy().tolist()]


def test_a_part_does_not_depend_on_what_else_is_there(folder, tmp_path):
    """A video held out stays so when the set grows."""
    for shard in range(3):
        name = schema.shard_name("unlabelled", shard, 3)
        (tmp_path / name).write_bytes((folder / name).read_bytes() if shard else b"")
    few, all_of_them = (set(read_ids(Records(str(x)), "heldout")) for x in (tmp_path, folder))
    assert few <= all_of_them


def test_what_cannot_be_read_is_named(folder, tmp_path):
    def fails(match, records_=None, split="unlabelled", part="all", **options):
        with pytest.raises(UserError, match=match):
            pipeline.require_clips(records_ or Records(str(tmp_path)), split, part, SPEC, **options)

    fails("no folder .*nowhere.*convert_videos", Records(str(tmp_path / "nowhere")))
    fails("no records of split 'unlabelled' .*no records at all")
    fails(r"no records of split 'train' \(it has: unlabelled\)", Records(str(folder)), "train")
    fails("no clip in the 'heldout' part of split 'unlabelled'.*heldout_percent .now 0",
          Records(str(folder), heldout_percent=0), part="heldout")
    fails("no clip in the 'fit' part", Records(str(folder), heldout_percent=100), part="fit")
    fails("has 24 clips in the 'all' part .*ZipfFitness.k = 30 needs 30", Records(str(folder)),
          least=30, why="ZipfFitness.k = 30")
    names = [schema.shard_name("unlabelled", i, 3) for i in range(3)]
    for name in names[:2]:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    fails(r"lacks unlabelled-00002-of-00003.tfrecord \(1 of 3")
    (tmp_path / names[2]).write_bytes(b"\x05" * 100)
    (tmp_path / names[0]).write_bytes(b"\x05" * 100)
    fails("record number 0 of .*unlabelled-00000-of-00003.tfrecord and what follows it cannot be "
          "read; set Records.on_corrupt = 'skip'")
    write_split(tmp_path, "unlabelled", [], shards=2)
    fails("mixes the shard sets of unlabelled-00000-of-00002.* and unlabelled-00000-of-00003")
    assert Records(str(tmp_path)).splits() == ["unlabelled"]


def test_an_empty_split_is_named(tmp_path):
    write_split(tmp_path, "unlabelled", [], shards=2)
    with pytest.raises(UserError, match="no clip in the 'all' part of split 'unlabelled'"):
        pipeline.require_clips(Records(str(tmp_path)), "unlabelled", "all", SPEC)


# --- testing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("windows", [1, 2, 3])
def test_testing_reads_every_clip_once_in_the_order_of_the_records(folder, windows):
    batches = list(pipeline.testing_clips(Records(str(folder)), "unlabelled", SPEC, batch_size=7,
                                 windows=windows).as_numpy_iterator())
    order = [f"v{i:02}" for shard in range(3) for i in range(shard, 24, 3)]
    read = [x.decode() for batch in batches for x in batch["id"]]
    assert read == [x for x in order for _ in range(windows)]
    assert {len(batch["id"]) for batch in batches[:-1]} == {7}
    assert batches[0]["rgb"].shape == (7, 4, 16, 16, 3)


def test_testing_windows_are_spread_over_the_video(clock):
    def seconds(windows):
        batch = next(iter(pipeline.testing_clips(
            Records(str(clock)), "unlabelled", SPEC, batch_size=windows, windows=windows)))
        return [shown_at(x)[0] for x in batch["rgb"].numpy()]

    # 30 places on the track, the last window starts at the 26th.
    assert seconds(1) == [2.6]
    assert seconds(2) == [0.0, 5.2]
    assert seconds(3) == [0.0, 2.6, 5.2]


def test_samples_for_the_report_prefer_clips_with_everything(folder):
    (folder / schema.LABELS_FILE).write_text("".join(f"class{i}\n" for i in range(24)))
    samples = record_samples.read_samples(Records(str(folder)), "unlabelled", SPEC, 4)
    assert len(samples) == 4
    for sample in samples:
        i = int(sample.id[1:])
        assert i % 3 == 2 and sample.flow.shape == (4, 16, 16, 2)
        assert sample.log_mel.shape == (4 * SPEC.mel_per_frame, 16)
        assert np.abs(sample.frames.astype(int) - 10 * i).max() <= 1
        assert sample.label == ("" if i % 2 else f"class{i}")
        assert np.abs(sample.flow).max() <= 20
    mute = record_samples.read_samples(Records(str(folder)), "unlabelled", SPEC, 24)
    assert len(mute) == 24
    assert sum(x.flow is None for x in mute) == sum(x.log_mel is None for x in mute) == 8


# --- real clips -----------------------------------------------------------------------------------


def test_real_clips_with_and_without_sound(shared_videos, tmp_path):
    chosen = []
    for group in ("actions", "speech", "weizmann", "gestures"):
        files = sorted(x for x in (shared_videos / group).rglob("*")
                       if x.suffix in (".mp4", ".avi", ".webm", ".mkv", ".mpg"))
        chosen += files[:2]
    source = tmp_path / "videos.csv"
    source.write_text("video_path\n" + "".join(f"{x}\n" for x in chosen))
    summary = conversion.convert(conversion.Conversion(
        source=str(source), output=str(tmp_path / "records"), split="unlabelled", workers=0,
        options=encoding.VideoOptions(
            fps=6, min_side=32, limits=dataclasses.replace(encoding.VideoOptions().limits,
                                                           max_seconds=4.0))))
    assert summary["converted"] >= 6
    assert 0 < summary["with_audio"] < summary["converted"]
    dataset = training_clips(Records(str(tmp_path / "records")), "unlabelled", SPEC,
                             batch_size=summary["converted"], seed=1)
    batch = next(dataset.as_numpy_iterator())  # one epoch
    assert batch["has_audio"].sum() == summary["with_audio"]
    assert batch["has_flow"].all()
    assert batch["rgb"].std((1, 2, 3, 4)).min() > 3
    assert np.isfinite(batch["audio"]).all() and np.abs(batch["audio"]).max() <= 1.01
    assert not batch["audio"][~batch["has_audio"]].any()
