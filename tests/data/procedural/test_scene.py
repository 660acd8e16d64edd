"""The procedural motions: what they are, and that only they tell the classes apart."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from elo_tf.data import procedural
from elo_tf.data.procedural import render as procedural_render
from elo_tf.data.procedural import shapes
from elo_tf.data.procedural import sound as procedural_sound


def _scene(*seed: int) -> procedural.Scene:
    return procedural.draw_scene(np.random.Generator(np.random.PCG64(seed)))


def _voice(samples: int, *seed: int) -> procedural_sound.Voice:
    return procedural_sound.draw_voice(np.random.Generator(np.random.PCG64(seed)), samples)


def _states(name: str, time: float, count: int) -> dict[str, np.ndarray]:
    """What a frame at `time` shows in `count` random scenes, in numbers that should not differ."""
    rows = []
    for index in range(count):
        scene = _scene(5, procedural.CLASS_NAMES.index(name), index)
        path = procedural.trajectory(name, scene, np.array([time]))
        apart = path.other_position[0] - path.position[0]
        rows.append([*path.position[0] % procedural.WORLD_SIDE, path.size[0],
                     path.angle[0] % (2 * np.pi), np.hypot(*apart)])
    columns = np.array(rows).T
    return dict(zip(["x", "y", "size", "angle", "apart"], columns, strict=True))


def test_there_are_enough_classes_and_pairs():
    assert len(procedural.DEFAULT_CLASSES) >= 12
    assert set(procedural.DEFAULT_CLASSES) <= set(procedural.CLASS_NAMES)
    kept = [pair for pair in procedural.REVERSED_PAIRS
            if set(pair) <= set(procedural.DEFAULT_CLASSES)]
    assert len(kept) >= 4
    assert len(procedural.OTHER_CLASSES) >= 12
    assert not set(procedural.OTHER_CLASSES) & set(procedural.DEFAULT_CLASSES)


def test_worlds_share_nothing():
    first, second = (procedural.WORLDS[name] for name in ("first", "second"))
    assert not set(first.shapes) & set(second.shapes)
    assert not set(first.textures) & set(second.textures)
    assert first.clicks[1] < second.clicks[0]
    scenes = [procedural.draw_scene(np.random.Generator(np.random.PCG64(index)), second)
              for index in range(100)]
    assert {scene.main.shape for scene in scenes} == set(second.shapes)
    assert {scene.other.texture for scene in scenes} == set(second.textures)


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_shapes_are_of_about_one_size_and_have_soft_edges(shape):
    axis = np.linspace(-1.5, 1.5, 601)
    u, v = np.meshgrid(axis, axis)
    distance = shapes.SHAPES[shape](u, v)
    area = (distance < 0).sum() * 0.005 ** 2
    assert 0.9 < area < 3.2
    assert np.hypot(u, v)[distance < 0].max() < 1.45
    slope = np.hypot(*np.gradient(distance, 0.005))[np.abs(distance) < 0.02]
    assert 0.5 < np.median(slope) < 1.5


def test_the_sound_of_the_second_world_has_harmonics_of_its_own():
    scene = dataclasses.replace(_scene(15), radius=0.15)
    samples = 2 * procedural_sound.SAMPLE_RATE
    for name, wanted in (("first", {1, 2, 3, 4}), ("second", {1, 3, 5, 7, 9})):
        voice = procedural_sound.draw_voice(
            np.random.Generator(np.random.PCG64(1)), samples, world=procedural.WORLDS[name])
        voice = dataclasses.replace(voice, click_level=0.0)
        # Nothing changes in a rotation, so its hum has one pitch.
        track = procedural_sound.impacts("rotate_cw", scene, voice, samples)
        spectrum = np.abs(np.fft.rfft(track * np.hanning(samples)))
        octaves = procedural_sound.pitch_octaves("rotate_cw", scene, np.arange(5) / 100)[0]
        base = voice.pitch * 2.0 ** octaves
        found = {k for k in range(1, 11)
                 if spectrum[round(2 * k * base) - 3:round(2 * k * base) + 4].max()
                 > 0.02 * spectrum.max()}
        assert found <= wanted and 1 in found and len(found) > 1


@pytest.mark.parametrize("pair", procedural.REVERSED_PAIRS)
def test_pairs_differ_only_by_the_direction_of_time(pair):
    times = np.linspace(0.0, 2.5, 41)
    for index in range(20):
        scene = _scene(3, index)
        mirrored = dataclasses.replace(scene, phase=-scene.phase)
        forwards = procedural.trajectory(pair[0], scene, times)
        backwards = procedural.trajectory(pair[1], mirrored, -times)
        for field in dataclasses.fields(forwards):
            np.testing.assert_allclose(getattr(forwards, field.name),
                                       getattr(backwards, field.name), atol=1e-9)


@pytest.mark.parametrize("name", procedural.CLASS_NAMES)
def test_every_frame_has_the_same_distribution_in_every_class(name):
    count = 600
    wanted = _states("translate", 0.0, count)
    first = _states(name, 0.0, count) if name != "translate" else None
    later = _states(name, 1.37, count)
    for key in ("x", "y", "size", "angle", "apart"):
        if first is not None:
            assert scipy.stats.ks_2samp(wanted[key], first[key]).pvalue > 1e-4, key
        if key != "apart":  # Later the objects of some classes have gone their own ways.
            assert scipy.stats.ks_2samp(wanted[key], later[key]).pvalue > 1e-4, key


def test_motions_move_as_their_names_say():
    scene = dataclasses.replace(_scene(1), period=0.8, phase=0.25, heading=0.0, reach=1.0)
    times = np.arange(0.0, 0.5, 0.01)

    def along(name):
        return np.diff(procedural.trajectory(name, scene, times).position[:, 0])

    np.testing.assert_allclose(along("translate"), 0.5 * 0.01 / 0.8)
    assert np.all(np.diff(np.abs(along("speed_up"))) > 0)
    assert np.all(np.diff(np.abs(along("slow_down"))) < 0)
    assert np.all(np.diff(procedural.trajectory("rotate_cw", scene, times).angle) > 0)
    assert np.all(np.diff(procedural.trajectory("rotate_ccw", scene, times).angle) < 0)
    orbit = procedural.trajectory("orbit_cw", scene, np.arange(0.0, 1.6, 0.01)).position
    np.testing.assert_allclose(np.hypot(*(orbit - orbit.mean(0)).T), 0.22, rtol=1e-6)
    growth = np.diff(procedural.trajectory("expand", scene, np.arange(0.0, 8.0, 0.01)).radius)
    assert 0.75 < np.mean(growth > 0) < 0.85


def test_objects_touch_at_impacts_and_never_overlap_in_collisions():
    for name in ("collide", "hammer", "recoil"):
        for index in range(20):
            scene = _scene(4, index)
            events = procedural.event_times(scene, 3.0)
            path = procedural.trajectory(name, scene, events)
            contact = path.radius + scene.other_radius
            apart = np.linalg.norm(path.other_position - path.position, axis=1)
            np.testing.assert_allclose(apart, contact, atol=1e-6)
            path = procedural.trajectory(name, scene, np.linspace(0.0, 3.0, 200))
            apart = np.linalg.norm(path.other_position - path.position, axis=1)
            assert np.all(apart >= contact[0] - 1e-9)


def test_frames_are_drawn_alike_at_any_size():
    scene = _scene(2)
    times = np.arange(3) / 8
    path = procedural.trajectory("orbit_cw", scene, times)
    small = procedural_render.render(scene, path, times, 48)
    large = procedural_render.render(scene, path, times, 192)
    assert small.shape == (3, 48, 48, 3) and small.dtype == np.uint8
    reduced = large.reshape(3, 48, 4, 48, 4, 3).mean((2, 4))
    assert np.abs(reduced - small).mean() < 2.0


def test_the_world_has_joined_edges():
    scene = _scene(2)
    times = np.zeros(1)
    path = procedural.trajectory("translate", scene, times)
    moved = dataclasses.replace(path, position=path.position + [procedural.WORLD_SIDE, 0.0])
    np.testing.assert_array_equal(procedural_render.render(scene, path, times, 32),
                                  procedural_render.render(scene, moved, times, 32))


def test_objects_stand_out_and_are_neither_brighter_nor_darker_on_average():
    scenes = [_scene(6, index) for index in range(400)]
    colours = np.array([scene.main.colours.mean(0) for scene in scenes])
    ground = np.array([scene.background.colour for scene in scenes])
    assert np.abs((colours - ground).mean()) < 0.02
    contrast = [np.abs(scene.main.colours[0] - scene.background.colour).mean() for scene in scenes]
    assert np.percentile(contrast, 5) > 0.2


def test_clicks_are_at_the_impacts_and_loud():
    samples = 3 * procedural_sound.SAMPLE_RATE
    window = int(0.03 * procedural_sound.SAMPLE_RATE)
    for index, name in enumerate(procedural.CLASS_NAMES):
        scene, voice = _scene(8, index), _voice(samples, 9, index)
        track = procedural_sound.impacts(name, scene, voice, samples)
        starts = (procedural.event_times(scene, 3.0) * procedural_sound.SAMPLE_RATE).astype(int)
        at = np.zeros(samples, bool)
        clear = np.ones(samples, bool)
        for start in starts:
            at[start:start + window] = True
            clear[start:start + 3 * window] = False
        assert len(starts) >= 2
        assert np.sqrt(np.mean(track[at] ** 2)) > 1.5 * np.sqrt(np.mean(track[clear] ** 2))


def test_events_are_where_the_motion_turns():
    scene = _scene(11)
    events = procedural.event_times(scene, 3.0)
    events = events[(events > 0.05) & (events < 2.95)]
    for name in ("oscillate", "bounce", "zigzag", "collide", "hammer"):
        around = [procedural.trajectory(name, scene, event + np.array([-2e-3, -1e-3, 1e-3, 2e-3]))
                  for event in events]
        for path in around:
            steps = [np.diff(where, axis=0)[[0, 2]]
                     for where in (path.position, path.other_position)]
            changed = sum(np.linalg.norm(after - before) for before, after in steps)
            moved = sum(np.linalg.norm(step) for step in steps)
            assert changed > 0.5 * moved, name


def test_pitch_follows_speed_and_size():
    scene = dataclasses.replace(_scene(12), period=0.8, heading=0.0)
    times = np.arange(0.0, 3.0, 0.01)
    speed = np.gradient(procedural.trajectory("speed_up", scene, times).position[:, 0], 0.01)
    pitch = procedural_sound.pitch_octaves("speed_up", scene, times)
    assert np.corrcoef(speed, pitch)[0, 1] > 0.95
    size = procedural.trajectory("expand", scene, times).size
    assert np.corrcoef(size, procedural_sound.pitch_octaves("expand", scene, times))[0, 1] < -0.95


def test_loudness_is_the_voice_s_not_the_motion_s():
    samples = 2 * procedural_sound.SAMPLE_RATE
    for index in range(30):
        scene, voice = _scene(13, index), _voice(samples, 14, index)
        for name in ("translate", "bounce", "expand"):
            track = procedural_sound.soundtrack(name, scene, voice, samples)
            assert np.abs(track).max() <= 0.981
            loudness = 20 * np.log10(np.sqrt(np.mean(track.astype(np.float64) ** 2)))
            assert loudness < voice.loudness_db + 0.01
            if np.abs(track).max() < 0.97:
                assert loudness > voice.loudness_db - 0.01
