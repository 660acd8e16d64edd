"""Labelled splits scored by every protocol, beside the untrained network: rows and curves."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence

import gin
import numpy as np

from elo_tf import cli, files, provenance
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError
from elo_tf.evaluation import heads, leakage, paper
from elo_tf.evaluation.feature_store import FeatureStore, StoredFeatures
from elo_tf.evaluation.label_curve import LabelCurve
from elo_tf.evaluation.linear import folded
from elo_tf.evaluation.protocols import (
    EvaluationProtocol,
    KMeansProtocol,
    LinearProtocol,
    NeighboursProtocol,
    RetrievalProtocol,
    Scores,
)
from elo_tf.evaluation.score_book import ScoreBook
from elo_tf.evaluation.statistics import summary
from elo_tf.evaluation.table import markdown
from elo_tf.training import encoder_files

RESULT = "evaluation.json"
TABLE = "evaluation.md"
FEATURES = "features"
PARTIAL = "scores.json"
FINETUNE = "finetune"
NETWORKS = {"trained": encoder_files.TRAINED, "untrained": encoder_files.UNTRAINED}
PROTOCOLS = (KMeansProtocol(), LinearProtocol(), NeighboursProtocol(), RetrievalProtocol())


@gin.configurable(denylist=["run_dir", "encoder_dir"])
def evaluate(run_dir: str, encoder_dir: str, *, records: Records | MixedRecords = gin.REQUIRED,
             splits: Sequence[Sequence[str]] = (("train", "test"),),
             networks: Sequence[str] = ("trained", "untrained"),
             protocols: Sequence[EvaluationProtocol] = PROTOCOLS,
             label_curve: LabelCurve | None = None,
             finetune: Callable[..., float] | None = None, static: bool = False,
             batch_size: int = 32, windows: int = 2, crops: int = 1,
             seeds: Sequence[int] = (0, 1, 2, 3, 4), method: str = "",
             keep_heads: bool = True) -> dict:
    """Evaluates an encoder by every protocol; resumes where it stopped.

    With several pairs of splits, such as the three of HMDB51 or folds, a protocol is scored on
    each and the scores of one seed are averaged over the pairs, each pair counting the same; mean
    and spread are those of these averages over seeds. So the spread says what the draws of a
    protocol do, and nothing of how splits differ. A protocol that draws nothing has one value.

    Args:
      run_dir: gets evaluation.json and evaluation.md; features and scores are kept in it.
      encoder_dir: the folder `encoder` of a pre-training.
      records: with labelled splits.
      splits: pairs of a split whose labels train the classifiers and one that is scored.
      networks: "trained", "untrained" (the same network before its first step), or both.
      protocols: on frozen features.
      label_curve: accuracy against the number of labelled clips; None: not measured.
      finetune: a `Finetune`, which trains the whole network; None: not done.
      static: repeat the middle frame of each window: the baseline that sees no motion.
      batch_size: videos in a batch of feature extraction.
      windows: clips of each video, spread evenly, whose features are averaged (our choice; the
        paper does not say how it samples clips at test time).
      crops: of each window, along the longer side of the frame; their features are averaged too
        (our choice: the central one).
      seeds: of the protocols.
      method: a row of the paper's tables that this network stands for, such as "elo"; the table
        then has the paper's figures beside ours. Empty: none.
      keep_heads: keep classifiers of the trained network in the folder `heads`, for bin/export:
        of each `LinearProtocol` by logistic regression one trained on all training clips of the
        first pair, and of `finetune` that of the first pair and seed. Not of static clips.

    Returns:
      What evaluation.json holds.

    Raises:
      UserError: if a split has no labels or shares clips with another, the encoder or a split is
        missing, or a setting is wrong.
    """
    for name, value in (("windows", windows), ("crops", crops), ("batch_size", batch_size)):
        if value < 1:
            raise UserError(f"evaluate.{name} is {value}; it must be 1 or more")
    pairs = _pairs(splits)
    _check_lists(networks, seeds)
    expected = paper.figures(method) if method else {}
    if static and (finetune or label_curve and label_curve.finetune):
        raise UserError("fine-tuning has no static clips; set evaluate.static = False, or "
                        "evaluate.finetune and LabelCurve.finetune to None")
    folder, encoder = pathlib.Path(run_dir), pathlib.Path(encoder_dir)
    store = FeatureStore(folder / FEATURES, encoder, records, batch_size=batch_size,
                         windows=windows, crops=crops, static=static)
    warnings = []
    for train, test in pairs:
        warnings += leakage.check_pair(store.index(train), store.index(test), (train, test))
    if "trained" in networks:
        warnings += leakage.pretraining_warnings(
            encoder, {test: store.index(test) for _, test in pairs})

    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    features = {(network, split): store(network, NETWORKS[network], split)
                for network in networks for split in names}
    book = ScoreBook(folder / PARTIAL)

    def finetuned(tune: Callable[..., float], pair: _Pair, seed: int, place: str,
                  labelled: frozenset[str] | None = None) -> Scores:
        first = (pair.network, pair.train, pair.test, seed) == ("trained", *pairs[0], seeds[0])
        kept = keep_heads and first and labelled is None
        accuracy = tune(
            encoder, NETWORKS[pair.network], store.clip, records, pair.train, pair.test,
            seed=seed, windows=windows, crops=crops, labelled=labelled,
            folder=folder / FINETUNE / pair.network / f"{pair.train}-{pair.test}" / place,
            keep=folder / heads.HEADS / FINETUNE if kept else None)
        return Scores({FINETUNE: float(accuracy)})

    labels = records.labels()
    rows: list[dict] = []
    curves: list[dict] = []
    for network in networks:
        sides = [_Pair(network, train, test, features[network, train], features[network, test])
                 for train, test in pairs]
        for protocol in cli.progress(protocols, desc=f"{network} network", unit="protocol"):
            drawn = seeds[:1] if getattr(protocol, "deterministic", False) else seeds
            rows += _averaged(network, [
                [book.score((*pair.of, repr(protocol), seed),
                            functools.partial(protocol, *pair.arrays, seed)) for pair in sides]
                for seed in drawn])
            if (keep_heads and not static and network == "trained"
                    and isinstance(protocol, LinearProtocol) and protocol.solver == "logistic"):
                _keep_linear(folder / heads.HEADS / protocol.name, protocol, sides[0], labels,
                             encoder=store.digest(NETWORKS[network]), windows=windows, crops=crops,
                             seed=seeds[0])
        if finetune is not None:
            rows += _averaged(network, [
                [book.score((*pair.of, FINETUNE, seed), functools.partial(
                    finetuned, finetune, pair, seed, f"seed-{seed}")) for pair in sides]
                for seed in seeds])
        if label_curve is not None:
            curves += _curves(sides, label_curve, seeds, book, finetuned)
    _check_names(rows)

    ends = [features[networks[0], test].features.labels for _, test in pairs]
    starts = [features[networks[0], train].features.labels for train, _ in pairs]
    chances = [_chance(x) for x in ends]
    classes = np.unique(np.concatenate(starts + ends))
    first = features[networks[0], names[0]]
    result = {
        "split": ", ".join(test for _, test in pairs),
        # Of a pair, on average.
        "train_clips": round(np.mean([len(x) for x in starts])),
        "test_clips": round(np.mean([len(x) for x in ends])),
        "splits": [
            {"train": train, "test": test, "train_clips": len(start), "test_clips": len(end),
             "chance": chance}
            for (train, test), start, end, chance in zip(pairs, starts, ends, chances,
                                                         strict=True)],
        "classes": heads.class_names(labels, classes),
        # What always answering the most frequent class gets.
        "chance": float(np.mean(chances)),
        "windows": windows, "crops": crops, "static": static, "seeds": list(seeds),
        "scale": {"frames": store.clip.frames, "size": store.clip.size, "fps": store.clip.fps,
                  "parameters": first.parameters, "embedding": first.features.embedding.shape[1]},
        "method": method,
        "paper": expected,
        "config": provenance.config_hash(gin.config_str()), "commit": provenance.commit(),
        "data": provenance.config_hash("".join(store.index(name).fingerprint for name in names)),
        "encoders": {network: store.digest(NETWORKS[network]) for network in networks},
        "rows": rows, "curves": curves, "warnings": warnings + book.notes}
    files.write_atomic(folder / TABLE, markdown(result))
    files.write_atomic(folder / RESULT, json.dumps(result, indent=1) + "\n")
    return result


@dataclasses.dataclass(frozen=True)
class _Pair:
    """The features of a pair of splits by one network."""

    network: str
    train: str
    test: str
    train_features: StoredFeatures
    test_features: StoredFeatures

    @property
    def of(self) -> tuple[str, ...]:
        """What scores of this pair are of, but for protocol and seed."""
        return (self.network, self.train, self.test,
                self.train_features.key[:16], self.test_features.key[:16])

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """Features [N, D] and labels [N] of train, then of test."""
        train, test = self.train_features.features, self.test_features.features
        return train.embedding, train.labels, test.embedding, test.labels


def _keep_linear(folder: pathlib.Path, protocol: LinearProtocol, pair: _Pair,
                 labels: Sequence[str], *, encoder: str, windows: int, crops: int,
                 seed: int) -> None:
    """Trains the linear layer on all training clips of a pair, and keeps it, tested."""
    of = [*pair.of, repr(protocol), seed]
    if heads.is_kept(folder, of):
        return
    features, truth, test_features, test_truth = pair.arrays
    classifier, C = protocol.fitted(features, truth, seed)
    kernel, bias = (x.astype(np.float32) for x in folded(classifier))
    # What is kept is tested, not what it was folded from.
    found = classifier.classes_[np.argmax(test_features @ kernel + bias, axis=1)]
    heads.save_head(folder, kernel, bias, heads.HeadFacts(
        kind="linear", encoder=encoder, classes=heads.class_names(labels, classifier.classes_),
        training_clips=[int(np.sum(truth == x)) for x in classifier.classes_],
        train_split=pair.train, test_split=pair.test, test_clips=len(test_truth),
        test_accuracy=float(np.mean(found == test_truth)), chance=_chance(test_truth),
        windows=windows, crops=crops, seed=seed,
        recipe={"layer": "logistic regression on standardised features", "C": C}, of=of))


def _chance(labels: np.ndarray) -> float:
    """What always answering the most frequent class gets."""
    return float(np.bincount(labels).max() / len(labels))


def _averaged(network: str, scores: Sequence[Sequence[Scores]]) -> list[dict]:
    """A row for each value of a protocol, of scores by seed and, for each, by pair of splits."""
    return [{"network": network, "protocol": name, **summary(
        [float(np.mean([pair.values[name] for pair in seed])) for seed in scores])}
        for name in scores[0][0].values]


def _curves(pairs: Sequence[_Pair], curve: LabelCurve, seeds: Sequence[int], book: ScoreBook,
            finetuned: Callable[..., Scores]) -> Iterator[dict]:
    """Accuracy of a network against the number of labelled clips, by each classifier."""

    def linear(pair: _Pair, subset: np.ndarray, seed: int) -> Scores:
        train, labels, test, test_labels = pair.arrays
        assert curve.linear is not None
        return curve.linear(train[subset], labels[subset], test, test_labels, seed)

    def finetune(pair: _Pair, subset: np.ndarray, seed: int) -> Scores:
        ids = pair.train_features.features.ids
        return finetuned(curve.finetune, pair, seed, f"seed-{seed}-clips-{len(subset)}",
                         frozenset(ids[i] for i in subset))

    network = pairs[0].network
    sizes = list(zip(*(curve.sizes(pair.arrays[1]) for pair in pairs), strict=True))
    points = [sizes.index(x) for x in dict.fromkeys(sizes)]  # small splits may repeat one
    for method, settings, score in (("linear", curve.linear, linear),
                                    (FINETUNE, curve.finetune, finetune)):
        if settings is None:
            continue
        name = repr(settings) if method == "linear" else FINETUNE
        by_seed = []
        for seed in cli.progress(seeds, desc=f"{network} network, labels, {method}", unit="seed"):
            found = []
            for pair in pairs:
                subsets = curve.subsets(pair.arrays[1], seed)
                scores = [book.score((*pair.of, f"{name} on {len(subsets[point])} clips", seed),
                                     functools.partial(score, pair, subsets[point], seed))
                          for point in points]
                found.append([x for one in scores for x in one.values.values()])
            by_seed.append(np.mean(found, axis=0))
        rows = [summary(values) for values in np.transpose(by_seed)]
        yield {"network": network, "protocol": method,
               "clips": [round(np.mean(sizes[point])) for point in points],
               "mean": [x["mean"] for x in rows], "interval": [x["interval"] for x in rows],
               "n": len(seeds)}


def _pairs(splits: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    good = len(splits) and all(
        not isinstance(pair, str) and len(pair) == 2 and all(isinstance(x, str) for x in pair)
        for pair in splits)
    if not good:
        raise UserError(f"evaluate.splits is {splits!r}; give pairs of names of splits, such as "
                        "(('train', 'test'),)")
    return [(train, test) for train, test in splits]


def _check_lists(networks: Sequence[str], seeds: Sequence[int]) -> None:
    if not networks or not set(networks) <= set(NETWORKS):
        raise UserError(f"evaluate.networks is {list(networks)}; it must hold "
                        f"{' or '.join(map(repr, NETWORKS))}, or both")
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"evaluate.seeds is {list(seeds)}; give one at least, and none twice")


def _check_names(rows: Sequence[dict]) -> None:
    names = [(row["network"], row["protocol"]) for row in rows]
    for network, protocol in names:
        if names.count((network, protocol)) > 1:
            raise UserError(f"two rows of evaluate.protocols are called {protocol!r}; give one "
                            "another name (LinearProtocol.name)")
