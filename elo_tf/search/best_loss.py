"""best_loss.gin, the product of a search: all that the final training needs of it."""

import os

from elo_tf import files
from elo_tf.search.candidate import Candidate, Control
from elo_tf.search.journal import Journal

BINDING = "pretrain.loss_weights"


def render_best_loss(journal: Journal, *, dead_zone: float) -> str:
    """The text of best_loss.gin.

    It holds nothing of when, where or how often the search ran: an interrupted search gives the
    same bytes as an undisturbed one.

    Args:
      journal: of a search that has ended; config and commit are named where its header has them.
      dead_zone: weights below it count as 0 and are written so; the others as they are, to the
        last digit.

    Returns:
      Comments and one gin binding, of the weights by name.
    """
    header, best = journal.header, journal.best
    if best is None or journal.end is None:
        raise ValueError("the search has not ended")
    end = journal.end["best"]
    weights = {n: w if w >= dead_zone else 0.0 for n, w in best.weights.items()}
    left_out = sum(w == 0.0 for w in weights.values())
    again = (f", the mean of {end['repeats']} other seeds; {best.fitness!r} with the search's own"
             if end.get("repeats") else "")
    lines = [
        "# The best loss of a search. Train the final network with it:",
        "#   python -m elo_tf.bin.pretrain --gin_file=best_loss.gin ...",
        "#",
        f"# fitness:    {end['fitness']!r} (lower is better){again}",
        *([f"# untrained:  {_control(journal.controls[0], best)!r}, "
           "the fitness of a random encoder"]
          if 0 in journal.controls and journal.controls[0].ok else []),
        f"# candidate:  {best.index} of generation {best.generation}, both from 0",
        f"# search:     {header['strategy']}, seed {header['seed']}, {header['generations']} "
        f"generations of {header['population']}",
        f"# config:     {header.get('config', 'unknown')}",
        f"# commit:     {header.get('commit', 'unknown')}",
        f"# weights:    {len(weights)}, of which {left_out} below the dead zone of {dead_zone:g} "
        "are 0.0",
        "",
        f"{BINDING} = {{",
        *(f"    {name!r}: {weight!r}," for name, weight in weights.items()),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _control(control: Control, best: Candidate) -> float | None:
    """The untrained network's fitness, by the measure that has guided the search."""
    weak = best.weak is not None and best.fitness == 1.0 - best.weak
    return 1.0 - control.weak if weak and control.weak is not None else control.zipf


def write_best_loss(path: str | os.PathLike, journal: Journal, *, dead_zone: float) -> None:
    """Writes best_loss.gin, whole or not at all: see `render_best_loss`."""
    files.write_atomic(path, render_best_loss(journal, dead_zone=dead_zone))
