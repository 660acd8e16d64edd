"""Clips read from records that the converter's own code wrote."""

import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data import (
    conversion,
    encoding,
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
RGB = {"modalities": ("rgb",), "other": False}  # where the order alone counts


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
    assert ids(first) != ids(stream(folder, 60, seed=6, **RGB))
    assert ids(first) != ids(stream(folder, 60, seed=0, **RGB))


@pytest.mark.parametrize("threads", [1, 7])
def test_the_stream_does_not_depend_on_the_processors(folder, threads):
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = threads
    options.autotune.enabled = threads > 1
    dataset = training_clips(Records(str(folder)), "unlabelled", SPEC, batch_size=4, seed=5,
                             device_only=False, **RGB).with_options(options)
    batches = list(dataset.take(12).as_numpy_iterator())
    clips = [{name: x[i] for name, x in batch.items()} for batch in batches for i in range(4)]
    assert same(stream(folder, 48, **RGB), clips)


def test_two_replicas_share_each_batch(folder, two_replicas):
    """What the strategy makes of the dataset changes nothing in it."""
    dataset = training_clips(Records(str(folder), on_corrupt="skip"), "unlabelled", SPEC,
                             batch_size=4, seed=5, **RGB)
    distributed = two_replicas.experimental_distribute_dataset(dataset.take(3))
    expected = stream(folder, 12, **RGB)
    for step, batch in enumerate(distributed):
        keys = [x.numpy().tolist() for x in two_replicas.experimental_local_results(batch["key"])]
        mine = [int(clip["key"]) for clip in expected[4 * step:4 * step + 4]]
        assert keys == [mine[:2], mine[2:]]


@pytest.mark.parametrize("on_corrupt, start_step, options", (("error", 3, {}), ("skip", 2, RGB)))
def test_the_workers_rows_together_are_the_global_batch(folder, on_corrupt, start_step, options):
    records = Records(str(folder), on_corrupt=on_corrupt)
    options = options | {"batch_size": 6, "seed": 5, "start_step": start_step}
    whole, *shares = (
        list(training_clips(records, "unlabelled", SPEC, share=share, **options).take(
            3).as_numpy_iterator())
        for share in ((0, 1), (0, 3), (1, 3), (2, 3)))
    for batch, *parts in zip(whole, *shares, strict=True):
        assert {"rgb", "key", "index"} <= set(batch) and batch["key"].shape == (6,)
        for name, x in batch.items():
            assert {part[name].shape for part in parts} == {(2, *x.shape[1:])}
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), x)
    assert whole[0]["index"].tolist() == list(range(6 * start_step, 6 * start_step + 6))
    endless = training_clips(records, "unlabelled", SPEC, share=(1, 2), **options)
    assert endless.cardinality() == tf.data.INFINITE_CARDINALITY
    assert endless.element_spec["rgb"].shape[0] == endless.element_spec["key"].shape[0] == 3


def test_a_batch_that_the_workers_cannot_share_is_refused(folder):
    with pytest.raises(UserError, match="a batch_size of 8 cannot be split evenly over 3 hosts"):
        training_clips(Records(str(folder)), "unlabelled", SPEC, batch_size=8, seed=5, share=(0, 3))


def test_neighbours_in_a_shard_are_not_neighbours_in_the_stream(tmp_path, make_clip, write_split):
    """Also where the shuffle buffer is of no help."""
    clip = make_clip(np.zeros((3, 16, 16, 3), np.uint8), fps=5.0)
    for shard in range(8):
        records.write_shard(tmp_path / schema.shard_name("unlabelled", shard, 8), [
            records.encode_example(clip, example_id=f"{shard}/{i}") for i in range(6)])
    unshuffled = Records(str(tmp_path), shuffle_megabytes=1e-6)
    batches = training_clips(unshuffled, "unlabelled", SPEC, batch_size=8, seed=2,
                             device_only=False, **RGB)
    for i, batch in enumerate(batches.take(12).as_numpy_iterator()):
        names = [x.decode().split("/") for x in batch["id"]]
        assert {shard for shard, _ in names} == set("01234567")
        assert {number for _, number in names} == {str(i % 6)}


def test_two_iterations_of_one_dataset_are_the_same(folder):
    dataset = training_clips(
        Records(str(folder)), "unlabelled", SPEC, batch_size=4, seed=5, device_only=False,
        **RGB).take(15)
    first, second = ([x["id"].tolist() for x in dataset.as_numpy_iterator()] for _ in range(2))
    assert first == second


def test_every_epoch_has_each_record_once_in_an_order_of_its_own(folder):
    order = ids(stream(folder, 72, **RGB))
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


@pytest.mark.parametrize("start", [1, 13])
def test_a_resumed_stream_goes_on_where_it_was(folder, start):
    whole = stream(folder, 72)
    resumed = stream(folder, 72 - 4 * start, start_step=start)
    assert same(whole[4 * start:], resumed)
    assert [x["index"] for x in resumed[:3]] == [4 * start, 4 * start + 1, 4 * start + 2]


def test_a_clip_does_not_depend_on_its_neighbours(folder):
    assert same(stream(folder, 48, **RGB), stream(folder, 48, batch_size=12, **RGB))


# --- parts and shards -----------------------------------------------------------------------------


def test_fit_and_heldout_are_disjoint_and_complete(folder):
    few = Records(str(folder), heldout_percent=30)
    parts = {part: read_ids(few, part) for part in streams.PARTS}
    assert len(parts["all"]) == 24
    assert sorted(parts["fit"] + parts["heldout"]) == sorted(parts["all"])
    assert not set(parts["fit"]) & set(parts["heldout"])
    assert parts["heldout"] and parts["fit"]
    drawn = set(ids(stream(folder, 60, part="fit", **RGB)))
    assert not drawn & {x.decode() for x in read_ids(Records(str(folder)), "heldout")}


def read_ids(records_, part):
    batches = pipeline.testing_clips(records_, "unlabelled", SPEC, batch_size=5, part=part,
                                     modalities=("rgb",))
    return [x for batch in batches for x in batch["id"].numpy().tolist()]


def test_a_part_does_not_depend_on_what_else_is_there(folder, tmp_path):
    """A video held out stays so when the set grows."""
    for shard in range(3):
        name = schema.shard_name("unlabelled", shard, 3)
        (tmp_path / name).write_bytes((folder / name).read_bytes() if shard else b"")
    few, all_of_them = (set(read_ids(Records(str(x)), "heldout")) for x in (tmp_path, folder))
    assert few <= all_of_them


# --- testing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("windows", [1, 2])
def test_testing_reads_every_clip_once_in_the_order_of_the_records(folder, windows):
    batches = list(pipeline.testing_clips(Records(str(folder)), "unlabelled", SPEC, batch_size=7,
                                 windows=windows, modalities=("rgb",)).as_numpy_iterator())
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


def test_samples_for_the_report_prefer_clips_with_everything(folder, tmp_path):
    folder = shutil.copytree(folder, tmp_path / "labelled")
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


@pytest.mark.parametrize("views", [(2, 3), (1, 3)])
def test_testing_views_are_windows_by_crops(tmp_path, make_clip, write_split, views):
    windows, crops = views
    # Red tells the column, green the frame.
    x = np.broadcast_to(np.arange(40) * 6, (16, 40))
    for_each = [np.stack([x, np.full_like(x, 20 * t), 0 * x], -1) for t in range(10)]
    clip = make_clip(np.stack(for_each).astype(np.uint8), fps=5.0)
    write_split(tmp_path, "test", [records.encode_example(clip, example_id=str(i), label=i)
                                   for i in range(3)])
    batches = list(pipeline.testing_clips(
        Records(str(tmp_path)), "test", SPEC, batch_size=4, windows=windows, crops=crops,
        modalities=("rgb",)).as_numpy_iterator())
    assert all(set(batch) == {"rgb", "key", "label", "id"} for batch in batches)
    labels = np.concatenate([batch["label"] for batch in batches])
    assert labels.tolist() == np.repeat([0, 1, 2], windows * crops).tolist()
    rgb = np.concatenate([batch["rgb"] for batch in batches]).astype(float)
    left = np.round(rgb[:, 0, 0, 0, 0] / 6).reshape(3, windows, crops)
    first = np.round(rgb[:, 0, 0, 0, 1] / 20).reshape(3, windows, crops)
    assert (left == np.array([0, 12, 24])).all()
    assert (first == np.array([0, 6] if windows == 2 else [3])[:, np.newaxis]).all()


# --- what is asked for ----------------------------------------------------------------------------


@pytest.mark.parametrize(("modalities", "other"), [
    (("rgb",), False), (("flow", "audio"), True)])
def test_what_is_not_asked_for_is_not_there(folder, modalities, other):
    whole = stream(folder, 8)
    part = stream(folder, 8, modalities=modalities, other=other)
    names = {"key", "index", "label", "id", *modalities}
    names |= {f"has_{name}" for name in modalities if name != "rgb"}
    names |= {f"other_{name}" for name in modalities if other} | ({"has_other"} if other else set())
    for all_of_it, clip in zip(whole, part, strict=True):
        assert set(clip) == names
        assert all(np.array_equal(value, all_of_it[name]) for name, value in clip.items())


def test_what_is_not_asked_for_is_not_decoded(folder, tmp_path, write_split):
    examples = []
    for example in tf.data.TFRecordDataset(Records(str(folder)).shards("unlabelled")):
        spoilt = tf.train.SequenceExample.FromString(example.numpy())
        for flow in spoilt.feature_lists.feature_list[schema.FLOW_ENCODED].feature:
            flow.bytes_list.value[:] = [b"no picture"]
        examples.append(spoilt.SerializeToString())
    write_split(tmp_path, "unlabelled", examples)
    assert len(stream(tmp_path, 24, modalities=("rgb", "audio"))) == 24


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
