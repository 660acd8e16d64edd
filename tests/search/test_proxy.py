"""A proxy: the same bits for the same weights, whatever was evaluated before; repeats; failures."""

import functools

import gin
import numpy as np
import pytest
import tensorflow as tf

from elo_tf.bin import configuration
from elo_tf.errors import UserError
from elo_tf.losses import LossSpace
from elo_tf.search import kept_features
from elo_tf.search.errors import CandidateError
from elo_tf.training.optimization import make_optimizer

NAMES = LossSpace().names


def configure(workshop):
    gin.clear_config()
    configuration.parse([str(workshop.root / "tiny.gin")],
                        [f"Records.directory = '{workshop.root}/records'"])


@pytest.fixture(autouse=True)
def configured(workshop, no_gin_bindings):
    """A repeat's initial variables are those of a new model, so of the configuration."""
    configure(workshop)


@pytest.fixture(scope="module")
def make_proxy(workshop):
    """Builds a proxy of the smallest networks on the workshop's records."""

    def make(**kwargs):
        configure(workshop)
        return gin.get_configurable("Proxy")(space=LossSpace(), quiet=True, **kwargs)

    return make


@pytest.fixture(scope="module")
def proxy(make_proxy):
    return make_proxy()


def drawn(seed):
    return dict(zip(NAMES, np.random.Generator(np.random.PCG64(seed)).uniform(size=40),
                    strict=True))


def bits(result):
    return {k: v for k, v in result.items() if k not in ("seconds", "worker")}


def test_the_same_weights_give_the_same_bits_whatever_came_before(proxy):
    few = dict.fromkeys(NAMES, 0.0) | {"rgb/predict": 1.0, "audio/align": 0.5, "rgb/shuffle": 0.01}
    first = {repeat: bits(proxy.evaluate(drawn(0), repeat)) for repeat in (0, 1)}
    small = proxy.evaluate(few)
    # Of the tasks that were trained: one is below the dead zone.
    assert set(small["losses"]) == {"rgb/predict", "audio/align"}
    assert bits(proxy.evaluate(drawn(0), 2)) != first[1]
    for repeat in (0, 1):
        assert bits(proxy.evaluate(drawn(0), repeat)) == first[repeat]
    assert bits(proxy.evaluate(few)) == bits(small)
    assert first[0]["losses"].keys() == {n for n, w in drawn(0).items() if w >= 0.02}
    assert len({first[0]["zipf"], first[1]["zipf"], small["zipf"]}) == 3
    assert proxy.traces == 1


def test_the_control_is_the_untrained_network_of_its_seed(proxy):
    found = {repeat: proxy.evaluate(None, repeat) for repeat in (0, 3)}
    assert found[0]["zipf"] != found[3]["zipf"]
    assert bits(proxy.evaluate(None, 3)) == bits(found[3])
    for result in found.values():
        assert {"build", "compile", "step", "features", "cluster", "weak"} <= set(result["seconds"])
        assert result["facts"] == {"steps": 3, "batch_size": 4, "gpus": 0, "replicas": 1}
    # After a control the variables are those of that seed, before any step.
    model = gin.get_configurable("PretrainingModel")(
        gin.get_configurable("ClipSpec")(), LossSpace(), seed=1 + 3)
    for mine, other in zip(proxy.model.trainable_variables, model.trainable_variables,
                           strict=True):
        np.testing.assert_array_equal(mine, other)


def test_clusters_are_of_heldout_clips_and_weak_is_an_accuracy(proxy):
    result = proxy.evaluate(drawn(1))
    assert result["clusters"]["shares"] == result["histogram"]
    clips = [x for row in result["clusters"]["clips"] for x in row]
    assert len(clips) == len(set(clips)) > 0
    heldout = {x.decode() for batch in proxy._heldout for x in batch["id"].numpy()}
    assert set(clips) <= heldout
    # 12 labelled clips, in halves of 6, each tested once.
    assert result["weak"] * 12 == pytest.approx(round(result["weak"] * 12))


def test_features_are_kept_and_looks_change_nothing(proxy, tmp_path, monkeypatch):
    plain = bits(proxy.evaluate(drawn(2)))
    monkeypatch.setattr(proxy, "_keep", str(tmp_path / "kept"))
    monkeypatch.setattr(proxy, "_looks", frozenset([1, 2]))
    assert bits(proxy.evaluate(drawn(2))) == plain
    control = proxy.evaluate(None)
    found = {(x.weights is None, x.step): x
             for x in map(kept_features.read, (tmp_path / "kept").iterdir())}
    assert set(found) == {(False, 1), (False, 2), (False, 3), (True, 0)}
    assert found[False, 3].weights == drawn(2)
    fitness = gin.get_configurable("Fitness")()
    for result, kept in ((plain, found[False, 3]), (control, found[True, 0])):
        report = fitness(kept.heldout.embedding, kept.labelled.embedding, kept.labelled.labels)
        assert report.fitness == pytest.approx(result["fitness"], rel=1e-6)
        assert report.weak == result["weak"]
    assert np.abs(found[False, 1].heldout.embedding - found[False, 2].heldout.embedding).max() > 0


def test_looks_must_lie_before_the_end(make_proxy):
    with pytest.raises(UserError, match=r"looks is \(3,\); it holds steps before the last, 3"):
        make_proxy(keep_features="kept", looks=(3,))


def test_other_files_are_not_read_as_features(tmp_path):
    (tmp_path / "a.npz").write_text("text")
    with pytest.raises(UserError, match="does not hold the features"):
        kept_features.read(tmp_path / "a.npz")


def test_what_takes_too_long_or_diverges_is_given_up_at_once(make_proxy):
    proxy = make_proxy(
        steps=6, check_every=1, time_limit=1e-6,
        optimizer=functools.partial(make_optimizer, learning_rate=1e30, clip_norm=0.0, warmup=0.0))
    with pytest.raises(CandidateError, match=r"took \d+ s for 1 of 6 steps; the limit is 1e-06 s"):
        proxy.evaluate(drawn(0))
    proxy._time_limit = 0.0
    with pytest.raises(CandidateError, match=r"diverged: .* after [23] steps"):
        proxy.evaluate(drawn(0))
    assert proxy.model.optimizer.iterations.numpy() < 6
    # The next candidate finds nothing of it.
    assert np.isfinite(proxy.evaluate(None)["zipf"])
    assert all(np.isfinite(tf.reduce_sum(x)) for x in proxy.model.trainable_variables)
