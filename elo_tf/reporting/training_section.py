"""The report's section of the final training: whether and how it lowered what it was asked to."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from elo_tf.reporting import figures, page, training_curves
from elo_tf.reporting.page import Markup
from elo_tf.reporting.training_curves import Entry

TITLE = "The final training"


def fallen(heldout: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[str]]:
    """Names of the notable losses that fell on unseen clips, and of those that did not."""
    fell: list[str] = []
    others: list[str] = []
    for name, weight in heldout["weights"].items():
        if weight > figures.NOTABLE:
            before, after = heldout["before"].get(name), heldout["after"].get(name)
            lower = before is not None and after is not None and after < before
            (fell if lower else others).append(name)
    return fell, others


def training(heldout: Mapping[str, Mapping[str, float]] | None,
             log: Sequence[Entry] = ()) -> Markup:
    """The section.

    Args:
      heldout: of `heldout.json`, where the training has ended.
      log: the entries of `losses.jsonl`; none where there is no such file.
    """
    if not heldout and not log:
        return page.section(TITLE, page.note("No final training that has ended was found."))
    steps = training_curves.of_steps(log)
    parts = []
    if heldout:
        parts.append(page.paragraph(_verdict(heldout)))
    else:
        parts.append(page.paragraph(
            "It has not ended: the log reaches step ", page.number(log[-1]["step"], ",d"), "."))
    if steps:
        parts.append(_measured(steps))
    if log:
        each = -(-len(steps) // training_curves.POINTS)
        batches = f"means of {each} batches" if each > 1 else "single batches"
        parts.append(page.chart(
            "course", functools.partial(training_curves.total_curve, log),
            caption=f"The weighted sum of the losses: on {batches} of training clips and, at "
                    "checkpoints, on unseen clips. Below it, the learning rate."))
    if heldout:
        parts.append(page.chart(
            "heldout", functools.partial(figures.heldout_losses, heldout),
            caption="Losses on unseen clips before and after the training, by weight (the number "
                    f"beside the name); faint where it is {figures.NOTABLE:g} or less."))
    if steps:
        parts += _tasks(steps)
    return page.section(TITLE, *parts)


def _verdict(heldout: Mapping[str, Mapping[str, float]]) -> str:
    """What became of the losses that matter."""
    fell, others = fallen(heldout)
    if not fell and not others:
        return f"No loss has a weight above {figures.NOTABLE:g}."
    if not others:
        return (f"Every loss with a weight above {figures.NOTABLE:g} fell on clips that the "
                "training has not seen.")
    return (f"{len(fell)} of {len(fell) + len(others)} losses with a weight above "
            f"{figures.NOTABLE:g} fell on clips that the training has not seen; these did not: "
            f"{', '.join(others)}.")


def _measured(steps: Sequence[Entry]) -> Markup:
    """Speed, waiting and memory; medians, since the first entry has the making of the graph."""
    def values(key: str) -> list[float]:
        return [x["measured"][key] for x in steps]

    return page.paragraph(
        "It trained on ", page.number(float(np.median(values("clips_per_second"))), ".3g"),
        " clips a second and waited for data for ",
        page.percent(float(np.median(values("data_wait")))),
        " of the time (medians of the log), with at most ",
        page.number(max(values("memory_gb")), ".3g"), " GB of memory.")


def _tasks(steps: Sequence[Entry]) -> list[Markup]:
    """What each loss has in the total and in the gradients."""
    first, last = steps[0], steps[-1]
    rows = [(name, *(page.number(x) for x in (first["losses"].get(name), loss)),
             page.percent(last["share"][name]),
             page.number(last["gradient_norms"][name], ".3g"))
            for name, loss in last["losses"].items()]
    return [
        Markup("<h3>Shares of the total</h3>"),
        page.panels(
            "shares", training_curves.share_panels(steps),
            caption="Share of each weighted loss in the total over the steps, by task and "
                    "modality; for distillation, by the layer and the network it comes from."),
        Markup("<h3>How hard each task pulls</h3>"),
        page.panels(
            "gradients", training_curves.gradient_panels(steps),
            caption="Norm of the gradient of each weighted loss in the activations it is "
                    "computed from, over the steps. A line on the lower edge is of 0, or "
                    "off the scale."),
        page.folded(
            f"All {len(rows)} losses on training clips",
            page.table(("loss", f"step {first['step']:,d}", f"step {last['step']:,d}",
                        "share of the total", "gradient norm"), rows)),
    ]
