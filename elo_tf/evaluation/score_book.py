"""Scores by what they are of, kept in one file, so that a run goes on where it stopped."""

import json
import pathlib
from collections.abc import Callable

from elo_tf import files
from elo_tf.errors import UserError
from elo_tf.evaluation.protocols import Scores


class ScoreBook:
    """A file of scores; every new one is written before the next is begun."""

    def __init__(self, path: pathlib.Path):
        """Reads what is there.

        Raises:
          UserError: if the file is damaged.
        """
        self._path = path
        self._entries: dict[tuple, Scores] = {}
        self.notes: list[str] = []
        if path.is_file():
            try:
                for entry in json.loads(path.read_text(encoding="utf-8")):
                    self._entries[tuple(entry["of"])] = Scores(entry["values"], entry["note"])
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(f"{path} is damaged ({error}): delete it, and what it holds is "
                                "scored again") from error

    def score(self, of: tuple[str | int, ...], compute: Callable[[], Scores]) -> Scores:
        """The scores of something: those of the file, or else computed and added to it.

        Args:
          of: names of network, splits, protocol with its settings, features and seed.
          compute: called where they are new.
        """
        if of not in self._entries:
            self._entries[of] = compute()
            content = [{"of": key, "values": scores.values, "note": scores.note}
                       for key, scores in self._entries.items()]
            files.write_atomic(self._path, json.dumps(content, indent=0) + "\n")
        scores = self._entries[of]
        if scores.note and scores.note not in self.notes:
            self.notes.append(scores.note)
        return scores
