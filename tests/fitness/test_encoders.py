"""Collapsed encoders on real clips: the guards fail them, and neither fitness lets them win."""

import math

import numpy as np
import pytest

from elo_tf.data.pipeline import testing_clips as clips_of
from elo_tf.data.record_set import Records
from elo_tf.features import FeatureExtractor
from elo_tf.fitness import clustering, zipf
from elo_tf.fitness.fitness import ZipfFitness
from elo_tf.fitness.guide import Fitness
from elo_tf.fitness.normalisation import normalise
from elo_tf.fitness.weak import WeakFitness
from elo_tf.training.batch_statistics import BatchStatistics
from elo_tf.views.clip_views import ClipViews

# The last unit of the encoder adds these two and rectifies their sum.
LAST_NORMS = ("block4_unit1_conv2_norm", "block4_unit1_shortcut_norm")
LAST_CONVOLUTIONS = ("block4_unit1_conv2_temporal", "block4_unit1_shortcut")


class Bench:
    """A tiny RGB encoder, its untrained variables, and the clips it is judged on."""

    def __init__(self, encoder, clip, unlabelled, labelled):
        self.encoder = encoder
        self.untrained = [v.numpy() for v in encoder.variables]
        self._clip = clip
        self._unlabelled, self._labelled = unlabelled, labelled
        self._extract = FeatureExtractor(encoder, clip)
        self._estimator = BatchStatistics(encoder)

    def features(self, spoil):
        """Features of all clips of the encoder that `spoil` changed, as a search extracts them."""
        for variable, value in zip(self.encoder.variables, self.untrained, strict=True):
            variable.assign(value)
        spoil(self.encoder)
        self._estimator.estimate(ClipViews({"rgb": batch["rgb"]}, self._clip).view("rgb", "intact")
                                 for batch in self._unlabelled)
        return self._extract(self._unlabelled), self._extract(self._labelled)

    def judge(self, spoil, guide):
        unlabelled, labelled = self.features(spoil)
        return Fitness(ZipfFitness(k=4, nearest=3), WeakFitness(), guide)(
            unlabelled.embedding, labelled.embedding, labelled.labels)


@pytest.fixture(scope="module")
def bench(workshop, make_tiny_model, tiny_clip):
    records = Records(str(workshop.root / "records"))
    batches = [clips_of(records, split, tiny_clip, batch_size=12, modalities=("rgb",)).cache()
               for split in ("unlabelled", "train")]
    model = make_tiny_model(names=("rgb/shuffle",))
    return Bench(model.encoders["rgb"], tiny_clip, *batches)


def set_last_norms(gamma, beta=0.0):
    def spoil(encoder):
        for name in LAST_NORMS:
            norm = encoder.get_layer(name)
            norm.gamma.assign(norm.gamma * 0 + gamma)
            norm.beta.assign(norm.beta * 0 + beta)
    return spoil


def scale_last_convolutions(factor):
    def spoil(encoder):
        for name in LAST_CONVOLUTIONS:
            kernel = encoder.get_layer(name).kernel
            kernel.assign(kernel * factor)
    return spoil


def make_last_convolution_rank_one(encoder):
    encoder.get_layer(LAST_NORMS[1]).gamma.assign(
        0 * encoder.get_layer(LAST_NORMS[1]).gamma)
    kernel = encoder.get_layer(LAST_CONVOLUTIONS[0]).kernel
    matrix = kernel.numpy().reshape(-1, kernel.shape[-1])
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    kernel.assign((values[0] * np.outer(left[:, 0], right[0])).reshape(kernel.shape))


def leave_alone(encoder):
    pass


COLLAPSED = {
    "zero": (set_last_norms(0.0), "constant"),
    "one value": (set_last_norms(0.0, 0.7), "constant"),
    "huge": (set_last_norms(1e6), "exploding"),
    "not finite": (set_last_norms(3e38), "exploding"),
    "overflow before a batch norm": (scale_last_convolutions(1e30), "exploding"),
    "rank one": (make_last_convolution_rank_one, "low-rank"),
}


def unguarded(features, k=4):
    """The divergence alone."""
    points = normalise(features, "standardise_l2")
    return zipf.zipf_fitness(points, clustering.kmeans(points, k).centroids)


def test_an_untrained_encoder_passes(bench):
    report = bench.judge(leave_alone, "weak")
    assert report.status == "ok"
    assert report.effective_rank > 5
    assert report.fitness == 1 - report.weak and 0 <= report.weak <= 1
    assert report.zipf < math.log(4)
    again = bench.judge(leave_alone, "zipf")
    assert again.fitness == again.zipf == report.zipf and again.weak == report.weak


@pytest.mark.parametrize("kind", COLLAPSED)
def test_a_collapsed_encoder_is_failed_and_cannot_win(bench, kind):
    spoil, reason = COLLAPSED[kind]
    for guide in ("zipf", "weak"):
        report = bench.judge(spoil, guide)
        assert report.status.startswith(f"failed: {reason} encoder")
        assert report.fitness == math.inf
        assert report.zipf is None and report.weak is None
        assert report.histogram.shape == (0,) and report.nearest.shape == (0, 3)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_divergence_alone_would_take_collapsed_encoders_for_others(bench):
    score = {kind: unguarded(bench.features(COLLAPSED[kind][0])[0].embedding)
             for kind in ("one value", "huge", "rank one")}
    untrained = unguarded(bench.features(leave_alone)[0].embedding)
    # Middling, just as good as the encoder it was scaled from, and better than it.
    assert score["one value"] == pytest.approx(zipf.divergence(np.full(4, -math.log(4))))
    assert score["huge"] == pytest.approx(untrained, rel=1e-3)
    assert score["rank one"] < untrained
