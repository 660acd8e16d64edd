"""What is missing is missing: it changes nothing, counts nothing, and breaks nothing."""

import numpy as np
import pytest

from elo_tf.losses import LossSpace

NAMES = LossSpace().names
ONES = dict.fromkeys(NAMES, 1.0)
GONE = (False,) * 8
ONE = (False, False, True, False, False, False, False, False)
# The modalities that each loss needs beyond RGB.
CROSS = {"rgb/transfer": ("flow",), "rgb/contrast": ("flow",), "rgb/align": ("audio",),
         "flow/contrast": ("flow", "audio"), "gray/contrast": ("audio",),
         "gray/align": ("flow",), "audio/align": ("audio", "flow")}


def needs(name):
    first, kind, *_ = name.split("/")
    if name in CROSS:
        return CROSS[name]
    main = kind if first == "distill" else first
    return (main,) if main in ("flow", "audio") else ()


def garbage(batch, absent):
    """The batch with other content where examples lack the modality."""
    generator = np.random.Generator(np.random.PCG64(9))
    changed = dict(batch)
    for name in absent:
        lacking = ~batch["has_other"]
        if not name.startswith("other_"):
            lacking = ~batch[f"has_{name}"]
        values = batch[name].copy()
        noise = generator.uniform(0, 255, values[lacking].shape)
        values[lacking] = noise if values.dtype == np.uint8 else noise / 255 - 0.5
        changed[name] = values
    return changed


@pytest.mark.parametrize("absent", (
    ("flow",), ("audio",), ("other_rgb", "other_flow", "other_audio")), ids=lambda x: x[0])
def test_the_content_of_what_is_absent_changes_nothing(absent, measure, measured, batch):
    changed = measure(garbage(batch, absent), ONES)
    assert changed.counts == measured.counts
    for name in NAMES:
        np.testing.assert_allclose(changed.shares[name], measured.shares[name], rtol=1e-5)
    for group, norm in changed.norms.items():
        np.testing.assert_allclose(norm, measured.norms[group], rtol=1e-4, atol=1e-6)


def test_what_counts_is_known_from_what_is_present(measured):
    for name in NAMES:
        np.testing.assert_array_equal(
            measured.masks[name], measured.outputs[name].mask, err_msg=name)


def test_the_content_of_what_is_present_does_change_losses(measure, measured, batch):
    changed = dict(batch, other_flow=batch["other_flow"][::-1])
    shares = measure(changed, ONES).shares
    assert abs(shares["gray/align"] - measured.shares["gray/align"]) > 1e-5


@pytest.mark.parametrize("gone", (("flow",), ("audio",), ("flow", "audio")), ids="+".join)
def test_without_a_modality_its_losses_are_exactly_zero(gone, measure, make_tiny_batch):
    result = measure(make_tiny_batch(5, **{f"has_{name}": GONE for name in gone}), ONES)
    assert all(np.isfinite(norm) for norm in result.norms.values())
    for name in NAMES:
        output = result.outputs[name]
        assert np.isfinite(output.loss).all() and np.isfinite(output.trivial).all()
        if set(needs(name)) & set(gone):
            assert result.shares[name] == 0 and result.counts[name] == 0, name
        else:
            assert np.isfinite(result.shares[name]) and result.counts[name] == 8, name
    for modality in gone:
        assert result.norms[modality] == 0


def test_without_another_time_other_clips_are_the_negatives(measure, make_tiny_batch):
    result = measure(make_tiny_batch(6, has_other=GONE), ONES)
    assert all(count == 8 for count in result.counts.values())
    assert all(np.isfinite(norm) for norm in result.norms.values())


def test_one_clip_with_flow_and_sound_is_enough(measure, make_tiny_batch):
    result = measure(make_tiny_batch(7, has_flow=ONE, has_audio=ONE), ONES)
    assert all(np.isfinite(norm) and norm > 0 for norm in result.norms.values())
    for name in NAMES:
        assert np.isfinite(result.shares[name])
        assert result.counts[name] == (1 if needs(name) else 8), name


def test_one_pair_without_any_negative_does_not_count(measure, make_tiny_batch):
    result = measure(make_tiny_batch(7, has_flow=ONE, has_audio=ONE, has_other=GONE), ONES)
    for name in ("rgb/align", "gray/align", "audio/align"):
        assert result.counts[name] == 0 and result.shares[name] == 0
    assert all(np.isfinite(norm) for norm in result.norms.values())


def test_one_compiled_graph_measured_it_all(measure, measured):
    assert measure.traces() == 1
