"""The report's sections of a search: how it went, what it chose, what failed, what it saw."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from elo_tf.reporting import page, samples, search_figures, search_statistics
from elo_tf.reporting.page import Markup
from elo_tf.reporting.results import Clusters, Results
from elo_tf.search import choice
from elo_tf.search.candidate import Candidate, Measured
from elo_tf.search.journal import Journal

TITLE = "The search"
ROWS = 300                  # candidates in the table at most
COMPONENTS = 6              # of an axis named
CLUSTERS, CLIPS = 12, 4     # shown
GUIDES = {
    "zipf": "Each one trains a small network; its features are clustered without labels, and the "
            "fitness says how far the cluster sizes are from Zipf’s law.",
    "weak": "Each one trains a small network; its features are clustered, half of the labelled "
            "clips names the clusters, and the fitness is the error rate on the other half."}


def tiles(journal: Journal) -> list[tuple[str, object, object]]:
    """What the page's summary says of a search."""
    items: list[tuple[str, object, object]] = []
    guide = search_statistics.guide(journal)
    control = search_statistics.control_of(journal)
    found = choice.front_runner(journal)
    measure = ("divergence of the cluster sizes from Zipf’s law" if guide == "zipf"
               else "error rate of weak supervision")
    if found is not None:
        best = found[0]
        mean = choice.repeated_fitness(journal, best)
        meaning = [f"{measure}, lower is better; candidate {best.index} of generation "
                   f"{best.generation}"]
        if mean is not None:
            seeds = journal.header["repeats"]
            meaning += ["; ", page.number(mean), f" on average with {seeds} other "
                        f"{_noun(seeds, 'seed')}"]
        items.append(("Best fitness", page.number(best.fitness), _joined(meaning)))
    untrained = search_statistics.fitness_of(control, guide)
    items.append((
        "Random encoder", "not measured" if untrained is None else page.number(untrained),
        "the control: the fitness of the network before any training"
        if control is None or control.ok else f"the control: {control.status}"))
    if found is not None and found[0].weak is not None:
        meaning = ["accuracy of the best candidate’s clusters on labelled clips"]
        if control is not None and control.weak is not None:
            meaning += ["; random encoder ", page.percent(control.weak)]
        items.append(("Weak supervision", page.percent(found[0].weak), _joined(meaning)))
    generations = len({x.generation for x in journal.candidates})
    failed = sum(not x.ok for x in journal.candidates)
    items.append((
        "Candidates tried", page.number(len(journal.candidates), "d"),
        f"in {generations} {_noun(generations, 'generation')}; {failed or 'none'} failed"
        + ("" if journal.end else "; the search has not ended")))
    return items


def running(journal: Journal, refresh: int) -> Markup:
    """One line on a search that has not ended."""
    total = search_statistics.expected(journal)
    found = choice.front_runner(journal)
    parts = [f"Running: {len(journal.candidates)} of {total or 'so many'} candidates"]
    if journal.repeats:
        parts.append(f", {len(journal.repeats)} evaluated again")
    parts += [", best so far ", page.number(found[1], ".4f")] if found else [", none worked yet"]
    return page.paragraph(*parts, f". This page is read again every {refresh} seconds."
                          if refresh else ".")


def search(results: Results, clips: Mapping[str, np.ndarray]) -> Markup:
    """The section.

    Args:
      results: of the search.
      clips: uint8 [T, H, W, 3] frames by id, of the clips named in `results.clusters`.
    """
    journal = results.journal
    if journal is None:
        return page.section(TITLE, page.note("No search was found."))
    return page.section(
        TITLE, _introduction(journal), *_course(journal), *_weights(journal), *_steps(journal),
        *_measures(journal), *_histograms(journal, results), *_leaders(journal),
        *_failures(journal), *_clips(results.clusters, clips), *_all(journal))


def _noun(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"


def _joined(parts: Sequence[object]) -> Markup:
    return Markup("".join(map(page.escape, parts)))


def _heading(text: str) -> Markup:
    return Markup(f"<h3>{page.escape(text)}</h3>")


def _name(candidate: Candidate) -> str:
    return f"{candidate.generation}.{candidate.index}"


def _introduction(journal: Journal) -> Markup:
    header = journal.header
    searched = len(header.get("searched", header["names"]))
    fixed = len(header["names"]) - searched
    return page.paragraph(
        f"{header['strategy']} proposes the weights of {searched} losses"
        + (f", {fixed} more are fixed" if fixed else "")
        + f"; {header['population']} candidates a generation, seed {header['seed']}. "
        + GUIDES[search_statistics.guide(journal)]
        + (f" Why it ended: {journal.end['reason']}." if journal.end else
           f" It has not ended: {header['generations']} generations were asked for."))


def _course(journal: Journal) -> list[Markup]:
    if not journal.candidates:
        return [page.note("No candidate has been evaluated yet.")]
    guide = search_statistics.guide(journal)
    control = search_statistics.control_of(journal)
    untrained = search_statistics.fitness_of(control, guide)
    found = search_statistics.quartiles(journal.candidates)
    rows = [(str(g), page.number(best, ".4f"), page.number(median, ".4f"),
             page.number(upper - lower, ".4f"), str(failed))
            for g, best, lower, median, upper, failed in zip(
                *(column.tolist() for column in vars(found).values()), strict=True)]
    return [
        page.chart(
            "fitness", functools.partial(search_figures.fitness_curve, journal.candidates,
                                         guide=guide, control=untrained),
            caption="Fitness of every candidate by its generation; best, median and quartiles of "
                    "those that worked. A failed one is a cross at the upper edge. "
                    + ("The dotted line is the random encoder: the same network without any "
                       "training." if untrained is not None else
                       "The random encoder, the control, was not measured.")),
        page.folded(f"{len(rows)} {_noun(len(rows), 'generation')} in numbers", page.table(
            ("generation", "best", "median", "between the quartiles", "failed"), rows)),
        *_against_control(journal)]


def _against_control(journal: Journal) -> list[Markup]:
    """Best and worst candidate beside the random encoder."""
    found, control = choice.front_runner(journal), search_statistics.control_of(journal)
    guide = search_statistics.guide(journal)
    compared: list[tuple[str, Measured | None]] = [
        ("best candidate", found[0] if found else None),
        ("random encoder (control)", control),
        ("worst candidate that worked", search_statistics.worst(journal))]
    rows = []
    for name, measured in compared:
        if measured is None:
            rows.append((name, *["none"] * 5))
        else:
            rows.append((
                name if measured.ok else f"{name}: {measured.status}",
                page.number(search_statistics.fitness_of(measured, guide), ".4f"),
                page.number(measured.zipf, ".4f"),
                page.number(None) if measured.weak is None else page.percent(measured.weak),
                page.number(measured.effective_rank, ".3g"), page.number(measured.spread, ".3g")))
    parts = [page.table(("network", "fitness", "KL from Zipf’s law", "weak supervision",
                         "effective rank", "spread"), rows)]
    untrained = search_statistics.fitness_of(control, guide)
    if untrained is not None and found is not None:
        better = sum(x.ok and x.fitness < untrained for x in journal.candidates)
        parts.append(page.paragraph(
            page.number(better, "d"), f" of {len(journal.candidates)} candidates have a lower "
            "fitness than the random encoder" + (
                "; the best is not among them: by this measure, training has made the features "
                "no better." if found[0].fitness >= untrained else ".")))
    return parts


def _weights(journal: Journal) -> list[Markup]:
    if not journal.generations:
        return []
    names = journal.header.get("searched", journal.header["names"])
    left_out = len(journal.header["names"]) - len(names)
    fixed = f" Weights that are fixed ({left_out}) are not shown." if left_out else ""
    return [
        _heading("The weights over the evolution"),
        page.panels(
            "weights", search_figures.weight_panels(names, journal.generations),
            caption="The search’s mean weight of every loss after each generation, from 0 to 1, "
                    "by task and modality; for distillation, by the layer and the network it "
                    "comes from." + fixed),
        page.folded("The same by modality", page.panels(
            "modalities",
            search_figures.weight_panels(names, journal.generations, by_modality=True),
            caption="The same weights, a figure for each modality and a line for each of its "
                    "tasks."))]


def _steps(journal: Journal) -> list[Markup]:
    """Step size, and where the search distribution is longest."""
    generations = journal.generations
    parts = []
    if len({x.sigma for x in generations}) > 1:
        parts.append(page.chart(
            "sigma", functools.partial(search_figures.sigma_curve, generations),
            caption="The step size of the search after each generation."))
    if generations and generations[-1].axes:
        rows = []
        for number, (length, direction) in enumerate(generations[-1].axes, start=1):
            largest = sorted(direction.items(), key=lambda x: -abs(x[1]))[:COMPONENTS]
            named: list[object] = []
            for name, component in largest:
                named += [", " if named else "", f"{name} ", page.number(component, "+.2f")]
            rows.append((str(number), page.number(length, ".3g"), _joined(named)))
        parts.append(page.table(("axis", "length", "largest components"), rows, text=3))
        parts.append(page.note(
            f"The leading axes of the covariance after generation {generations[-1].generation}: "
            "the directions in which the search still varies most. Losses of one sign rise and "
            "fall together."))
    return [_heading("How the search moves"), *parts] if parts else []


def _measures(journal: Journal) -> list[Markup]:
    """Zipf's law against weak supervision: Figure 9 of the paper."""
    measured = search_statistics.both_measured(journal.candidates)
    if not measured:
        return []
    found = choice.front_runner(journal)
    return [
        _heading("Does Zipf’s law say which features are good?"),
        rank_sentence(measured, journal.header["strategy"]),
        page.chart(
            "measures", functools.partial(
                search_figures.measures, measured, best=found[0] if found else None,
                control=search_statistics.control_of(journal)),
            caption="Each candidate by both measures: the divergence, which needs no label, and "
                    "the accuracy of its clusters on labelled clips.")]


def rank_sentence(measured: Sequence[Candidate], strategy: str) -> Markup:
    """Spearman's rho of two measures in words, beside the paper's."""
    found = search_statistics.rank_correlation(
        [x.zipf or 0.0 for x in measured], [x.weak or 0.0 for x in measured])
    paper = (f" The paper: ρ = {search_statistics.PAPER_RHO} over 100 losses, at its own scale.")
    if found is None:
        return page.paragraph(
            f"{len(measured)} {_noun(len(measured), 'candidate')} with both measures, too few or "
            "too alike for a rank correlation.", paper)
    interval = ([", 95% interval ", page.number(found.low, ".2f"), " to ",
                 page.number(found.high, ".2f")] if np.isfinite(found.low) else [])
    return page.paragraph(
        "Spearman’s ρ between −KL and the accuracy is ", page.number(found.rho, ".2f"),
        " (n = ", page.number(found.n, "d"), ", p = ", page.number(found.p, ".2g"), *interval,
        f"), +1 where both order alike; {search_statistics.sample_of(strategy)}.", paper)


def _histograms(journal: Journal, results: Results) -> list[Markup]:
    found = choice.front_runner(journal)
    compared = {"Best": found[0] if found else None,
                "Worst that worked": search_statistics.worst(journal),
                "Random encoder": search_statistics.control_of(journal)}
    shown = {name: x.histogram for name, x in compared.items() if x is not None and x.histogram}
    if not shown:
        return []
    return [
        _heading("The sizes of the clusters"),
        page.chart(
            "zipf", functools.partial(search_figures.zipf_histograms, shown,
                                      s=results.zipf_exponent),
            caption="Share of the clips in each cluster, largest first, beside the law that the "
                    "fitness wants.")]


def _leaders(journal: Journal) -> list[Markup]:
    leaders = search_statistics.leaders(journal)
    if not leaders:
        return []
    seeds = sorted({x.repeat for leader in leaders for x in leader.repeats})

    def fitness(measured: Measured | None) -> object:
        if measured is None:
            return ""
        if not measured.ok:
            return Markup('<span class="bad">failed</span>')
        guide = search_statistics.guide(journal)
        return page.number(search_statistics.fitness_of(measured, guide), ".4f")

    rows = []
    for leader in leaders:
        by_seed = {x.repeat: x for x in leader.repeats}
        mean = page.number(leader.mean, ".4f")
        rows.append((_name(leader.candidate), ("chosen" if journal.end else "leads")
                     if leader.chosen else "", fitness(leader.candidate),
                     *(fitness(by_seed.get(seed)) for seed in seeds), mean))
    untrained = [search_statistics.fitness_of(journal.controls.get(seed),
                                              search_statistics.guide(journal)) for seed in seeds]
    if journal.controls:
        known = [x for x in untrained if x is not None]
        whole = float(np.mean(known)) if len(known) == len(seeds) else None
        rows.append(("random encoder", "control", fitness(journal.controls.get(0)),
                     *(fitness(journal.controls.get(seed)) for seed in seeds),
                     page.number(whole, ".4f")))
    return [
        _heading("The leaders, evaluated again"),
        page.paragraph("The best were trained again with other seeds. The first fitness made "
                       "them leaders, which they may owe to luck: the mean of the others decides."),
        page.table(("generation.index", "", "first fitness",
                    *(f"seed +{seed}" for seed in seeds), "mean of the others"), rows, text=2)]


def _failures(journal: Journal) -> list[Markup]:
    found = search_statistics.failures(journal)
    if not found:
        return []
    rows = []
    for reason, failed in found:
        named = ", ".join(map(_name, failed[:8])) + (" and more" if len(failed) > 8 else "")
        rows.append((Markup(f'<span class="bad">{page.escape(reason)}</span>'), named,
                     page.number(len(failed), "d")))
    return [_heading("What failed"),
            page.table(("reason, of the first", "generation.index", "times"), rows, text=2)]


def _clips(clusters: Clusters | None, clips: Mapping[str, np.ndarray]) -> list[Markup]:
    """The clips nearest to the centres of the best candidate's clusters."""
    if clusters is None:
        return []
    generation, index, _ = clusters.place
    parts = [_heading("What is in the clusters")]
    if not any(clip in clips for cluster in clusters.clips for clip in cluster):
        return [*parts, page.note("The clips nearest to the centres are shown where the records "
                                  "are given (--data).")]
    parts.append(page.paragraph(
        f"The clips nearest to the centre of each cluster, of candidate {index} of generation "
        f"{generation}; four frames each, from left to right."))
    for number, (share, nearest) in enumerate(
            zip(clusters.shares[:CLUSTERS], clusters.clips, strict=False), start=1):
        strips = "".join(
            page.picture(samples.small_strip(clips[clip]), f"frames of {clip}", kind="clip")
            for clip in nearest[:CLIPS] if clip in clips)
        parts.append(_joined([
            Markup('<p class="quiet">'), f"Cluster {number}, ", page.percent(share),
            " of the clips", Markup(f'</p><div class="clips">{strips}</div>')]))
    if len(clusters.shares) > CLUSTERS:
        parts.append(page.note(f"{len(clusters.shares) - CLUSTERS} smaller clusters are left "
                               "out."))
    return parts


def shown_clips(clusters: Clusters | None) -> list[str]:
    """The ids of the clips that the section would show."""
    if clusters is None:
        return []
    return [clip for cluster in clusters.clips[:CLUSTERS] for clip in cluster[:CLIPS]]


def _all(journal: Journal) -> list[Markup]:
    count = len(journal.candidates)
    if not count:
        return []
    shown, title = journal.candidates, f"All {count} {_noun(count, 'candidate')}"
    if count > ROWS:
        shown = sorted(journal.candidates, key=lambda x: (not x.ok, x.fitness))[:ROWS]
        title = f"The best {ROWS} of {count} candidates"
    return [page.folded(title, _candidate_table(journal, shown))]


def _candidate_table(journal: Journal, shown: Sequence[Candidate]) -> Markup:
    found = choice.front_runner(journal)

    def row(x: Candidate) -> list[object]:
        status = "best" if found and x is found[0] else x.status
        if not x.ok:
            status = Markup(f'<span class="bad">{page.escape(x.status)}</span>')
        return [_name(x), status,
                page.number(x.fitness, ".4f") if x.ok else "", page.number(x.zipf, ".4f"),
                "" if x.weak is None else page.percent(x.weak),
                page.number(x.spread, ".3g"), page.number(x.effective_rank, ".3g"),
                *(page.number(x.seconds.get(part), ".1f") for part in ("total", "train"))]

    return page.table(
        ("generation.index", "status", "fitness", "KL", "weak", "spread", "effective rank",
         "seconds", "of training"), [row(x) for x in shown], text=2)
