"""What best_loss.gin says beside the weights."""

import pytest

from elo_tf.search.best_loss import render_best_loss
from elo_tf.search.journal import read_journal


@pytest.mark.parametrize("search, untrained", (
    ("elo_weak", 0.775), ("elo_no_distillation", 0.2042769264470063)))
def test_a_random_encoders_fitness_is_by_the_measure_that_guided(search, untrained, pytestconfig):
    folder = pytestconfig.rootpath / "docs" / "results" / "mini" / "search" / search
    journal = read_journal(folder / "journal.jsonl")
    text = render_best_loss(journal, dead_zone=0.02)
    assert f"# untrained:  {untrained!r}, the fitness of a random encoder\n" in text
    # The search itself has written it.
    assert text == (folder / "best_loss.gin").read_text()
