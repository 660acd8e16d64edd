"""Augmented clips: one draw for all frames, windows and modalities; off; how often and how much."""

import dataclasses

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.errors import UserError
from elo_tf.views.augmentation import Augmentation
from elo_tf.views.clip_views import FLOW_SCALE, ClipViews

VIEWS = ("intact", "next", "shuffled", "reversed", "other_time")
ALL = {"crop_area": (0.3, 1.0), "crop_aspect": (0.5, 2.0), "flip": 0.5, "jitter": 0.8,
       "brightness": 0.3, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "blur": 0.7,
       "time_masks": 2, "time_mask": 0.3, "freq_masks": 1, "freq_mask": 0.3}
CROP = {name: ALL[name] for name in ("crop_area", "crop_aspect")}
KINDS = {"crop": CROP, "flip": {"flip": 0.5}, "brightness": {"brightness": 0.3},
         "contrast": {"contrast": 0.4}, "saturation": {"saturation": 0.4}, "hue": {"hue": 0.1},
         "blur": {"blur": 0.7}, "all": ALL}


def views_of(batch, clip, seed=1, **settings):
    return ClipViews({name: tf.constant(value) for name, value in batch.items()}, clip, seed,
                     augmentation=Augmentation(**settings))


@pytest.fixture(scope="module")
def large_clip(tiny_clip):
    return dataclasses.replace(tiny_clip, host_size=24)


@pytest.fixture(scope="module")
def still_batch(make_tiny_batch):
    """Clips that stand still: the first frame, over and over, in both windows."""
    batch = make_tiny_batch(3)
    first = batch["rgb"][:, :1]
    return batch | {"rgb": np.repeat(first, 6, 1), "other_rgb": np.repeat(first, 4, 1)}


def test_off_is_to_the_bit_what_it_would_be_without(make_tiny_batch, tiny_clip):
    batch = make_tiny_batch(1)
    off = views_of(batch, tiny_clip)
    plain = ClipViews({name: tf.constant(value) for name, value in batch.items()}, tiny_clip, 1)
    for modality in ("rgb", "gray", "flow", "audio"):
        for view in VIEWS:
            np.testing.assert_array_equal(off.view(modality, view), plain.view(modality, view))
            assert off.encoder_input(modality, view) is off.view(modality, view)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_that_stands_still_stands_still(kind, still_batch, tiny_clip):
    views = views_of(still_batch, tiny_clip, **KINDS[kind])
    plain = views_of(still_batch, tiny_clip)
    for face in ("view", "encoder_input"):
        first = getattr(views, face)("rgb", "intact").numpy()[:, :1]
        for view in VIEWS:
            frames = getattr(views, face)("rgb", view).numpy()
            np.testing.assert_allclose(frames, np.broadcast_to(first, frames.shape), atol=1e-5)
    changed = (first != plain.view("rgb", "intact").numpy()[:, :1]).any((1, 2, 3, 4))
    assert changed.any() and (kind in ("flip", "blur", "all") or changed.all())


@pytest.mark.parametrize("kind", KINDS)
def test_gray_is_the_luma_of_what_rgb_has_become(kind, make_tiny_batch, tiny_clip):
    views = views_of(make_tiny_batch(4), tiny_clip, **KINDS[kind])
    for view in VIEWS:
        for face in (views.view, views.encoder_input):
            expected = face("rgb", view).numpy() @ [0.299, 0.587, 0.114]
            np.testing.assert_allclose(face("gray", view)[..., 0], expected, atol=1e-3)


@pytest.mark.parametrize("settings", ({"flip": 0.5}, CROP | {"flip": 0.5}, {}),
                         ids=("flip", "crop and flip", "resize"))
def test_augmented_flow_is_the_motion_of_the_augmented_frames(settings):
    # Textures that move by a known speed, different in x and y.
    clip = ClipSpec(frames=4, next_frames=2, size=48, host_size=64, mel_bins=16, mel_per_frame=4)
    generator = np.random.Generator(np.random.PCG64(5))
    speeds = np.stack([generator.choice((-3, -2, 2, 3), 6), generator.choice((-1, 0, 1), 6)], 1)
    frames = np.zeros((6, 6, 64, 64, 3), np.uint8)
    for i, (dx, dy) in enumerate(speeds):
        texture = scipy.ndimage.gaussian_filter(generator.normal(size=(104, 104, 3)), (3, 3, 0))
        texture = np.clip(128 + 300 * texture, 0, 255).astype(np.uint8)
        for t in range(6):
            top, left = 20 - dy * t, 20 - dx * t
            frames[i, t] = texture[top:top + 64, left:left + 64]
    coded = np.round((speeds / 40 + 0.5) * 255)[:, None, None, None]
    batch = {"rgb": frames, "flow": np.broadcast_to(coded, (6, 6, 64, 64, 2)).astype(np.uint8),
             "index": np.arange(6), "key": np.arange(6) * 7919}
    views = views_of(batch, clip, **settings)
    rgb, flow = views.view("rgb", "intact").numpy(), views.view("flow", "intact") * FLOW_SCALE
    if settings:
        mirrored = {tuple(np.sign(f[0, 0, 0, :1] * s[:1]))
                    for f, s in zip(flow.numpy(), speeds, strict=True)}
        assert mirrored == {(-1.0,), (1.0,)}
    inside = (slice(8, -8), slice(8, -8))
    for clip_frames, motion in zip(rgb, flow.numpy(), strict=True):
        grid = np.stack(np.meshgrid(np.arange(48), np.arange(48), indexing="ij")).astype(float)
        places = grid + np.moveaxis(motion[1], -1, 0)[::-1]
        warped = np.stack([scipy.ndimage.map_coordinates(clip_frames[2, ..., c], places, order=1)
                           for c in range(3)], -1)
        moved = np.abs(clip_frames[2] - clip_frames[1])[inside].mean()
        left = np.abs(warped - clip_frames[1])[inside].mean()
        assert left < 0.15 * moved


def test_clips_larger_than_the_network_takes_are_resized(large_clip, tiny_clip):
    generator = np.random.Generator(np.random.PCG64(6))
    rgb, flow = (generator.integers(0, 256, (2, 6, 24, 24, c), np.uint8) for c in (3, 2))
    for augmentation in (None, Augmentation()):
        views = ClipViews({"rgb": tf.constant(rgb), "flow": tf.constant(flow)}, large_clip,
                          augmentation=augmentation)
        for name, stored, made in (
                ("rgb", rgb / 255, views.view("rgb", "intact") * 0.225 + 0.45),
                ("flow", flow * (40 / 255) - 20, views.view("flow", "intact") * 3.0)):
            expected = tf.image.resize(stored[:, :4].reshape(8, 24, 24, -1), [16, 16],
                                       antialias=True)
            # Still flow lies between two codes: up to 0.08 pixels from them.
            np.testing.assert_allclose(tf.reshape(made, expected.shape), expected,
                                       atol=1e-5 if name == "rgb" else 0.08)


COUNT = 4000


@pytest.fixture(scope="module")
def draws():
    index = tf.range(COUNT, dtype=tf.int64)
    return Augmentation().draw(index, index * 7919, 1)


@pytest.mark.parametrize("area, aspect", (((0.3, 1.0), (0.5, 2.0)), ((0.1, 0.4), (0.75, 1.33)),
                                          ((0.9, 1.0), (0.5, 2.0)), ((1.0, 1.0), (2.0, 2.0))))
def test_crops_have_the_area_and_aspect_that_were_asked_for(area, aspect, draws):
    box = Augmentation(crop_area=area, crop_aspect=aspect).box(draws, 32).numpy()
    top, left, height, width = box.T.astype(float)
    assert min(top.min(), left.min()) >= 0
    assert max((top + height).max(), (left + width).max()) <= 32 + 1e-4
    share = height * width / 32 ** 2
    assert share.min() >= area[0] - 1e-5 and share.max() <= area[1] + 1e-5
    if area[0] < area[1]:
        assert scipy.stats.kstest(share, "uniform", (area[0], area[1] - area[0])).pvalue > 1e-3
    # What would not fit is not drawn: a large crop is nearly square.
    ratio, fits = np.log(width / height), -np.log(share) + 1e-4
    low, high = (np.clip(np.log(x), -fits, fits) for x in aspect)
    assert (ratio >= low - 1e-4).all() and (ratio <= high + 1e-4).all()
    if area[0] < 1:
        place = (ratio - low)[fits > 0.01] / (high - low)[fits > 0.01]
        assert scipy.stats.kstest(place, "uniform").pvalue > 1e-3
        free = 32 - height > 0.5
        assert scipy.stats.kstest((top / (32 - height))[free], "uniform").pvalue > 1e-3


def test_draws_are_uniform_and_know_nothing_of_each_other(draws):
    table = np.stack(list(dataclasses.asdict(draws).values()))
    assert table.shape == (12, COUNT) and table.min() >= 0 and table.max() < 1
    for row in table:
        assert scipy.stats.kstest(row, "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(table) - np.eye(12)).max() < 0.08


def test_how_often_clips_are_flipped_recoloured_and_blurred(draws):
    frames = np.tile(np.linspace(60, 180, 6).reshape(1, 1, 1, 6, 1), (COUNT, 1, 6, 1, 3))
    frames = tf.constant(frames, tf.float32)
    augmentation = Augmentation(flip=0.3, jitter=0.6, brightness=0.2, blur=0.4)
    for changed, probability in (
            (augmentation.place(frames, draws, 6), 0.3),
            (augmentation.recolour(frames, draws), 0.6),
            (augmentation.soften(frames, draws), 0.4 * 0.97)):  # a sigma of 0.15 changes nothing
        share = np.mean((changed.numpy() != frames.numpy()).any((1, 2, 3, 4)))
        assert abs(share - probability) < 0.03
    added = (augmentation.recolour(frames, draws) - frames).numpy()[:, 0, 0, 0, 0] / 255
    added = added[added != 0]
    assert scipy.stats.kstest(added, "uniform", (-0.2, 0.4)).pvalue > 1e-3


def test_a_clip_is_augmented_by_seed_position_and_id_alone(make_tiny_batch, tiny_clip):
    batch = make_tiny_batch(7)

    def made(batch, seed=1):
        views = views_of(batch, tiny_clip, seed, **ALL)
        return {m: views.encoder_input(m, "intact").numpy() for m in ("rgb", "flow", "audio")}

    whole = made(batch)
    parts = made({name: value[::-2] for name, value in batch.items()})
    for modality in whole:
        np.testing.assert_allclose(parts[modality], whole[modality][::-2], atol=1e-5)
    others = (made(batch, seed=2), made(batch | {"index": batch["index"] + 1}),
              made(batch | {"key": batch["key"] + 1}))
    for other in others:
        for modality in whole:
            assert (np.abs(other[modality] - whole[modality]) > 1e-3).any((1, 2)).any()


def test_blur_is_seen_by_encoders_and_never_a_target(make_tiny_batch, tiny_clip):
    batch = make_tiny_batch(8)
    views = views_of(batch, tiny_clip, blur=1.0, blur_sigma=(1.0, 1.0))
    plain = views_of(batch, tiny_clip)
    for view in VIEWS:
        sharp = plain.view("rgb", view).numpy()
        np.testing.assert_array_equal(views.view("rgb", view), sharp)
        blurred = scipy.ndimage.gaussian_filter(
            sharp, (0, 0, 1, 1, 0), mode="mirror", radius=(0, 0, 3, 3, 0))
        np.testing.assert_allclose(views.encoder_input("rgb", view), blurred, atol=1e-4)
    assert views.encoder_input("flow", "intact") is views.view("flow", "intact")


def test_masks_are_seen_by_encoders_and_differ_between_views(make_tiny_batch, tiny_clip):
    views = views_of(make_tiny_batch(9), tiny_clip, time_masks=1, time_mask=0.4, freq_masks=1,
                     freq_mask=0.4)
    plain = views_of(make_tiny_batch(9), tiny_clip)
    masks = {}
    for view in VIEWS:
        mel = views.view("audio", view).numpy()
        np.testing.assert_array_equal(mel, plain.view("audio", view))
        seen = views.encoder_input("audio", view).numpy()
        masks[view] = (seen == 0) & (mel != 0)
        np.testing.assert_array_equal(seen, np.where(masks[view], 0, mel))
        for mask in masks[view]:
            # Whole rows and whole columns, each in one piece and no wider than asked for.
            time, freq = mask.all(1), mask.all(0)
            np.testing.assert_array_equal(mask, time[:, None] | freq)
            for band, widest in ((time, round(0.4 * len(time))), (freq, round(0.4 * 16))):
                assert np.abs(np.diff(band.astype(int), prepend=0, append=0)).sum() in (0, 2)
                assert band.sum() <= widest
    names = [view for view in VIEWS if view != "next"]  # the shorter one
    for i, first in enumerate(names):
        for second in names[i + 1:]:
            assert (masks[first] != masks[second]).any((1, 2)).sum() >= 6


def test_masks_have_no_arrow_of_time(make_tiny_batch, tiny_clip):
    """A mask that came before the rearranging would lie elsewhere in a reversed clip."""
    batch = make_tiny_batch(10)
    batch = {name: np.repeat(value[:1], 600, 0) for name, value in batch.items()}
    batch |= {"index": np.arange(600), "key": np.arange(600) * 7919}
    views = views_of(batch, tiny_clip, time_masks=1, time_mask=0.5)
    counts = []
    for view in ("intact", "shuffled", "reversed"):
        masked = (views.encoder_input("audio", view).numpy() == 0).all(2)
        counts.append(masked.sum(0))
        assert not masked[:, -1].any() and masked[:, 0].any()
    assert scipy.stats.chi2_contingency(np.stack(counts)[:, :-1] + 1).pvalue > 1e-3


@pytest.mark.parametrize(("settings", "message"), [
    ({"flip": 1.5}, r"Augmentation.flip is 1.5; it must lie in \[0, 1\]"),
    ({"hue": 0.6}, r"Augmentation.hue is 0.6; it must lie in \[0, 0.5\]"),
    ({"crop_area": (0.0, 1.0)}, r"Augmentation.crop_area is \(0.0, 1.0\); it must be a range"),
    ({"crop_area": (0.5, 0.2)}, "Augmentation.crop_area is"),
    ({"crop_aspect": (1.0,)}, "Augmentation.crop_aspect is"),
    ({"crop_area": ("a", 1)}, r"Augmentation.crop_area is \('a', 1\); it must be a range"),
    ({"crop_area": (0.5, float("nan"))}, r"crop_area is \(0.5, nan\); it must be a range"),
    ({"crop_aspect": "12"}, "Augmentation.crop_aspect is '12'; it must be a range"),
    ({"blur_sigma": 2.0}, "Augmentation.blur_sigma is 2.0; it must be a range"),
    ({"flip": "often"}, r"Augmentation.flip is 'often'; it must lie in \[0, 1\]"),
    ({"freq_masks": -1}, "Augmentation.freq_masks is -1")])
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Augmentation(**settings)
