"""Streams of some of the records, chosen by their ids."""

import itertools

import pytest

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.pipeline import training_clips
from elo_tf.data.record_set import Records

SPEC = ClipSpec(frames=4, next_frames=2, fps=5.0, size=16, crop=1.0, mel_bins=16)
CHOSEN = [f"v{i:02}" for i in (0, 3, 4, 11, 17, 18, 23)]


def epoch_ids(folder, count, *, start_step=0, on_corrupt="error", **options):
    batches = training_clips(
        Records(str(folder), on_corrupt=on_corrupt), "unlabelled", SPEC, batch_size=1, seed=3,
        start_step=start_step, modalities=("rgb",), other=False, device_only=False, **options)
    rows = list(itertools.islice(batches.as_numpy_iterator(), count))
    assert [int(x["index"][0]) for x in rows] == list(range(start_step, start_step + count))
    return [x["id"][0].decode() for x in rows]


@pytest.mark.parametrize("on_corrupt", ["error", "skip"])
def test_every_epoch_has_the_chosen_records_alone(folder, on_corrupt):
    found = epoch_ids(folder, 21, keep=CHOSEN, on_corrupt=on_corrupt)
    epochs = [found[i:i + 7] for i in (0, 7, 14)]
    assert all(sorted(x) == CHOSEN for x in epochs)
    assert epochs[0] != epochs[1]
    assert epoch_ids(folder, 5, keep=CHOSEN, start_step=9, on_corrupt=on_corrupt) == found[9:14]


def test_of_a_part_only_the_chosen_records_are_left(folder):
    fit = set(epoch_ids(folder, 60, part="fit"))
    wanted = sorted(fit.intersection(CHOSEN))
    assert 0 < len(wanted) < 7
    assert set(epoch_ids(folder, 14, part="fit", keep=CHOSEN)) == set(wanted)


def test_nothing_to_keep_is_refused(folder):
    with pytest.raises(ValueError, match="no record to keep"):
        epoch_ids(folder, 1, keep=[])
