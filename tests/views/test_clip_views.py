import math

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data import flow
from elo_tf.data.clip_spec import ANALYSIS_SECONDS, ClipSpec
from elo_tf.views.clip_views import FLOW_SCALE, ClipViews, decode_flow, frame_orders
from elo_tf.views.log_mel import LogMel


def views_of(batch, clip, seed=1):
    return ClipViews({name: tf.constant(value) for name, value in batch.items()}, clip, seed)


@pytest.fixture(scope="module")
def batch(make_tiny_batch):
    return make_tiny_batch(1, has_flow=(True, False) * 4, has_audio=(True, True, False, False) * 2,
                           has_other=(False,) * 2 + (True,) * 6)


@pytest.fixture(scope="module")
def views(batch, tiny_clip):
    return views_of(batch, tiny_clip)


def test_windows_of_frames(views, batch):
    def rgb(stored):
        return (stored / 255 - 0.45) / 0.225

    def pixels(stored):
        return (stored * (40 / 255) - 20) / FLOW_SCALE

    for view, name, window in (("intact", "", slice(0, 4)), ("next", "", slice(4, 6)),
                               ("other_time", "other_", slice(0, 4))):
        np.testing.assert_allclose(
            views.view("rgb", view), rgb(batch[f"{name}rgb"][:, window]), atol=1e-5)
        stored = batch[f"{name}flow"][:, window]
        values = views.view("flow", view).numpy()
        still = (stored == 127) | (stored == 128)
        assert not values[still].any()
        np.testing.assert_allclose(values[~still], pixels(stored)[~still], atol=1e-5)


@pytest.mark.parametrize("view", ("intact", "next", "reversed", "shuffled", "other_time"))
def test_gray_is_the_luma_of_rgb(view, views):
    rgb = views.view("rgb", view).numpy()
    gray = views.view("gray", view).numpy()
    assert gray.shape == (*rgb.shape[:-1], 1)
    np.testing.assert_allclose(gray[..., 0], rgb @ [0.299, 0.587, 0.114], atol=1e-3)


def test_a_view_is_made_once(views):
    assert views.view("rgb", "shuffled") is views.view("rgb", "shuffled")
    assert views.view("audio", "intact") is views.view("audio", "intact")


def test_presence(views, batch):
    for modality, has in (("rgb", [True] * 8), ("gray", [True] * 8),
                          ("flow", batch["has_flow"]), ("audio", batch["has_audio"])):
        for view in ("intact", "next", "shuffled", "reversed"):
            np.testing.assert_array_equal(views.present(modality, view), has)
        np.testing.assert_array_equal(
            views.present(modality, "other_time"), np.array(has) & batch["has_other"])
        assert views.always_present(modality, "intact") == all(has)
        assert not views.always_present(modality, "other_time")


def test_reversed(views):
    for modality in ("rgb", "gray", "audio"):
        np.testing.assert_array_equal(
            views.view(modality, "reversed"), views.view(modality, "intact").numpy()[:, ::-1])
    np.testing.assert_array_equal(
        views.view("flow", "reversed"), -views.view("flow", "intact").numpy()[:, ::-1])


def test_reversed_flow_is_the_flow_of_the_reversed_video():
    clip = ClipSpec(frames=4, next_frames=2, size=48, mel_bins=16, mel_per_frame=4)
    generator = np.random.Generator(np.random.PCG64(4))
    texture = tf.image.resize(generator.uniform(0, 255, (1, 24, 24, 3)), [96, 96], "bicubic")[0]
    texture = np.clip(texture, 0, 255).astype(np.uint8)
    speeds = (2, 3, 1, 2, 3)  # pixels to the right, and half of it down, differ over time
    places = np.cumsum((0, *speeds))
    frames = [texture[24 - p // 2:72 - p // 2, 24 - p:72 - p] for p in places]
    coded = np.stack([flow.quantise(step)[..., :2] for step in flow.optical_flow(frames)])
    batch = {"rgb": np.stack(frames)[None], "flow": coded[None]}
    backward = views_of(batch, clip).view("flow", "reversed")[0].numpy() * FLOW_SCALE
    # The clip's last flow leads to the frame after it: that is where the way back begins.
    expected = np.stack(list(flow.optical_flow(frames[4::-1]))[:4])
    inner = (slice(None), slice(12, -12), slice(12, -12))
    np.testing.assert_allclose(backward[inner].mean((1, 2)), expected[inner].mean((1, 2)), atol=0.2)
    np.testing.assert_allclose(
        backward[inner][..., 0].mean((1, 2)), -np.array(speeds[3::-1]), atol=0.25)


def test_still_flow_has_no_direction_and_so_no_arrow_of_time(tiny_clip):
    coded = flow.quantise(np.zeros((1, 6, 16, 16, 2)))[..., :2]
    views = views_of({"flow": coded}, tiny_clip)
    for view in ("intact", "reversed"):
        assert not views.view("flow", view).numpy().any()
    assert not decode_flow(255 - coded).numpy().any()


def test_decoded_flow_is_odd_and_as_stored():
    codes = tf.constant(np.arange(256, dtype=np.uint8))
    values = decode_flow(codes).numpy()
    np.testing.assert_allclose(values, -values[::-1])
    stored = flow.dequantise(np.stack([np.arange(256)] * 2, -1).astype(np.uint8))[:, 0]
    np.testing.assert_allclose(np.delete(values, (127, 128)), np.delete(stored, (127, 128)),
                               atol=1e-5)


@pytest.mark.parametrize("fps, per_frame", ((8.0, 10), (8.0, 6), (10.0, 8), (12.5, 5)))
def test_a_click_sounds_in_the_spectrogram_frames_of_its_video_frame(fps, per_frame):
    clip = ClipSpec(frames=8, next_frames=4, fps=fps, mel_bins=16, mel_per_frame=per_frame)
    audio = np.zeros((12, clip.samples(clip.window)), np.float32)
    for j in range(12):
        middle = round((j + 0.5) / fps * clip.sample_rate)
        audio[j, middle - 8:middle + 8] = (-1.0) ** np.arange(16)
    batch = {"audio": audio}
    views = views_of(batch, clip)
    for view, first, frames in (("intact", 0, 8), ("next", 8, 4)):
        mel = views.view("audio", view).numpy()
        assert mel.shape == (12, frames * per_frame, 16)
        loudest = mel.max(-1).argmax(1) // per_frame
        np.testing.assert_array_equal(loudest[first:first + frames], np.arange(frames))
        silent = [j for j in range(12) if not first - 1 <= j <= first + frames]
        assert np.ptp(mel[silent]) == 0


def test_the_last_frames_of_sound_are_as_loud_as_if_it_went_on(tiny_clip):
    generator = np.random.Generator(np.random.PCG64(2))
    clip = tiny_clip
    audio = generator.normal(0, 0.1, (2, clip.samples(clip.window))).astype("f")
    views = views_of({"audio": audio, "other_audio": audio[:, :clip.samples(clip.frames)]}, clip)
    longer = np.concatenate([audio, generator.normal(0, 0.1, audio.shape)], 1).astype("f")
    mel = LogMel(sample_rate=clip.sample_rate, mel_bins=clip.mel_bins,
                 hop_seconds=clip.mel_hop_seconds, window_seconds=ANALYSIS_SECONDS)(longer).numpy()
    frames = clip.frames * clip.mel_per_frame
    every = clip.window * clip.mel_per_frame
    np.testing.assert_allclose(views.view("audio", "intact"), mel[:, :frames], atol=1e-4)
    np.testing.assert_allclose(views.view("audio", "other_time"), mel[:, :frames], atol=1e-4)
    np.testing.assert_allclose(views.view("audio", "next"), mel[:, frames:every], atol=1e-4)


def test_shuffled_has_one_order_for_all_modalities(views, batch, tiny_clip):
    orders = frame_orders(tf.constant(batch["index"]), tf.constant(batch["key"]), 4, 1).numpy()
    for modality in ("rgb", "flow", "gray", "audio"):
        intact = views.view(modality, "intact").numpy()
        shuffled = views.view(modality, "shuffled").numpy()
        pieces = 4 if modality != "audio" else 16
        for i, order in enumerate(orders):
            steps = intact[i].reshape(4, pieces // 4, *intact[i].shape[1:])
            np.testing.assert_array_equal(shuffled[i], steps[order].reshape(intact[i].shape))


def test_orders_are_permutations_other_than_the_identity():
    index = tf.range(2000, dtype=tf.int64)
    for frames in (2, 3, 8):
        orders = tf.function(frame_orders)(index, index * 7919, frames, 5).numpy()
        np.testing.assert_array_equal(np.sort(orders, 1), np.tile(np.arange(frames), (2000, 1)))
        assert (orders != np.arange(frames)).any(1).all()
        kinds = len({tuple(order) for order in orders})
        assert min(math.factorial(frames) - 1, 1800) <= kinds <= math.factorial(frames) - 1


def test_an_order_is_a_function_of_seed_position_and_id_alone():
    def draw(index, key, seed=1):
        return frame_orders(tf.constant(index, tf.int64), tf.constant(key, tf.int64), 8,
                            seed).numpy()

    together = draw([5, 6, 7], [50, 2**31 - 2, 70])
    np.testing.assert_array_equal(draw([6], [2**31 - 2]), together[1:2])
    np.testing.assert_array_equal(draw([7, 0, 5], [70, 1, 50])[::2], together[::-2])
    for other in (draw([6], [2**31 - 3]), draw([5], [2**31 - 2]), draw([6], [2**31 - 2], seed=2)):
        assert (other != together[1]).any()
