"""The contact sheet, read back from its pixels."""

import colorsys
import dataclasses
import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from elo_tf.data import flow, records
from elo_tf.data.encoding import EncodedClip
from elo_tf.reporting import contact_sheet as cs
from elo_tf.reporting import samples
from elo_tf.views.log_mel import LogMel

COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (40, 200, 200),
           (200, 40, 200), (120, 120, 120), (250, 140, 20)]
TURNS = [0, 45, 90, 135, 180, 225, 270, 315]


def encoded(image, kind, **settings):
    file = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(image)).save(file, kind, **settings)
    return file.getvalue()


def make_record(*, height=30, width=40, flows=True, audio=True):
    """16 frames of 8 colours, two each; flow of 5 px in 8 directions; sound in the second half."""
    images = [np.broadcast_to(np.uint8(COLOURS[i // 2]), (height, width, 3)) for i in range(16)]
    moves = [np.broadcast_to(5 * np.float32([np.cos(a), np.sin(a)]), (height, width, 2))
             for a in np.radians(np.repeat(TURNS, 2))]
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(32000) / 16000)
    tone[:16000] = 0
    return records.encode_example(EncodedClip(
        images=[encoded(x, "JPEG", quality=95, subsampling=0) for x in images],
        flows=[encoded(flow.quantise(x), "PNG") for x in moves] if flows else None,
        audio=tone.astype(np.float32) if audio else None, fps=8.0, start=0.0, height=height,
        width=width), example_id="класс/клип $x$ 🎬\n.mp4", label=3, label_name="run")


def draw(tmp_path, clips):
    path = tmp_path / "sheet.png"
    cs.draw(clips, path, title="a title")
    return np.array(PIL.Image.open(path).convert("RGB")).astype(int)


def middle(index, strip_height):
    """Middle of the picture of frame `index` in a strip, from the strip's corner."""
    share = (cs.STRIP + samples.GAP) / 8
    return round((index + 0.5) * share - samples.GAP / 2), strip_height // 2


def test_what_is_read_of_a_record():
    clip = cs.read_clip(make_record(), split="train")
    assert (clip.fps, clip.seconds, clip.size, clip.label, clip.split) == (
        8.0, 2.0, (40, 30), "run", "train")
    assert clip.id == "класс/клип $x$ 🎬\n.mp4"
    assert clip.frames.shape == (8, 30, 40, 3)
    np.testing.assert_allclose(clip.frames.mean((1, 2)), COLOURS, atol=2)
    angles = np.degrees(np.arctan2(clip.flow[:, 3, 3, 1], clip.flow[:, 3, 3, 0])) % 360
    np.testing.assert_allclose((angles - TURNS + 180) % 360 - 180, 0, atol=2)
    assert (len(clip.waveform), clip.sample_rate) == (32000, 16000.0)


def test_a_sheet_shows_frames_flow_and_sound_where_they_belong(tmp_path):
    clip = cs.read_clip(make_record())
    sheet = cs._Sheet([clip])
    left, top, tall = sheet.place(0)
    pixels = draw(tmp_path, [clip])
    assert pixels.shape == (sheet.height, sheet.width, 3)
    assert (sheet.width, left) == (2 * cs.MARGIN + cs.LABELS + cs.STRIP, cs.MARGIN + cs.LABELS)
    frames, flows = top + cs.TITLE, top + cs.TITLE + tall + cs.SPACE
    for i in range(8):
        x, y = middle(i, tall)
        np.testing.assert_allclose(pixels[frames + y, left + x], COLOURS[i], atol=3)
        # All flow is as long as the longest: its hue is the direction, its saturation is full.
        expected = 255 * np.array(colorsys.hsv_to_rgb(TURNS[i] / 360, 1.0, 1.0))
        np.testing.assert_allclose(pixels[flows + y, left + x], expected, atol=12)
    # Between the pictures is paper.
    gap = round((cs.STRIP + samples.GAP) / 8) - 2
    assert pixels[frames + tall // 2, left + gap].min() == 255
    # The sound is a line in its first half, and fills its panel in the second.
    wave = pixels[flows + tall + cs.SPACE:][:cs.WAVE, left:left + cs.STRIP]
    inked = (np.abs(wave - (4, 120, 87)).max(-1) < 60).sum(0)
    assert inked[10:cs.STRIP // 2 - 10].max() <= 3
    assert inked[cs.STRIP // 2 + 10:-10].min() > 0.8 * cs.WAVE
    mel = pixels[flows + tall + cs.SPACE + cs.WAVE + cs.SPACE:][:cs.MEL, left:left + cs.STRIP]
    light = mel.sum(-1)[2:-2]
    assert light[:, 10:cs.STRIP // 2 - 20].max() < 120
    # 1000 Hz in mel of 2595 log10(1 + f / 700): where it stands between 125 and 7500 Hz.
    low, tone, high = (np.log(1 + f / 700) for f in (125, 1000, 7500))
    row = light[:, cs.STRIP * 3 // 4].argmax() + 2
    assert 1 - row / cs.MEL == pytest.approx((tone - low) / (high - low), abs=0.06)


def test_the_wheel_is_the_key_of_the_flow(tmp_path):
    clip = cs.read_clip(make_record())
    sheet = cs._Sheet([clip])
    left, top, tall = sheet.place(0)
    pixels = draw(tmp_path, [clip])
    side = min(44, tall - 30)
    rows = pixels[top + cs.TITLE + tall + cs.SPACE:][:side]
    wheel = rows[:, left - 12 - side:left - 12]
    centre = side // 2
    for turn, (x, y) in {0: (1, 0), 0.25: (0, 1), 0.5: (-1, 0), 0.75: (0, -1)}.items():
        pixel = wheel[round(centre + 0.85 * y * side / 2), round(centre + 0.85 * x * side / 2)]
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        assert abs((hue - turn + 0.5) % 1 - 0.5) < 0.02
        assert (saturation, value) == (pytest.approx(0.85, abs=0.06), 1.0)


def test_what_a_clip_lacks_is_an_empty_panel(tmp_path):
    clip = cs.read_clip(make_record(flows=False, audio=False))
    assert clip.flow is None
    assert clip.waveform is None
    sheet = cs._Sheet([clip])
    left, top, tall = sheet.place(0)
    panel = draw(tmp_path, [clip])[top + cs.TITLE + tall + cs.SPACE:]
    grey = [int(cs.EMPTY[i:i + 2], 16) for i in (1, 3, 5)]
    sound = tall + cs.SPACE
    for y in (10, sound + 10, sound + cs.WAVE + cs.SPACE + cs.MEL - 10):
        np.testing.assert_array_equal(panel[y, left + 20], grey)
        np.testing.assert_array_equal(panel[y, left + cs.STRIP - 20], grey)
    # With a word in the middle.
    assert panel[:tall, left + cs.STRIP // 2 - 40:][:, :80].min() < 160


def test_clips_stand_in_two_columns(tmp_path):
    clips = [cs.read_clip(make_record(flows=i > 0, audio=i != 1, height=30 + 10 * i))
             for i in range(3)]
    sheet = cs._Sheet(clips)
    pixels = draw(tmp_path, clips)
    assert pixels.shape == (sheet.height, sheet.width, 3)
    # Those beside each other are as high as the higher one.
    assert sheet.place(1)[1:] == sheet.place(0)[1:]
    assert sheet.place(2)[2] > sheet.place(0)[2]
    for index in range(3):
        left, top, tall = sheet.place(index)
        x, y = middle(5, tall)
        np.testing.assert_allclose(pixels[top + cs.TITLE + y, left + x], COLOURS[5], atol=3)


def test_upright_and_single_frames_are_drawn(tmp_path):
    tall = cs.read_clip(make_record(height=80, width=32))
    assert cs._Sheet([tall]).place(0)[2] == cs.MOST
    still = cs.Clip(id="x" * 400, frames=tall.frames[:1], size=(32, 80), label="y" * 300)
    pixels = draw(tmp_path, [still])
    sheet = cs._Sheet([still])
    left, top, height = sheet.place(0)
    np.testing.assert_allclose(
        pixels[top + cs.TITLE + height // 2, left + cs.STRIP // 2], COLOURS[0], atol=3)
    # The long names keep to their clip.
    assert (pixels[:, left + cs.STRIP + 2:] == 255).all()


def test_the_envelope_is_the_extent_of_each_column():
    waveform = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    times, low, high = cs.envelope(waveform, 100.0, 50)
    parts = waveform.reshape(50, 20)
    np.testing.assert_array_equal(low, parts.min(1))
    np.testing.assert_array_equal(high, parts.max(1))
    np.testing.assert_allclose(times, np.arange(50) * 0.2 + 0.1)
    assert len(cs.envelope(waveform[:7], 100.0, 50)[0]) == 7


def test_a_filmstrip_fills_a_given_width():
    images = np.broadcast_to(np.arange(4, dtype=np.uint8)[:, None, None, None], (4, 10, 20, 3))
    strip = samples.filmstrip(images, height=100, width=400)
    assert strip.shape == (100, 400, 4)
    shown = strip[50, :, 3] == 255
    # Each share is 101 wide and takes pictures of 97 x 48, in the middle.
    assert shown.sum() == 4 * 97
    assert [int(strip[50, 50 + 101 * i, 0]) for i in range(4)] == [0, 1, 2, 3]
    rows = np.flatnonzero(strip[:, 50, 3])
    assert (rows[0], len(rows)) == (26, 48)


def test_many_sounds_are_drawn_without_a_word_of_tensorflow(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(tf.get_logger(), "handle", said.append)
    clip = cs.read_clip(make_record())
    draw(tmp_path, [dataclasses.replace(clip, waveform=clip.waveform[:length])
                    for length in range(16000, 32000, 2000)])
    assert said == []
    mel, spectrogram = cs._log_mel(16000)
    np.testing.assert_allclose(spectrogram(clip.waveform[None]),
                               LogMel()(clip.waveform[None]), atol=1e-4)
    assert mel.fmax == 7500 and cs._log_mel(8000)[0].fmax == 4000
