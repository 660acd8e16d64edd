"""`summary.json`: what the conversions into a folder did, by split and in total, for people."""

import collections
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from elo_tf import files
from elo_tf.data.conversion import state as conversion_state
from elo_tf.data.conversion.shards import COUNTS, STAGES, TALLIES

SUMMARY_FILE = "summary.json"

_SHARES = {"with_audio": "clips", "silent": "clips", "with_flow": "clips", "labelled": "clips",
           "damaged": "converted", "cut": "converted"}
"""What each share is of: of the clips or of the videos that were converted."""


def write_summary(directory: pathlib.Path) -> None:
    """Writes the summary from the files of the splits; leaves it alone where nothing changed."""
    states = conversion_state.read_states(directory)
    splits = {
        name: _figures([state]) | {"options": state["settings"], "commits": state["commits"],
                                   "complete": state["complete"]}
        for name, state in states.items()}
    text = json.dumps({"total": _figures(states.values()), "splits": splits}, indent=2) + "\n"
    path = directory / SUMMARY_FILE
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        files.write_atomic(path, text)


def _figures(states: Iterable[dict[str, Any]]) -> dict[str, Any]:
    states = list(states)
    sums = {key: sum(state[key] for state in states) for key in COUNTS}
    tallies: dict[str, collections.Counter] = {key: collections.Counter() for key in TALLIES}
    for state in states:
        for key, tally in tallies.items():
            tally.update(state[key])
    ordered = {key: dict(tally.most_common()) for key, tally in tallies.items()}
    wall = sum(state["wall_seconds"] for state in states)
    return {
        "videos": sums["videos"],
        "converted": sums["converted"],
        "clips": sums["clips"],
        "rejected": sums["rejected"],
        "rejected_by_reason": ordered["reasons"],
        "used_in_part_by_reason": ordered["incomplete"],
        "hours": round(sums["seconds"] / 3600, 4),
        "bytes": sums["bytes"],
        "source_fps": ordered["source_fps"],
        "stored_sizes": ordered["sizes"],
        "shares": {key: round(sums[key] / max(sums[whole], 1), 4)
                   for key, whole in _SHARES.items()},
        "stage_seconds": {stage: round(tallies["stage_seconds"][stage], 1) for stage in STAGES},
        "wall_seconds": round(wall, 1),
        "times_real_time": round(sums["seconds"] / wall, 1) if wall else 0.0,
    }
