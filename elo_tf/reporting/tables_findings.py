"""What the tables say, in sentences: every one follows from the numbers.

With several seeds two means differ only beyond their spread, see `scores.difference`; with one
they are compared as they are, and the text says that no spread is known.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from elo_tf.evaluation import paper
from elo_tf.reporting.scores import Score, difference, plural, points

if TYPE_CHECKING:
    from elo_tf.reporting.tables import Curve, Row, Tables

# That have one self-supervised task alone.
SINGLE = ("reconstruct", "frame_shuffle", "reverse_detection", "audio_rgb_align", "rgb_to_flow",
          "predict_4_frames", "joint_embedding", "shuffle_and_learn", "o3n", "opn", "patch",
          "multisensory", "avts", "jigsaw", "relative_patch")
_SAID = {"kmeans": "k-means accuracy", "linear": "1-layer accuracy",
         "finetune": "fine-tuned accuracy"}
# What the searched loss is to beat, by name of the row.
_RIVALS = {"random_loss": "the random loss", "equal_weights": "equal weights",
           "uncertainty": "learned uncertainty weighting",
           "elo_no_distillation": "ELo without distillation", "scratch": "scratch"}


def findings(tables: Tables) -> list[str]:
    """All sentences; none of what is not measured yet."""
    said = [*_of_elo(tables), *_of_scratch(tables)]
    if tables.plan.static:
        said += _of_motion(tables)
    else:
        said += [*_of_orders(tables), *_of_labels(tables), *_of_unlabelled(tables)]
    if said and len(tables.plan.seeds) == 1:
        said.insert(0, "One seed: no spread is known. Means are compared as they are, and small "
                    "differences may be luck.")
    return said


def compare(first: Score, second: Score) -> int:
    """1, -1 or 0 as `difference`; where both have a single seed, by the means as they are."""
    if max(first.n, second.n) < 2:
        return (first.mean > second.mean) - (first.mean < second.mean)
    return difference(first, second)


def _of_elo(tables: Tables) -> list[str]:
    """ELo against the best single task and what needs no search."""
    rows = {row.name: row for row in tables.rows}
    said = []
    for protocol, measure in _SAID.items():
        scores = {name: row.scores[protocol] for name, row in rows.items()
                  if protocol in row.scores}
        if "elo" not in scores:
            continue
        own = scores["elo"]
        rivals = {title: scores[name] for name, title in _RIVALS.items() if name in scores}
        alone = [name for name in SINGLE if name in scores]
        if alone:
            best = max(alone, key=lambda x: scores[x].mean)
            rivals = {f"the best single task, {rows[best].title}": scores[best], **rivals}
        if rivals:
            said.append(f"By {measure}, ELo ({own.mean:.1%}) is {_verdicts(own, rivals)}.")
    return said


def _verdicts(own: Score, rivals: Mapping[str, Score]) -> str:
    words: dict[int, list[str]] = {}
    for title, other in rivals.items():
        words.setdefault(compare(own, other), []).append(
            f"{title} ({points(own.mean - other.mean)})")
    return "; ".join(f"{word} {', '.join(words[sign])}" for sign, word in (
        (1, "better than"), (-1, "worse than"), (0, "no different from")) if sign in words)


def _of_scratch(tables: Tables) -> list[str]:
    """Which methods beat the network that was not pre-trained."""
    rows = {row.name: row for row in tables.rows}
    said = []
    for protocol, measure in _SAID.items():
        scores = {name: row.scores[protocol] for name, row in rows.items()
                  if protocol in row.scores}
        base = scores.pop("scratch", None)
        if base is None or not scores:
            continue
        titles = {sign: [rows[name].title for name, x in scores.items()
                         if compare(x, base) == sign] for sign in (1, 0, -1)}
        parts = [f"{label}: {', '.join(titles[sign])}" for sign, label in (
            (1, "better"), (0, "no different"), (-1, "worse")) if titles[sign]]
        said.append(f"By {measure}, {len(titles[1])} of {plural(len(scores), 'method')} beat "
                    f"scratch, {base.mean:.1%} ({'; '.join(parts)}).")
    return said


def _of_motion(tables: Tables) -> list[str]:
    """Whether a network makes use of more than one frame."""
    said = []
    for row in tables.rows:
        verdicts = {protocol: (row.scores[protocol], row.static[protocol]) for protocol in _SAID
                    if protocol in row.scores and protocol in row.static}
        if verdicts:
            parts = [f"{measure} {own.mean:.1%} of the clip, {alone.mean:.1%} of its middle frame "
                     + {1: "(motion helps)", 0: "(no difference)", -1: "(one frame is better)"}[
                         compare(own, alone)]
                     for protocol, measure in _SAID.items() if protocol in verdicts
                     for own, alone in [verdicts[protocol]]]
            said.append(f"{row.title}: {'; '.join(parts)}.")
    return said


def _of_orders(tables: Tables) -> list[str]:
    """Of each column of the paper, how many pairs of methods are in the same order here."""
    columns = {f"Table 1, {protocol_title}": (protocol, {
        name: values[i] for name, values in paper.TABLE_1.items()})
        for i, (protocol, protocol_title) in enumerate(
            zip(paper.PROTOCOLS, ("k-means", "1-layer", "fine-tune"), strict=True))}
    for i, dataset in enumerate(("HMDB51", "UCF101")):
        columns[f"Table 2, {dataset}"] = ("finetune", {
            name: value for name, values in paper.TABLE_2.items()
            if (value := values[i]) is not None})
    return [sentence for title, (protocol, theirs) in columns.items()
            if (sentence := _order(title, protocol, theirs, tables.rows))]


def _order(title: str, protocol: str, theirs: Mapping[str, float], rows: Sequence[Row]) -> str:
    known = [row for row in rows if protocol in row.scores and row.name in theirs]
    counts = {1: 0, 0: 0, -1: 0}
    reversed_by: dict[str, list[str]] = {}
    # The paper's better one first; where it says that two are equal, there is no order.
    ranked = sorted(known, key=lambda row: -theirs[row.name])
    for better, worse in itertools.combinations(ranked, 2):
        if theirs[better.name] == theirs[worse.name]:
            continue
        outcome = compare(better.scores[protocol], worse.scores[protocol])
        counts[outcome] += 1
        if outcome < 0:
            reversed_by.setdefault(worse.title, []).append(better.title)
    total = sum(counts.values())
    if not total:
        return ""
    text = (f"{title}: of {plural(total, 'pair')} of methods {counts[1]} are in the paper's order, "
            f"{counts[-1]} the other way round, {counts[0]} no different")
    if reversed_by:
        text += " (the other way round: " + "; ".join(
            f"{winner} over {', '.join(losers)}" for winner, losers in reversed_by.items()) + ")"
    return text + "."


def _of_labels(tables: Tables) -> list[str]:
    """Figure 5: what pre-training is worth where labels are few, and where they are many."""
    said = []
    for protocol, measure in _SAID.items():
        curves = {x.name: x for x in tables.label_curves if x.protocol == protocol}
        if "elo" not in curves or "scratch" not in curves:
            continue
        own, base = curves["elo"], curves["scratch"]
        gaps = [f"{points(_at(own, n).mean - _at(base, n).mean)} with {n} labelled clips"
                for n in (own.clips[0], own.clips[-1]) if n in base.clips]
        goal = base.scores[-1].mean
        enough = [n for n, x in zip(own.clips, own.scores, strict=True) if x.mean >= goal]
        reached = (f"It reaches what scratch has with all {base.clips[-1]} ({goal:.1%}) with "
                   f"{enough[0]}" if enough else
                   f"It does not reach what scratch has with all {base.clips[-1]} ({goal:.1%})")
        said.append(f"Figure 5, by {measure}: ELo against scratch is {', '.join(gaps)}. {reached}. "
                    "In the paper it does with between 120,000 and 160,000 of 225,000.")
    return said


def _at(curve: Curve, clips: int) -> Score:
    return curve.scores[curve.clips.index(clips)]


def _of_unlabelled(tables: Tables) -> list[str]:
    """Figure 6: whether more unlabelled clips help."""
    curve = tables.unlabelled_curve
    if curve is None or len(curve.clips) < 2:
        return []
    risen = [compare(after, before) > 0 for before, after in itertools.pairwise(curve.scores)]
    return [f"Figure 6: from {curve.clips[0]} to {curve.clips[-1]} unlabelled clips, for the same "
            f"number of steps, ELo's 1-layer accuracy goes from {curve.scores[0].mean:.1%} to "
            f"{curve.scores[-1].mean:.1%}; it rises in {sum(risen)} of "
            f"{plural(len(risen), 'step')}."]
