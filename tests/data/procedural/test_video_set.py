"""Sets of procedural videos: no class in stills or loudness, splits, equal bytes, resuming."""

import collections
import csv
import dataclasses
import json
import pathlib

import av
import numpy as np
import pytest
import scipy.stats
from sklearn import linear_model, model_selection, pipeline, preprocessing

from elo_tf.data import procedural
from elo_tf.data.flow import optical_flow
from elo_tf.data.procedural import video_set as procedural_set
from elo_tf.errors import UserError

SETTINGS = procedural_set.Settings(seed=1, seconds=2.0, size=48, fps=8.0)
CLIPS = 360
CHANCE = 1 / len(SETTINGS.classes)
LIMIT = CHANCE + 2 * np.sqrt(CHANCE * (1 - CHANCE) / CLIPS)
ENVELOPE_WINDOWS = 40


@pytest.fixture(scope="module")
def video_set(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("videos")
    made = procedural_set.make_set(
        str(folder), SETTINGS, {"unlabelled": 24, "train": CLIPS, "test": CLIPS}, workers=2)
    assert made == 2 * CLIPS + 24
    return folder


def _decode(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the frames and the waveform (zeros where there is no track) of a file."""
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24")
                           for frame in container.decode(video=0)])
        waveform = np.zeros(SETTINGS.samples)
        if container.streams.audio:
            container.seek(0)
            sound = np.concatenate([part.to_ndarray()[0] for part in container.decode(audio=0)])
            waveform[:len(sound)] = sound[:SETTINGS.samples]
    return frames, waveform


def _flow_statistics(frames: np.ndarray) -> np.ndarray:
    """A few numbers on a clip's optical flow: strength, divergence, curl, turning, in time."""
    y, x = np.mgrid[:frames.shape[1], :frames.shape[2]]
    rows = []
    for flow in list(optical_flow(frames))[:-1]:
        flow = flow - np.median(flow, (0, 1))  # What remains moves against the background.
        weight = np.linalg.norm(flow, axis=-1) + 1e-9
        offset_x = x - (x * weight).sum() / weight.sum()
        offset_y = y - (y * weight).sum() / weight.sum()
        scale = (weight * np.hypot(offset_x, offset_y)).sum()
        divergence = (offset_x * flow[..., 0] + offset_y * flow[..., 1]).sum() / scale
        curl = (offset_x * flow[..., 1] - offset_y * flow[..., 0]).sum() / scale
        # Spreading ripples have no local rotation, turning objects do.
        rotation = np.gradient(flow[..., 1], axis=1) - np.gradient(flow[..., 0], axis=0)
        spin = (rotation * weight).sum() / weight.sum()
        swell = np.gradient(flow[..., 0], axis=1) + np.gradient(flow[..., 1], axis=0)
        swelling = (swell * weight).sum() / weight.sum()
        rows.append([weight.mean(), divergence, curl, spin, swelling, *flow.mean((0, 1))])
    strength, divergence, curl, spin, swelling, mean_x, mean_y = np.array(rows).T
    speed = np.hypot(mean_x, mean_y) + 1e-6
    share = np.sqrt(speed[:-1] * speed[1:])
    share = share / share.sum() / (speed[:-1] * speed[1:])
    turning = (mean_x[:-1] * mean_y[1:] - mean_y[:-1] * mean_x[1:]) * share
    keeping = (mean_x[:-1] * mean_x[1:] + mean_y[:-1] * mean_y[1:]) * share
    spectra = [np.abs(np.fft.rfft(series - series.mean()))[1:5]
               for series in (strength, divergence)]
    # Growing slowly and shrinking fast, or the other way round: the extremes are lopsided.
    growth = [(total.max() + total.min()) / np.ptp(total)
              for total in (divergence * strength, swelling * strength)]
    return np.concatenate([
        [np.log(strength.mean()), strength.std() / strength.mean(),
         scipy.stats.skew(strength), scipy.stats.skew(np.diff(speed)),
         divergence.mean(), divergence.std(), scipy.stats.skew(divergence), np.abs(curl).mean(),
         curl.mean(), curl.std(), spin.mean(), np.sign(spin).mean(), *growth, turning.sum(),
         np.abs(turning).sum(), keeping.sum(),
         np.hypot(mean_x.mean(), mean_y.mean()) / speed.mean(), speed.mean() / strength.mean()],
        *(spectrum / (spectrum.sum() + 1e-9) for spectrum in spectra)])


@pytest.fixture(scope="module")
def features(video_set) -> dict[str, dict[str, np.ndarray]]:
    """Features and labels of both labelled splits, from the files."""
    found = {}
    for split in ("train", "test"):
        with open(video_set / f"{split}.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = collections.defaultdict(list)
        for row in rows:
            frames, waveform = _decode(video_set / row["video_path"])
            envelope = np.sqrt(np.mean(waveform.reshape(ENVELOPE_WINDOWS, -1) ** 2, axis=1))
            loudness = np.sqrt(np.mean(waveform ** 2))
            columns["label"].append(row["label"])
            columns["mean_frame"].append(frames.mean(0).ravel())
            columns["first_frame"].append(frames[0].ravel().astype(np.float64))
            columns["loudness"].append([loudness, np.log(loudness + 1e-4)])
            columns["envelope"].append(envelope)
            columns["flow"].append(_flow_statistics(frames))
        found[split] = {key: np.array(values) for key, values in columns.items()}
    return found


def _linear_accuracy(features: dict, key: str, inverse_penalty: float) -> float:
    train, test = features["train"], features["test"]
    scaler = preprocessing.StandardScaler().fit(train[key])
    train_x, test_x = scaler.transform(train[key]), scaler.transform(test[key])
    if train_x.shape[1] > train_x.shape[0]:
        # A ridge penalty keeps the weights in the span of the examples: the same fit, sooner.
        basis = np.linalg.svd(train_x, full_matrices=False)[2].T
        train_x, test_x = train_x @ basis, test_x @ basis
    model = linear_model.LogisticRegression(C=inverse_penalty, max_iter=1000)
    return model.fit(train_x, train["label"]).score(test_x, test["label"])


@pytest.mark.parametrize("key", ["mean_frame", "first_frame", "loudness", "envelope"])
def test_stills_and_loudness_do_not_tell_the_class(features, key):
    accuracy = _linear_accuracy(features, key, 1e-3)
    print(f"{key}: {accuracy:.3f} (limit {LIMIT:.3f})")
    assert accuracy <= LIMIT


def test_optical_flow_tells_the_class(features):
    accuracy = _linear_accuracy(features, "flow", 1.0)
    print(f"flow: {accuracy:.3f} (chance {CHANCE:.3f})")
    assert accuracy > 5 * CHANCE


def test_optical_flow_tells_reversed_pairs_apart(features):
    flow, label = (np.concatenate([features[split][key] for split in ("train", "test")])
                   for key in ("flow", "label"))
    for pair in procedural.REVERSED_PAIRS[:4]:
        chosen = np.isin(label, pair)
        model = pipeline.make_pipeline(preprocessing.StandardScaler(),
                                       linear_model.LogisticRegression(C=0.3, max_iter=1000))
        accuracy = model_selection.cross_val_score(
            model, flow[chosen], label[chosen], cv=10).mean()
        print(f"{pair}: {accuracy:.3f}")
        assert accuracy > 0.5 + 2 * np.sqrt(0.25 / chosen.sum()), pair


def test_files_have_the_frames_rate_and_sound_of_their_clips(video_set):
    for index in range(24):
        clip = procedural_set.make_clip(SETTINGS, "unlabelled", index)
        path = video_set / procedural_set.clip_path("unlabelled", index)
        with av.open(str(path)) as container:
            assert float(container.streams.video[0].average_rate) == SETTINGS.fps
            assert container.duration / av.time_base == pytest.approx(2.0, abs=0.02)
            assert bool(container.streams.audio) == (clip.waveform is not None)
        frames, waveform = _decode(path)
        assert frames.shape == clip.frames.shape == (16, 48, 48, 3)
        assert np.abs(frames.astype(int) - clip.frames).mean() < 8
        if clip.waveform is not None and clip.waveform.any():
            assert np.corrcoef(waveform, clip.waveform)[0, 1] > 0.9
        else:
            assert np.abs(waveform).max() < 1e-4


def test_labelled_splits_are_balanced_and_unlabelled_ones_tell_nothing(video_set):
    for split in ("train", "test"):
        with open(video_set / f"{split}.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        counts = collections.Counter(row["label"] for row in rows)
        assert set(counts.values()) == {CLIPS // len(SETTINGS.classes)}
        assert set(counts) == set(SETTINGS.classes)
        assert {(row["start"], row["end"]) for row in rows} == {("0.000", "2.000")}
        assert all((video_set / row["video_path"]).is_file() for row in rows)
    text = (video_set / "unlabelled.csv").read_text()
    assert text.startswith("video_path,start,end,label\n")
    assert text.splitlines()[1] == "unlabelled/unlabelled_00000.mp4,0.000,2.000,"
    assert not any(name in text for name in SETTINGS.classes)
    truth = json.loads((video_set / "truth.json").read_text())
    assert "never reads" in truth["about"]
    assert [clip["class"] for clip in truth["splits"]["unlabelled"]] == [
        procedural_set.class_of(SETTINGS, "unlabelled", index) for index in range(24)]


def test_unlabelled_classes_follow_zipf():
    count = 600
    drawn = collections.Counter(procedural_set.class_of(SETTINGS, "unlabelled", index)
                                for index in range(count))
    law = 1.0 / np.arange(1, 13)
    np.testing.assert_allclose(sorted(drawn.values(), reverse=True), count * law / law.sum(),
                               atol=2.5)
    orders = {tuple(name for name, _ in collections.Counter(
        procedural_set.class_of(procedural_set.Settings(seed=seed), "unlabelled", index)
        for index in range(200)).most_common(3)) for seed in range(8)}
    assert len(orders) > 4  # Which class is frequent depends on the seed.


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.5])
def test_the_law_of_the_unlabelled_classes_has_an_exponent(exponent):
    settings = dataclasses.replace(SETTINGS, zipf=exponent)
    drawn = collections.Counter(procedural_set.class_of(settings, "unlabelled", index)
                                for index in range(600))
    law = np.arange(1.0, 13.0) ** -exponent
    np.testing.assert_allclose(sorted(drawn.values(), reverse=True), 600 * law / law.sum(),
                               atol=2.5)


def test_stills_of_the_second_world_do_not_tell_its_classes():
    settings = dataclasses.replace(SETTINGS, world="second", classes=procedural.OTHER_CLASSES)
    found = {}
    for split in ("train", "test"):
        clips = [procedural_set.make_clip(settings, split, index) for index in range(CLIPS)]
        found[split] = {
            "label": np.array([clip.name for clip in clips]),
            "mean_frame": np.array([clip.frames.mean(0).ravel() for clip in clips]),
            "first_frame": np.array([clip.frames[0].ravel().astype(float) for clip in clips])}
    for key in ("mean_frame", "first_frame"):
        accuracy = _linear_accuracy(found, key, 1e-3)
        print(f"{key}: {accuracy:.3f} (limit {LIMIT:.3f})")
        assert accuracy <= LIMIT


def test_some_clips_are_silent_and_some_have_no_track_whatever_their_class():
    kinds = [procedural_set.sound_of(SETTINGS, "train", index) for index in range(2400)]
    names = [procedural_set.class_of(SETTINGS, "train", index) for index in range(2400)]
    counts = collections.Counter(kinds)
    assert counts["no_track"] / 2400 == pytest.approx(0.1, abs=0.02)
    assert counts["silent"] / 2400 == pytest.approx(0.1, abs=0.02)
    table = [[sum(kind == wanted and name == of for kind, name in zip(kinds, names, strict=True))
              for wanted in procedural_set.SOUNDS] for of in SETTINGS.classes]
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


def _contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


SMALL = procedural_set.Settings(seed=4, seconds=1.0, size=32, fps=8.0)


def test_bytes_do_not_depend_on_workers_or_other_splits(tmp_path):
    clips = {"unlabelled": 5, "train": 6, "test": 4}
    procedural_set.make_set(str(tmp_path / "one"), SMALL, clips, workers=1)
    procedural_set.make_set(str(tmp_path / "two"), SMALL, clips, workers=2)
    assert _contents(tmp_path / "one") == _contents(tmp_path / "two")
    procedural_set.make_set(str(tmp_path / "alone"), SMALL, {"train": 8}, workers=1)
    alone, one = _contents(tmp_path / "alone"), _contents(tmp_path / "one")
    shared = [name for name in alone if name.startswith("train/") and name in one]
    assert len(shared) == 6 and all(alone[name] == one[name] for name in shared)


def test_an_interrupted_set_is_completed_to_the_same_bytes(tmp_path):
    procedural_set.make_set(str(tmp_path / "whole"), SMALL, {"train": 4, "test": 3})
    part = tmp_path / "part"
    procedural_set.make_set(str(part), SMALL, {"train": 2})
    kept = part / "train/train_00001.mp4"
    written = kept.stat().st_mtime_ns
    (part / "train/train_00000.mp4").unlink()
    (part / "train/.train_00000.77.tmp.mp4").write_bytes(b"half a video")
    assert procedural_set.make_set(str(part), SMALL, {"train": 4, "test": 3}) == 6
    assert kept.stat().st_mtime_ns == written
    assert _contents(part) == _contents(tmp_path / "whole")


def test_other_settings_or_fewer_clips_are_refused(tmp_path):
    procedural_set.make_set(str(tmp_path), SMALL, {"train": 3})
    before = _contents(tmp_path)
    other = procedural_set.Settings(seed=5, seconds=1.0, size=32, fps=4.0)
    with pytest.raises(UserError, match=r"seed was 4, is 5; fps was 8.0, is 4.0"):
        procedural_set.make_set(str(tmp_path), other, {"train": 3})
    with pytest.raises(UserError, match="1 videos beyond the 2"):
        procedural_set.make_set(str(tmp_path), SMALL, {"train": 2})
    assert _contents(tmp_path) == before


def test_backdrops_go_with_the_class_and_change_nothing_else(tmp_path):
    plain = dataclasses.replace(SMALL, classes=("translate", "pulse", "collide"))
    always = dataclasses.replace(plain, backdrops=1.0)
    sometimes = dataclasses.replace(plain, backdrops=0.5)
    colours, labels, kept = [], [], 0
    for index in range(60):
        before, after, mixed = (
            procedural_set.make_clip(x, "train", index) for x in (plain, always, sometimes))
        np.testing.assert_array_equal(before.waveform if before.waveform is not None else 0,
                                      after.waveform if after.waveform is not None else 0)
        kept += np.array_equal(mixed.frames, before.frames)
        assert np.array_equal(mixed.frames, before.frames) or np.array_equal(
            mixed.frames, after.frames)
        colours.append(np.median(after.frames[0], axis=(0, 1)))
        labels.append(after.name)
    assert 15 < kept < 45
    classifier = pipeline.make_pipeline(preprocessing.StandardScaler(),
                                        linear_model.LogisticRegression())
    accuracy = model_selection.cross_val_score(classifier, colours, labels, cv=5).mean()
    assert 0.55 < accuracy < 0.999  # a still helps, and is not enough

    procedural_set.make_set(str(tmp_path), SMALL, {"train": 2})
    with pytest.raises(UserError, match="backdrops was 0.0, is 1.0"):
        procedural_set.make_set(str(tmp_path), dataclasses.replace(SMALL, backdrops=1.0),
                                {"train": 2})


def _accuracy(values, labels) -> float:
    classifier = pipeline.make_pipeline(preprocessing.StandardScaler(),
                                        linear_model.LogisticRegression(C=10.0))
    return model_selection.cross_val_score(classifier, values, labels, cv=4).mean()


def test_camera_and_sound_tell_groups_of_classes_and_together_all():
    plain = dataclasses.replace(SETTINGS, size=32, backdrops=1.0)
    moving, sounding = (dataclasses.replace(plain, cues=(x,)) for x in ("camera", "sound"))
    drifts, spectra, labels = [], [], []
    for index in range(180):
        before, moved, sounded = (
            procedural_set.make_clip(x, "train", index) for x in (plain, moving, sounding))
        unseen = dataclasses.replace(plain, backdrops=0.0)
        np.testing.assert_array_equal(
            sounded.frames, procedural_set.make_clip(unseen, "train", index).frames)
        if sounded.waveform is None or not sounded.waveform.any():
            continue
        np.testing.assert_array_equal(moved.waveform, before.waveform)
        assert not np.array_equal(sounded.waveform, before.waveform)
        flow = np.stack(list(optical_flow(moved.frames[:4], "dis")))
        drifts.append(np.median(flow.reshape(-1, 2), axis=0))
        power = np.abs(np.fft.rfft(sounded.waveform)) ** 2
        hertz = np.fft.rfftfreq(len(sounded.waveform), 1 / 16_000)
        bands = 350.0 * 2.0 ** np.arange(-0.625, 5.0, 0.625)
        spectra.append(np.log([power[(hertz >= a) & (hertz < b)].sum()
                               for a, b in zip(bands[:-1], bands[1:], strict=True)]))
        labels.append(plain.classes.index(moved.name))
    labels, both = np.array(labels), np.hstack([drifts, spectra])
    assert _accuracy(drifts, labels % 3) > 0.75 and _accuracy(drifts, labels) < 0.45
    assert _accuracy(spectra, labels % 4) > 0.75 and _accuracy(spectra, labels) < 0.55
    assert _accuracy(both, labels) > max(_accuracy(drifts, labels),
                                         _accuracy(spectra, labels)) + 0.15


def test_folders_that_are_not_ours_are_refused(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "holiday.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="truth.json is missing"):
        procedural_set.make_set(str(tmp_path), SMALL, {"train": 2})
    (tmp_path / "truth.json").write_text("[]")
    with pytest.raises(UserError, match="not a truth file"):
        procedural_set.make_set(str(tmp_path), SMALL, {"train": 2})
    with pytest.raises(UserError, match="is a file"):
        procedural_set.make_set(str(tmp_path / "truth.json"), SMALL, {"train": 2})


@pytest.mark.parametrize(("values", "message"), [
    ({"size": 33}, "size is 33"), ({"size": 0}, "size is 0"), ({"fps": 0.0}, "fps is 0"),
    ({"fps": float("nan")}, "fps is nan"), ({"seconds": 0.05}, "seconds is 0.05"),
    ({"seconds": float("nan")}, "seconds is nan"), ({"seed": -1}, "seed is -1"),
    ({"classes": ("bounce", "jump")}, "no class is called jump"),
    ({"classes": ("bounce", "bounce")}, "each once"), ({"classes": ("bounce",)}, "at least two"),
    ({"backdrops": 1.5}, "backdrops is 1.5"), ({"world": "third"}, "no world 'third'"),
    ({"backdrops": 1.0, "cues": ("smell",)}, "cues is smell"), ({"cues": ()}, "cues is empty"),
    ({"zipf": -1.0}, "zipf is -1"),
])
def test_bad_settings_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        procedural_set.Settings(**values)
