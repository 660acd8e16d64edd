"""Does the Zipf fitness rank trained networks as labels would? One table, of kept features.

    python -m elo_tf.bin.search ... --gin_file=search/random.gin \\
        --gin_bindings="Proxy.keep_features = 'kept'" --gin_bindings="Proxy.looks = (350,)"
    python -m benchmarks.fitness_controls --features=kept --output=controls

For each length of training it gives the rank correlation (Spearman) of the fitness with the
accuracy of a linear layer over all networks, -1 being a perfect fitness, as lower is better: in
unlabelled sets whose classes follow Zipf's law with several exponents (0: all are equally
frequent), and the mean over these with its 95% interval, by resampling networks. The sets are
composed of the labelled clips, so that their law is known; the fitness sees no label. Accuracy is
that of logistic regression, cross-validated over the same clips. Beside it: the mean correlation
with the accuracy of k-means, as in the paper's Figure 9, and with that of the linear layer where a
least effective rank, of so many times the number of classes, makes all networks below it the worst
(`check_features.min_effective_rank`); and the share of the networks that the untrained one is
fitter than, over all sets.
Only networks with fixed weights drawn at random prove anything: those of a search by the fitness
have been selected by it, and so have the leaders that it trains again: repeats are left out.
A figure (the paper's Figure 9) shows all networks by one setting: --setting, or the longest
trainings' best.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
from concurrent import futures

import numpy as np
import threadpoolctl
from scipy import stats
from sklearn import linear_model, model_selection, pipeline, preprocessing

from elo_tf import cli, files
from elo_tf.evaluation.kmeans import kmeans_scores
from elo_tf.features import Features
from elo_tf.fitness import clustering, guards, zipf
from elo_tf.fitness.normalisation import normalise
from elo_tf.reporting import figures, study_figures, svg
from elo_tf.search import kept_features

NORMALISATIONS = ("none", "l2", "scale", "standardise", "standardise_l2")
LAWS = (0.0, 0.5, 1.0, 1.5)  # of the classes in the unlabelled set
EXPONENTS = (0.5, 1.0, 1.5)  # of the fitness
RATIOS = (0.5, 1.0, 2.0, 4.0, 8.0)  # clusters to classes
RANKS = (1.0, 1.25, 1.5)  # least effective rank to classes
WIDTHS = (1.0, 0.1)  # 2 sigma^2; at the smaller one a clip is in one cluster, nearly
RESAMPLES = 1000
TABLE = "controls.md"
FIGURE = "controls.svg"


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to measure a fitness."""

    normalisation: str
    ratio: float
    two_sigma_squared: float
    s: float

    def __str__(self) -> str:
        return f"{self.normalisation}/{self.ratio:g}/{self.two_sigma_squared:g}/{self.s:g}"

    def on(self, law: float) -> str:
        """Its name on one kind of set."""
        return f"{law:g}/{self}"


SETTINGS = tuple(Setting(*x) for x in itertools.product(
    NORMALISATIONS, RATIOS, WIDTHS, EXPONENTS))


def composed(labels: np.ndarray, law: float, seed: int = 0) -> np.ndarray:
    """Clips of a set whose n-th most frequent class has a share proportional to 1 / n^law.

    Args:
      labels: int64 [N] of a set that has every class about equally often.
      law: the exponent.
      seed: of which class is frequent, and which of its clips are taken.

    Returns:
      int64 [M] rows; the most frequent class has all of its clips.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    classes = rng.permutation(np.unique(labels))
    rows = [rng.permutation(np.flatnonzero(labels == x)) for x in classes]
    most = min(map(len, rows))
    return np.sort(np.concatenate([
        members[:max(1, round(most * rank ** -law))] for rank, members in enumerate(rows, 1)]))


def accuracy(features: Features) -> float:
    """Of a linear layer, cross-validated."""
    model = pipeline.make_pipeline(preprocessing.StandardScaler(),
                                   linear_model.LogisticRegression(C=0.1, max_iter=1000))
    folds = model_selection.StratifiedKFold(5, shuffle=True, random_state=0)
    return float(model_selection.cross_val_score(
        model, features.embedding, features.labels, cv=folds).mean())


def measure(path: pathlib.Path) -> dict:
    """All that is wanted of one network."""
    kept = kept_features.read(path)
    labelled = kept.labelled
    report = {"step": kept.step, "repeat": kept.repeat, "trained": kept.weights is not None,
              "spread": guards.spread(labelled.embedding),
              "effective_rank": guards.effective_rank(labelled.embedding), "fitness": {}}
    with threadpoolctl.threadpool_limits(limits=1):
        report["accuracy"] = accuracy(labelled)
        report["kmeans"] = kmeans_scores(labelled.embedding, labelled.labels)["kmeans"]
        report["classes"] = classes = len(np.unique(labelled.labels))
        for law, how, ratio in itertools.product(LAWS, NORMALISATIONS, RATIOS):
            points = normalise(labelled.embedding[composed(labelled.labels, law)], how)
            k = max(2, round(ratio * classes))
            if k > len(points):
                continue
            clusters = clustering.kmeans(points, k, seed=0)
            for width in WIDTHS:
                mass = zipf.log_cluster_mass(points, clusters.centroids, width)
                for s in EXPONENTS:
                    name = Setting(how, ratio, width, s).on(law)
                    report["fitness"][name] = zipf.divergence(mass, s)
    return report


def correlations(fitness: np.ndarray, quality: np.ndarray
                 ) -> tuple[np.ndarray, tuple[float, float]]:
    """Spearman's rho of every row, and the 95% interval of their mean, by resampling networks.

    Args:
      fitness: [L, N], of N networks on L sets.
      quality: [N].

    Returns:
      float64 [L], and the ends of the interval.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    count = len(quality)
    rows = np.concatenate([np.arange(count)[None], rng.integers(0, count, (RESAMPLES, count))])
    truth = _ranks(quality[rows])
    rhos = np.stack([(_ranks(x[rows]) * truth).sum(1) for x in fitness])
    low, high = np.percentile(rhos[:, 1:].mean(0), [2.5, 97.5])
    return rhos[:, 0], (float(low), float(high))


def _ranks(values: np.ndarray) -> np.ndarray:
    """[R, N] to ranks in each row, of mean 0 and norm 1; of equal values, 0."""
    ranks = stats.rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(ranks, axis=1, keepdims=True)
    return ranks / np.maximum(norm, np.finfo(np.float64).tiny)


def _mean_rho(fitness: np.ndarray, quality: np.ndarray) -> float:
    return float((_ranks(fitness) * _ranks(quality[None])).sum(1).mean())


def of_length(reports: list[dict]) -> dict[int, list[dict]]:
    """The trained networks that count, by steps of training."""
    return {step: [x for x in reports if x["trained"] and x["step"] == step and not x["repeat"]]
            for step in sorted({x["step"] for x in reports if x["trained"]})}


def ranked(networks: list[dict]) -> list[tuple[Setting, np.ndarray, tuple[float, float]]]:
    """Settings, the best first, with rho of each set and the interval of their mean."""
    quality = np.array([x["accuracy"] for x in networks])
    found = [(setting, *correlations(_fitness(setting, networks), quality))
             for setting in SETTINGS
             if all(setting.on(law) in x["fitness"] for law in LAWS for x in networks)]
    return sorted(found, key=lambda row: row[1].mean())


def _fitness(setting: Setting, networks: list[dict]) -> np.ndarray:
    """[L, N] of networks on all kinds of sets."""
    return np.array([[x["fitness"][setting.on(law)] for x in networks] for law in LAWS])


def table(reports: list[dict]) -> str:
    """Markdown: for each length a table, the best settings first."""
    lines = []
    untrained = [x for x in reports if not x["trained"]]
    for step, networks in of_length(reports).items():
        quality = np.array([x["accuracy"] for x in networks])
        clustered = np.array([x["kmeans"] for x in networks])
        rank = np.array([x["effective_rank"] / x["classes"] for x in networks])
        lines += [f"## After {step} steps: {len(networks)} networks", "",
                  f"Accuracy {quality.mean():.1%} on average, {quality.min():.1%} to "
                  f"{quality.max():.1%}" + (
                      f"; untrained {np.mean([x['accuracy'] for x in untrained]):.1%}."
                      if untrained else "."),
                  f"By k-means {clustered.mean():.1%} on average, {clustered.min():.1%} to "
                  f"{clustered.max():.1%}; the two accuracies: rho "
                  f"{stats.spearmanr(clustered, quality).statistic:+.2f}.", ""]
        for name in ("spread", "effective_rank"):
            values = np.array([x[name] for x in networks])
            lines.append(f"{name.replace('_', ' ')} against accuracy: rho "
                         f"{stats.spearmanr(values, quality).statistic:+.2f}. ")
        lines += ["", "| normalisation | k / classes | 2 sigma^2 | s | rho | 95% | "
                  + " | ".join(f"law {x:g}" for x in LAWS)
                  + " | rho with k-means | "
                  + " | ".join(f"rank >= {x:g}" for x in RANKS) + " | untrained is fitter than |",
                  "|---|" + "---:|" * 4 + "---|" + "---:|" * (len(LAWS) + len(RANKS) + 2)]
        for setting, rhos, (low, high) in ranked(networks):
            fitness, beaten = _fitness(setting, networks), ""
            if untrained:
                theirs = _fitness(setting, untrained).mean(1, keepdims=True)
                beaten = f"{np.mean(fitness > theirs):.0%}"
            others = [_mean_rho(fitness, clustered)] + [
                _mean_rho(np.where(rank < least, np.inf, fitness), quality)
                for least in RANKS]
            lines.append(f"| {str(setting).replace('/', ' | ')} | {rhos.mean():+.2f} | {low:+.2f} "
                         f"to {high:+.2f} | " + " | ".join(f"{x:+.2f}" for x in rhos)
                         + "".join(f" | {x:+.2f}" for x in others) + f" | {beaten} |")
        lines.append("")
    return "\n".join(lines)


def figure(reports: list[dict], setting: Setting, law: float) -> str:
    """SVG: fitness against accuracy of every network."""
    place = setting.on(law)
    with svg.style():
        drawn, axes = svg.new_figure(680, 340)
        for index, (step, networks) in enumerate(of_length(reports).items(), 1):
            fitness, quality = ([x["fitness"][place] for x in networks],
                                [100 * x["accuracy"] for x in networks])
            rho = stats.spearmanr(fitness, quality).statistic
            svg.dots(axes, fitness, quality, size=6, alpha=0.6, color=svg.color(f"line{index}"),
                     label=f"{step} steps, rho {rho:+.2f}")
        untrained = [x for x in reports if not x["trained"]]
        if untrained:
            axes.plot([x["fitness"][place] for x in untrained],
                      [100 * x["accuracy"] for x in untrained], "X", color=svg.color("bad"),
                      markersize=9, markeredgewidth=0, label="untrained")
        axes.set(xlabel="KL(p‖q) from Zipf’s law, lower is better",
                 ylabel="accuracy of a linear layer, %")
        axes.margins(0.06)
        axes.grid()
        figures.legend_above(drawn)
    return study_figures.standalone(
        drawn, name="controls", description="Zipf fitness against accuracy of losses drawn at "
        f"random; normalisation, k / classes, 2 sigma^2, s: {setting}; law {law:g}")


def main() -> None:
    """Measures what is not measured yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", required=True, help="the folder of Proxy.keep_features")
    parser.add_argument("--output", required=True,
                        help=f"folder for {TABLE}, {FIGURE}, and a JSON file for each network")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--setting", choices=[str(x) for x in SETTINGS], metavar="SETTING",
                        help="of the figure: normalisation/(k / classes)/(2 sigma^2)/s, such as "
                        f"{SETTINGS[0]}; by default the best after the longest trainings")
    parser.add_argument("--law", type=float, default=1.0, choices=LAWS,
                        help="of the figure: the exponent of the classes' shares")
    flags = parser.parse_args()
    output = pathlib.Path(flags.output)
    paths = sorted(pathlib.Path(flags.features).glob("*.npz"))
    if not paths:
        parser.error(f"{flags.features} holds no features (*.npz)")
    done = {path: output / "networks" / f"{path.stem}.json" for path in paths}
    missing = [path for path, result in done.items() if not result.exists()]
    with futures.ProcessPoolExecutor(flags.workers) as pool:
        for path, report in zip(missing, cli.progress(
                pool.map(measure, missing), total=len(missing),
                desc="networks", unit="network"), strict=True):
            files.write_atomic(done[path], json.dumps(report, indent=1) + "\n")
    reports = [json.loads(done[path].read_text(encoding="utf-8")) for path in paths]
    text = table(reports)
    files.write_atomic(output / TABLE, text)
    if networks := list(of_length(reports).values()):
        [setting] = [x for x in SETTINGS if str(x) == flags.setting] or [ranked(networks[-1])[0][0]]
        files.write_atomic(output / FIGURE, figure(reports, setting, flags.law))
    print(text)


if __name__ == "__main__":
    main()
