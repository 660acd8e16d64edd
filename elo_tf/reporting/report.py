"""report.html: what a search tried, what it chose, and what the network trained with it learned.

One file without any outside reference, for a light or a dark screen, a phone or a desk.
"""

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import gin
import numpy as np

from elo_tf import files, provenance
from elo_tf.reporting import (
    figures,
    page,
    search_cost,
    search_section,
    study_section,
    training_section,
)
from elo_tf.reporting import samples as samples_lib
from elo_tf.reporting.page import Markup
from elo_tf.reporting.results import Results, read_results
from elo_tf.reporting.samples import Sample
from elo_tf.search import choice
from elo_tf.search.journal import Journal

TITLE = "Evolving losses for video"
SHOWN = ("kmeans", "linear", "knn", "finetune")  # protocols; evaluation.md has them all


@gin.configurable(denylist=["run_dir", "search_dir", "pretrain_dir", "evaluation_dir",
                            "export_dir", "study_dir", "samples", "clips", "journal"])
def write_report(run_dir: str | os.PathLike, *, search_dir: str | os.PathLike | None = None,
                 pretrain_dir: str | os.PathLike | None = None,
                 evaluation_dir: str | os.PathLike | None = None,
                 export_dir: str | os.PathLike | None = None,
                 study_dir: str | os.PathLike | None = None, samples: Sequence[Sample] = (),
                 clips: Mapping[str, np.ndarray] = MappingProxyType({}),
                 journal: Journal | None = None, title: str = TITLE,
                 zipf_exponent: float | None = None, refresh: int = 30) -> str:
    """Writes `<run_dir>/report.html`; a part whose results are not there is left out, and said so.

    Args:
      run_dir: where the report goes.
      search_dir: run folder of the search, with `journal.jsonl`; the search may be unfinished.
      pretrain_dir: run folder of the final training, with `heldout.json` and `losses.jsonl`; the
        training may be unfinished.
      evaluation_dir: run folder of the evaluation, with `evaluation.json`.
      export_dir: folder of the exported versions.
      study_dir: run folder of the study of strategies, with `study.json`.
      samples: clips to show.
      clips: uint8 [T, H, W, 3], frames by id of the clips nearest to the centres of clusters.
      journal: of the search, where the caller has it; it is read if None.
      title: of the page.
      zipf_exponent: s of the Zipf law that is drawn; the search's own (`ZipfFitness.s` in its
        operative_config.gin, else 1) if None.
      refresh: seconds after which a browser reads the page again while the search runs; 0: never.

    Returns:
      The path of the report.

    Raises:
      UserError: a result is there but cannot be read.
    """
    results = read_results(
        search_dir=search_dir, pretrain_dir=pretrain_dir, evaluation_dir=evaluation_dir,
        export_dir=export_dir, study_dir=study_dir, journal=journal,
        zipf_exponent=zipf_exponent)
    text = page.document(
        title, _header(title, results, refresh), _evaluation(results.evaluation),
        search_section.search(results, clips), *study_section.study(results.study),
        _loss(results), training_section.training(results.heldout, results.log),
        _samples(samples), search_cost.cost(results.journal), _footer(results),
        refresh=refresh if results.running else 0)
    path = pathlib.Path(run_dir) / "report.html"
    files.write_atomic(path, text)
    return str(path)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _header(title: str, results: Results, refresh: int) -> Markup:
    """The summary: what a reader in a hurry takes away."""
    items = []
    if results.journal:
        items += search_section.tiles(results.journal)
    if results.evaluation:
        items.append(_accuracy_tile(results.evaluation))
    if results.heldout:
        fell, others = training_section.fallen(results.heldout)
        total = len(fell) + len(others)
        if total:
            said = "every one" if not others else f"all but {', '.join(others)}"
            items.append(("Losses that fell", f"{len(fell)} of {total}",
                          f"{said}, on clips the training has not seen; of the losses with a "
                          f"weight above {figures.NOTABLE:g}"))
    elif results.log:
        items.append(("Steps trained", page.number(results.log[-1]["step"], ",d"),
                      "of the final training, which has not ended"))
    now = (search_section.running(results.journal, refresh)
           if results.journal and results.running else "")
    summary = page.tiles(items) if items else page.note("No results were found.")
    return Markup(
        f"<header><h1>{page.escape(title)}</h1>"
        + page.paragraph("What the search tried, the loss it chose, and what the network trained "
                         "with it has learned.") + now + summary + "</header>")


def _accuracy_tile(evaluation: Mapping[str, Any]) -> tuple[str, Markup, Markup]:
    """The trained network by the linear protocol, or the first there is, in one line."""
    rows = {(x["network"], x["protocol"]): x for x in evaluation["rows"]}
    trained = [x for x in evaluation["rows"] if x["network"] == "trained"]
    row = rows.get(("trained", "linear")) or (trained or evaluation["rows"])[0]
    untrained = rows.get(("untrained", row["protocol"]))
    measure = figures.protocol_name(row["protocol"])
    meaning: list[str] = [page.escape(f"{measure} on frozen features")]
    if "test_clips" in evaluation:
        meaning.append(page.escape(f", {_plural(evaluation['test_clips'], 'test clip')}"))
    meaning += ["; chance ", page.percent(evaluation["chance"])]
    if untrained:
        meaning += [", untrained network ", page.percent(untrained["mean"])]
    return "Accuracy", page.percent(row["mean"]), Markup("".join(meaning))


def _evaluation(evaluation: Mapping[str, Any] | None) -> Markup:
    """Accuracy of the frozen features."""
    title = "What the features are worth"
    if not evaluation or not evaluation["rows"]:
        return page.section(title, page.note(
            "No evaluation was found: it needs labelled clips."))
    facts = []
    if "split" in evaluation:
        facts.append(f"split {evaluation['split']}")
    if "train_clips" in evaluation and "test_clips" in evaluation:
        facts.append(f"{_plural(evaluation['train_clips'], 'clip')} to train the classifier, "
                     f"{evaluation['test_clips']} to test it")
    if "classes" in evaluation:
        facts.append(f"{len(evaluation['classes'])} classes")
    seeds = len(evaluation.get("seeds", ()))
    shown = [x for x in evaluation["rows"] if x["protocol"] in SHOWN] or evaluation["rows"]
    rows: list[tuple[object, ...]] = [
        (figures.protocol_name(x["protocol"]), x["network"], page.percent(x["mean"]),
         page.percent(x["std"]))
        for x in sorted(shown, key=lambda x: x["protocol"])]
    rows.append(("chance", "", page.percent(evaluation["chance"]), ""))
    spread = f"mean and standard deviation of {_plural(seeds, 'seed')}" if seeds else "mean"
    return page.section(
        title,
        page.paragraph("The network is frozen, unless it is said to be fine-tuned; only what is "
                       "put on its features sees labels."
                       + (f" Here: {'; '.join(facts)}." if facts else "")),
        page.chart("accuracy",
                   functools.partial(figures.accuracy_bars, {**evaluation, "rows": shown}),
                   caption=f"Accuracy on the test clips, {spread}."),
        page.table(("protocol", "network", "accuracy", "± over seeds"), rows, text=2))


def _loss(results: Results) -> Markup:
    """The chosen loss: its weights, and what became of each loss."""
    found = choice.front_runner(results.journal) if results.journal else None
    best = found[0] if found else None
    heldout = results.heldout or {"weights": {}, "before": {}, "after": {}}
    weights = dict(best.weights) if best else dict(heldout["weights"])
    if not weights:
        return page.section("The best loss", page.note("No weights were found."))
    rows = []
    for name, weight in weights.items():
        rows.append((
            name, page.number(weight), page.number(best.losses.get(name) if best else None),
            page.number(heldout["before"].get(name)),
            page.number(heldout["after"].get(name))))
    return page.section(
        "The best loss",
        page.paragraph("One weight in [0, 1] for each loss. "
                       "The names read modality/task, or distill/from/layer."),
        page.chart("loss", functools.partial(figures.weight_bars, weights),
                   caption="Weights of the best loss, largest first, in the colours of the "
                           "modalities."),
        page.folded(
            f"All {len(weights)} weights and losses",
            page.table(("loss", "weight", "best candidate, last step",
                        "final network, before", "after"), rows)))


def _samples(samples: Sequence[Sample]) -> Markup:
    """Clips, so that one sees what the network sees."""
    title = "Sample clips"
    if not samples:
        return page.section(title, page.note("No sample clips were given."))
    return page.section(title, *(_sample(x) for x in samples))


def _sample(sample: Sample) -> Markup:
    image = functools.partial(page.picture, kind="strip")
    tracks = [("Frames", image(samples_lib.png_uri(samples_lib.filmstrip(sample.frames)),
                               f"frames of {sample.id}"))]
    if sample.flow is None:
        tracks.append(("Flow", page.note("This clip has no optical flow.")))
    else:
        strip = samples_lib.filmstrip(samples_lib.flow_colors(sample.flow), border=True)
        wheel = page.picture(samples_lib.png_uri(samples_lib.color_wheel()),
                             "the colour of each direction", kind="wheel")
        tracks.append((Markup("Flow" + wheel),
                       image(samples_lib.png_uri(strip), f"optical flow of {sample.id}")))
    if sample.log_mel is None:
        tracks.append(("Sound", page.note("This clip has no sound.")))
    else:
        tracks.append(("Sound", page.picture(
            samples_lib.png_uri(samples_lib.spectrogram(sample.log_mel)),
            f"log-mel spectrogram of {sample.id}", kind="sound")))
    body = "".join(f'<div class="track"><span>{page.escape(name)}</span>{inner}</div>'
                   for name, inner in tracks)
    heading, below = (sample.label, sample.id) if sample.label else (sample.id, "")
    return Markup(f'<div class="sample"><h3>{page.escape(heading)}</h3>{page.note(below)}'
                  f"{body}</div>")


def _footer(results: Results) -> Markup:
    """Which code and configuration made all this."""
    facts: list[tuple[str, str | None, str | None]] = [("Report", provenance.commit(), None)]
    if results.journal:
        header = results.journal.header
        facts.append(("Search", header.get("commit"), header.get("config")))
    if results.clip:
        facts.append(("Final network", results.clip.get("commit"), results.clip.get("config")))
    if results.evaluation:
        facts.append(
            ("Evaluation", results.evaluation.get("commit"), results.evaluation.get("config")))
    items = "".join(
        f"<dt>{name}</dt><dd>commit <code>{page.escape(commit or 'unknown')}</code>"
        + (f", configuration <code>{page.escape(config)}</code>" if config else "") + "</dd>"
        for name, commit, config in facts)
    if results.export:
        origin = results.export_provenance or {}
        items += (f"<dt>Exported</dt><dd><code>{page.escape(results.export)}</code>, commit "
                  f"<code>{page.escape(origin.get('exported_by_commit', 'unknown'))}</code></dd>")
    else:
        items += "<dt>Exported</dt><dd>no exported model was found</dd>"
    return Markup(f"<footer><dl>{items}</dl></footer>")
