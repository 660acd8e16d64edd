"""Several record sets read as one: shares, order, resuming, labels and parts."""

import collections

import gin
import numpy as np
import pytest

from elo_tf.data import pipeline, records, schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.data.streams import Stream
from elo_tf.errors import UserError

SPEC = ClipSpec(frames=2, next_frames=1, fps=5.0, size=16, crop=1.0, mel_bins=16)
RGB = {"modalities": ("rgb",), "other": False, "device_only": False}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, make_clip, write_split):
    """Sets a, b and c of 6, 2 and 4 labelled clips."""
    found = {}
    for name, count in (("a", 6), ("b", 2), ("c", 4)):
        found[name] = tmp_path_factory.mktemp(name)
        write_split(found[name], "train", [
            records.encode_example(make_clip(np.full((4, 16, 16, 3), 10 * i, np.uint8)),
                                   example_id=f"{name}{i}", label=i, label_name=f"class{i}")
            for i in range(count)], shards=2)
        (found[name] / schema.LABELS_FILE).write_text("one\ntwo\n")
    return found


def sources(folders, names="abc", **options):
    return [Records(str(folders[name]), **options) for name in names]


def read(mixed, batches, **options):
    options = {"batch_size": 8, "seed": 3} | RGB | options
    clips = pipeline.training_clips(mixed, "train", SPEC, **options)
    return [batch for batch in clips.take(batches).as_numpy_iterator()]


def names_of(batches):
    return [name.decode() for batch in batches for name in batch["id"]]


def test_sources_are_drawn_by_weight_and_each_is_read_evenly(folders):
    mixed = MixedRecords(sources(folders), [0.5, 0.3, 0.2])
    places = [place.tolist() for place, _ in
              Stream(mixed, "train").endless(seed=1).take(2000).as_numpy_iterator()]
    counts = collections.Counter(source for source, _, _ in places)
    for source, share in enumerate([0.5, 0.3, 0.2]):
        # Within five standard errors.
        assert abs(counts[source] - 2000 * share) < 5 * np.sqrt(2000 * share * (1 - share))
    for source, size in enumerate([6, 2, 4]):
        own = [tuple(place) for place in places if place[0] == source]
        for start in range(0, len(own) - size, size):
            assert len(set(own[start:start + size])) == size  # every epoch of it is whole


def test_a_mixture_is_a_function_of_the_seed_and_can_be_resumed(folders):
    mixed = MixedRecords(sources(folders), [2, 1, 1])
    whole = read(mixed, 6)
    again = read(mixed, 6)
    resumed = read(mixed, 3, start_step=3)
    for first, second in zip([*whole, *whole[3:]], [*again, *resumed], strict=True):
        assert all(np.array_equal(first[name], second[name]) for name in first)
    assert names_of(whole) != names_of(read(mixed, 6, seed=4))
    assert resumed[0]["index"].tolist() == list(range(24, 32))


def test_a_source_of_weight_zero_is_not_opened(folders):
    mixed = MixedRecords([*sources(folders, "ab"), Records("/nowhere")], [1, 1, 0])
    assert {name[0] for name in names_of(read(mixed, 6))} == {"a", "b"}
    assert mixed.splits() == ["train"] and mixed.labels() == ["one", "two"]
    pipeline.require_clips(mixed, "train", "all", SPEC, least=8)


def test_testing_reads_one_source_after_the_other(folders):
    mixed = MixedRecords(sources(folders, "ba"), [1, 5])
    batches = list(pipeline.testing_clips(mixed, "train", SPEC, batch_size=3,
                                          modalities=("rgb",)).as_numpy_iterator())
    assert names_of(batches) == ["b0", "b1", "a0", "a2", "a4", "a1", "a3", "a5"]
    assert [x for batch in batches for x in batch["label"]] == [0, 1, 0, 2, 4, 1, 3, 5]


def test_labels_count_only_where_they_mean_the_same(folders, tmp_path):
    other = tmp_path / "b"
    other.mkdir()
    for path in folders["b"].iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / schema.LABELS_FILE).write_text("two\none\n")
    mixed = MixedRecords([*sources(folders, "a"), Records(str(other))])
    assert mixed.labels() == []
    assert {x for batch in read(mixed, 2) for x in batch["label"]} == {-1}
    alone = MixedRecords([*sources(folders, "a"), Records(str(other))], [0, 1])
    assert {x for batch in read(alone, 1) for x in batch["label"]} == {0, 1}
    assert alone.labels() == ["two", "one"]


def test_every_source_must_have_the_part(folders):
    mixed = MixedRecords(sources(folders, "ab", heldout_percent=0))
    with pytest.raises(UserError, match=r"has no clip in the 'heldout' part.*percent .now 0"):
        pipeline.require_clips(mixed, "train", "heldout", SPEC)
    with pytest.raises(UserError, match="12 clips in the 'all' part.*, and k needs 13"):
        pipeline.require_clips(MixedRecords(sources(folders)), "train", "all", SPEC, least=13,
                               why="k")
    with pytest.raises(UserError, match="has no records of split 'test'"):
        pipeline.require_clips(mixed, "test", "all", SPEC)


def test_all_sources_hold_the_same_share_out(folders):
    mixed = [*sources(folders, "a"), *sources(folders, "b", heldout_percent=50)]
    with pytest.raises(UserError, match="different heldout_percent, 20 and 50: .*give all the"):
        MixedRecords(mixed)
    assert MixedRecords(mixed, [0, 1]).heldout_percent == 50  # the other is not opened
    twice = MixedRecords(sources(folders, "aa", heldout_percent=50))
    fit, heldout = (names_of(pipeline.testing_clips(
        twice, "train", SPEC, batch_size=8, part=part, modalities=("rgb",)).as_numpy_iterator())
        for part in ("fit", "heldout"))
    assert not set(fit) & set(heldout)
    assert sorted(fit + heldout) == sorted(2 * [f"a{i}" for i in range(6)])


def test_gin_can_mix(folders):
    def reader(records):
        return records

    gin.external_configurable(reader, "reader_of_mixed_records")
    gin.parse_config(f"""
        MixedRecords.sources = [@a/Records(), @b/Records()]
        MixedRecords.weights = [3, 1]
        a/Records.directory = '{folders["a"]}'
        Records.directory = '{folders["b"]}'
        reader_of_mixed_records.records = @MixedRecords()
        """)
    mixed = gin.get_configurable("reader_of_mixed_records")()
    assert [(x.directory, share) for x, share in mixed.weighted()] == [
        (str(folders["a"]), 0.75), (str(folders["b"]), 0.25)]
    assert mixed.directory == f"{folders['a']} + {folders['b']}"
