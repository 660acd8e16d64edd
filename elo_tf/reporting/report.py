"""report.html: what a search tried, what it chose, and what the network trained with it learned.

One file without any outside reference, for a light or a dark screen, a phone or a desk.
"""

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import gin

from elo_tf import files, provenance
from elo_tf.reporting import figures, page, training_section
from elo_tf.reporting import samples as samples_lib
from elo_tf.reporting.page import Markup
from elo_tf.reporting.results import Results, read_results
from elo_tf.reporting.samples import Sample
from elo_tf.search.journal import Candidate, Journal

TITLE = "Evolving losses for video"


@gin.configurable(denylist=["run_dir", "search_dir", "pretrain_dir", "evaluation_dir",
                            "export_dir", "samples"])
def write_report(run_dir: str | os.PathLike, *, search_dir: str | os.PathLike | None = None,
                 pretrain_dir: str | os.PathLike | None = None,
                 evaluation_dir: str | os.PathLike | None = None,
                 export_dir: str | os.PathLike | None = None, samples: Sequence[Sample] = (),
                 title: str = TITLE, zipf_exponent: float | None = None) -> str:
    """Writes `<run_dir>/report.html`; a part whose results are not there is left out, and said so.

    Args:
      run_dir: where the report goes.
      search_dir: run folder of the search, with `journal.jsonl`; the search may be unfinished.
      pretrain_dir: run folder of the final training, with `heldout.json` and `losses.jsonl`; the
        training may be unfinished.
      evaluation_dir: run folder of the evaluation, with `evaluation.json`.
      export_dir: folder of the exported versions.
      samples: clips to show.
      title: of the page.
      zipf_exponent: s of the Zipf law that is drawn; the search's own (`ZipfFitness.s` in its
        operative_config.gin, else 1) if None.

    Returns:
      The path of the report.

    Raises:
      UserError: a result is there but cannot be read.
    """
    results = read_results(
        search_dir=search_dir, pretrain_dir=pretrain_dir, evaluation_dir=evaluation_dir,
        export_dir=export_dir, zipf_exponent=zipf_exponent)
    text = page.document(
        title, _header(title, results), _evaluation(results.evaluation), _search(results),
        _loss(results), training_section.training(results.heldout, results.log),
        _samples(samples), _time(results.journal), _footer(results))
    path = pathlib.Path(run_dir) / "report.html"
    files.write_atomic(path, text)
    return str(path)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _header(title: str, results: Results) -> Markup:
    """The summary: what a reader in a hurry takes away."""
    items = []
    if results.journal:
        journal = results.journal
        best, failed = journal.best, sum(not x.ok for x in journal.candidates)
        if best is not None:
            items.append(("Best fitness", page.number(best.fitness),
                          "divergence of the cluster sizes from Zipf’s law, lower is better; "
                          f"candidate {best.index} of generation {best.generation}"))
        generations = len({x.generation for x in journal.candidates})
        items.append(("Candidates tried", page.number(len(journal.candidates), "d"),
                      f"in {_plural(generations, 'generation')}; {failed or 'none'} failed"
                      + ("" if journal.end else "; the search has not ended")))
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
    summary = page.tiles(items) if items else page.note("No results were found.")
    return Markup(
        f"<header><h1>{page.escape(title)}</h1>"
        + page.paragraph("What the search tried, the loss it chose, and what the network trained "
                         "with it has learned.") + summary + "</header>")


def _accuracy_tile(evaluation: Mapping[str, Any]) -> tuple[str, Markup, Markup]:
    """The trained network by the linear protocol, or the first there is, in one line."""
    rows = {(x["network"], x["protocol"]): x for x in evaluation["rows"]}
    trained = [x for x in evaluation["rows"] if x["network"] == "trained"]
    row = rows.get(("trained", "linear")) or (trained or evaluation["rows"])[0]
    untrained = rows.get(("untrained", row["protocol"]))
    meaning = [page.escape(f"{figures.protocol_name(row['protocol'])} on frozen features")]
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
    rows = [(figures.protocol_name(x["protocol"]), x["network"], page.percent(x["mean"]),
             page.percent(x["std"]))
            for x in sorted(evaluation["rows"], key=lambda x: x["protocol"])]
    rows.append(("chance", "", page.percent(evaluation["chance"]), ""))
    spread = f"mean and standard deviation of {_plural(seeds, 'seed')}" if seeds else "mean"
    return page.section(
        title,
        page.paragraph("The network is frozen; only what is put on its features sees labels."
                       + (f" Here: {'; '.join(facts)}." if facts else "")),
        page.chart("accuracy", functools.partial(figures.accuracy_bars, evaluation),
                   caption=f"Accuracy on the test clips, {spread}."),
        page.table(("protocol", "network", "accuracy", "± over seeds"), rows, text=2))


def _search(results: Results) -> Markup:
    """How the search went: fitness, weights over the generations, the clusters of the best."""
    journal = results.journal
    if journal is None or not journal.candidates:
        return page.section("The search", page.note("No search was found."))
    header, best = journal.header, journal.best
    parts = [
        page.paragraph(
            f"{header['strategy']} proposes the weights of {len(header['names'])} losses, "
            f"{header['population']} candidates a generation, seed {header['seed']}. Each one "
            "trains a small network; its features are clustered without labels, and the fitness "
            "says how far the cluster sizes are from Zipf’s law."
            + (f" Why it ended: {journal.end['reason']}." if journal.end else
               f" It has not ended: {header['generations']} generations were asked for.")),
        page.chart("fitness", functools.partial(figures.fitness_curve, journal.candidates),
                   caption="Fitness of every candidate, in the order they were tried. A failed "
                           "one is a cross at the upper edge."),
    ]
    if journal.generations:
        parts += [
            Markup("<h3>The weights over the evolution</h3>"),
            page.panels(
                "weights",
                figures.weight_panels(header["names"], journal.generations),
                caption="The search’s mean weight of every loss after each generation, from 0 to "
                        "1, by task and modality; for distillation, by the layer and the network "
                        "it comes from."),
        ]
    if best and best.histogram:
        parts += [
            Markup("<h3>The clusters of the best candidate</h3>"),
            page.chart("zipf", functools.partial(
                figures.zipf_histogram, best.histogram, s=results.zipf_exponent),
                caption="Share of the clips in each cluster, largest first, beside the law that "
                        "the fitness wants."),
        ]
    parts.append(page.folded(f"All {_plural(len(journal.candidates), 'candidate')}",
                             _candidate_table(journal)))
    return page.section("The search", *parts)


def _candidate_table(journal: Journal) -> Markup:
    def row(x: Candidate) -> list[object]:
        status = "best" if x is journal.best else x.status
        if not x.ok:
            status = Markup(f'<span class="bad">{page.escape(x.status)}</span>')
        return [f"{x.generation}.{x.index}", status,
                page.number(x.fitness, ".4f") if x.ok else "",
                page.number(x.spread, ".3g"), page.number(x.effective_rank, ".3g"),
                *(page.number(x.seconds.get(part), ".1f") for part in ("total", "train"))]

    return page.table(
        ("generation.index", "status", "fitness", "spread", "effective rank", "seconds",
         "of training"), [row(x) for x in journal.candidates], text=2)


def _loss(results: Results) -> Markup:
    """The chosen loss: its weights, and what became of each loss."""
    best = results.journal.best if results.journal else None
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
            page.table(("loss", "weight", "best candidate, unseen clips",
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


def _time(journal: Journal | None) -> Markup:
    """Where the search's time went."""
    title = "Time"
    timed = [x.seconds for x in journal.candidates if x.seconds.get("total")] if journal else []
    if not timed:
        return page.section(title, page.note("No times of a search were found."))
    columns = [timed, timed[1:]] if len(timed) > 1 else [timed]
    totals = [sum(x["total"] for x in column) for column in columns]
    rows, useful = [], [0.0] * len(columns)
    rest = list(totals)
    for part, meaning in (("train", "training steps"), ("features", "features"),
                          ("cluster", "clustering")):
        spent = [sum(x.get(part, 0.0) for x in column) for column in columns]
        rest = [a - b for a, b in zip(rest, spent, strict=True)]
        if part != "cluster":
            useful = [a + b for a, b in zip(useful, spent, strict=True)]
        rows.append((meaning, spent))
    rows += [("all else", rest), ("total", totals)]
    cells = [
        (meaning, *(cell for value, total in zip(spent, totals, strict=True)
                    for cell in (page.number(value, ".1f"), page.percent(value / total))))
        for meaning, spent in rows]
    share = page.percent(useful[-1] / totals[-1])
    return page.section(
        title,
        page.paragraph("Training steps and feature extraction take ", share, " of the time of the "
                       + ("candidates after the first, which also builds the graph."
                          if len(columns) > 1 else "one candidate there is.")),
        page.table(("", "all candidates, s", "share", "after the first, s", "share")
                   [:1 + 2 * len(columns)], cells))


def _footer(results: Results) -> Markup:
    """Which code and configuration made all this."""
    facts = [("Report", provenance.commit(), None)]
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
