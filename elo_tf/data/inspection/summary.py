"""An inspected record set in figures: the columns of the table, and the JSON report."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from elo_tf.data.inspection import picture_checks, record_checks
from elo_tf.data.inspection.inspector import RecordSet
from elo_tf.data.inspection.record_values import ERROR, WARNING

FLOW_PERCENTS = (50, 95, 99, 100)
LOUDNESS_PERCENTS = (5, 50, 95)


def summarise(found: RecordSet) -> dict[str, Any]:
    """The figures of a set.

    Args:
      found: inspected.

    Returns:
      Counts and distributions by name: `shards`, `clips`, `hours`, `megabytes`, `frames` (least,
      median, most), `sizes`, `fps` and `sample_rates` (counts by value), `sound`, `flow`, `labels`
      (shares of the clips), `silent` (share of the sounds), `classes`, `image_bytes` (mean of a
      frame), `flow_pixels` and `flow_clipped` and `flow_still` (percentiles 50, 95, 99, 100 of the
      length; shares), `loudness` (percentiles 5, 50, 95 of the RMS of those that are not zero, dB),
      `errors`, `warnings`.
    """
    facts = [facts for report in found.reports for facts in report.facts]
    frames = np.array([x.frames for x in facts], np.int64)
    codes: dict[float, np.ndarray] = {}
    for report in found.reports:
        for clip, counts in report.flow_codes.items():
            codes[clip] = codes.get(clip, 0) + counts
    clipped, still = (picture_checks.flow_shares(np.sum(list(codes.values()), 0)) if codes
                      else (0.0, 0.0))
    levels = np.array([record_checks.decibels(x.rms) for x in facts if x.has_audio])
    loud = levels[np.isfinite(levels)]
    problems = collections.Counter(problem.level for problem in found.all_problems())
    clips = max(len(facts), 1)
    return {
        "shards": len(found.reports),
        "clips": len(facts),
        "hours": sum(x.seconds for x in facts) / 3600,
        "megabytes": sum(report.size for report in found.reports) / 1e6,
        "frames": [int(frames.min()), float(np.median(frames)), int(frames.max())]
        if facts else [],
        "sizes": _counts(f"{x.width} x {x.height}" for x in facts if x.width),
        "fps": _counts(f"{x.fps:g}" for x in facts if x.fps),
        "sample_rates": _counts(f"{x.sample_rate:g}" for x in facts if x.sample_rate),
        "sound": sum(x.has_audio for x in facts) / clips,
        "silent": float((levels < record_checks.SILENT_DB).mean()) if levels.size else 0.0,
        "flow": sum(x.has_flow for x in facts) / clips,
        "labels": sum(bool(x.labels) for x in facts) / clips,
        "classes": len({label for x in facts for label in x.labels}),
        "image_bytes": sum(x.image_bytes for x in facts) / max(int(frames.sum()), 1),
        "flow_pixels": picture_checks.flow_percentiles(codes, FLOW_PERCENTS),
        "flow_clipped": clipped,
        "flow_still": still,
        "loudness": np.percentile(loud, LOUDNESS_PERCENTS).tolist() if loud.size else [],
        "errors": problems[ERROR],
        "warnings": problems[WARNING],
    }


def _counts(values) -> dict[str, int]:
    return dict(collections.Counter(values).most_common())


def table(sets: Sequence[RecordSet]) -> str:
    """The figures as text: a line for each, a column for each split."""
    columns = [_cells(summarise(found)) for found in sets]
    heads = _headings(sets)
    names = list(columns[0])
    wide = max(map(len, names))
    widths = [max(len(head), *map(len, column.values()))
              for head, column in zip(heads, columns, strict=True)]
    lines = [" " * wide + "".join(f"  {head:>{width}}"
                                  for head, width in zip(heads, widths, strict=True))]
    for name in names:
        lines.append(f"{name:<{wide}}" + "".join(
            f"  {column[name]:>{width}}" for column, width in zip(columns, widths, strict=True)))
    return "\n".join(line.rstrip() for line in lines)


def _headings(sets: Sequence[RecordSet]) -> list[str]:
    """The splits' names, with their folders where there are several."""
    if len({found.directory for found in sets}) == 1:
        return [found.split for found in sets]
    return [f"{found.directory.name}/{found.split}" for found in sets]


def _cells(summary: dict[str, Any]) -> dict[str, str]:
    def several(counts: dict[str, int], shown: int = 2) -> str:
        values = list(counts)
        more = f" and {len(values) - shown} more" if len(values) > shown else ""
        return ", ".join(values[:shown]) + more or "-"

    def joined(values: Sequence[float], form: str) -> str:
        return " / ".join(format(value, form) for value in values) or "-"

    has_flow = bool(summary["flow_pixels"])
    return {
        "shards": f"{summary['shards']}",
        "clips": f"{summary['clips']}",
        "hours": f"{summary['hours']:.3g}",
        "MB": f"{summary['megabytes']:.1f}",
        "frames, least / median / most": joined(summary["frames"], "g"),
        "size, width x height": several(summary["sizes"]),
        "frames a second": several(summary["fps"]),
        "bytes a frame": f"{summary['image_bytes']:.0f}",
        "with sound": f"{summary['sound']:.1%}",
        "samples a second": several(summary["sample_rates"]),
        "loudness, dB, 5 / 50 / 95%": joined(summary["loudness"], ".1f"),
        "silent sounds": f"{summary['silent']:.1%}" if summary["sound"] else "-",
        "with optical flow": f"{summary['flow']:.1%}",
        "flow, px, 50 / 95 / 99 / 100%": joined(summary["flow_pixels"], ".2f"),
        "flow clipped, still": f"{summary['flow_clipped']:.1%}, {summary['flow_still']:.1%}"
        if has_flow else "-",
        "with label": f"{summary['labels']:.1%}",
        "classes": f"{summary['classes']}",
        "errors": f"{summary['errors']}",
        "warnings": f"{summary['warnings']}",
    }


def report(sets: Sequence[RecordSet]) -> dict[str, Any]:
    """All there is to say, for a JSON file: `splits` by name, and `problems`."""
    return {
        "splits": {head: summarise(found) | {"directory": str(found.directory)}
                   for head, found in zip(_headings(sets), sets, strict=True)},
        "problems": [dataclasses.asdict(problem) | {"where": problem.where}
                     for found in sets for problem in found.all_problems()],
    }
