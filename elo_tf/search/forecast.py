"""What a search will cost, said before it begins, beside what the paper's cost."""

from collections.abc import Mapping
from typing import Any

from elo_tf.search.candidate import Control

# The paper: "the fitness of each model can be found in 4 hours using 8 GPUs", of no named kind.
PAPER_HOURS, PAPER_GPUS = 4, 8


def forecast(control: Control, *, candidates: int, repeats: int, workers: int,
             cores: int) -> dict[str, Any]:
    """What a configured search will cost.

    Args:
      control: of the untrained network, with the seconds of a step and of the features.
      candidates: that the strategy will propose.
      repeats: evaluations of the leaders beside these.
      workers: evaluating at the same time.
      cores: that each of them has.

    Returns:
      candidates, repeats, workers; steps, batch_size and clips of a candidate; devices, gpus and
      cores that a candidate occupies; seconds_per_candidate; unit ("GPU-hours" or "core-hours")
      and unit_hours_per_candidate; hours of the whole search.
    """
    facts, seconds = control.facts, control.seconds
    each = facts["steps"] * seconds["step"] + sum(
        seconds.get(part, 0.0) for part in ("features", "cluster", "weak"))
    gpus = facts["gpus"]
    # More workers than evaluations are of no use.
    rounds = -(-(candidates + repeats) // workers)
    return {
        "candidates": candidates, "repeats": repeats, "workers": workers,
        "steps": facts["steps"], "batch_size": facts["batch_size"],
        "clips": facts["steps"] * facts["batch_size"],
        "devices": f"{gpus} GPU(s)" if gpus else f"{cores} CPU core(s)",
        "gpus": gpus, "cores": cores, "seconds_per_candidate": each,
        "unit": "GPU-hours" if gpus else "core-hours",
        "unit_hours_per_candidate": each * (gpus or cores) / 3600, "hours": rounds * each / 3600}


def sentence(cost: Mapping[str, Any]) -> str:
    """The forecast for a terminal."""
    return (
        f"forecast: {cost['candidates']} candidates and {cost['repeats']} repeats, each "
        f"{cost['steps']} steps of {cost['batch_size']} clips, about "
        f"{duration(cost['seconds_per_candidate'])} or {cost['unit_hours_per_candidate']:.3g} "
        f"{cost['unit']} on {cost['devices']}; {duration(3600 * cost['hours'])} in all with "
        f"{cost['workers']} worker(s). The paper: {PAPER_HOURS} h on {PAPER_GPUS} GPUs = "
        f"{PAPER_HOURS * PAPER_GPUS} GPU-hours a candidate")


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"
