"""The search space: which weights a search moves, which are fixed, and on what scale."""

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import gin
import numpy as np

from elo_tf.errors import UserError
from elo_tf.losses import LossSpace

ALL = "*"


@gin.register
class SearchSpace:
    """Vectors in [0, 1]^n <-> the weights of all losses.

    Patterns are those of file names: 'rgb/*', '*/align'. '*' alone stands for whatever no other
    pattern names, so that all losses of sound are searched, and no others trained, by

        SearchSpace.searched = ('audio/*',)
        SearchSpace.fixed = {'*': 0.0}

    Attributes:
      losses: the loss space.
      names: of all losses, in its order.
      searched: the names that a vector holds, in the same order.
      fixed: the weight of each of the others, by name.
      scale: "linear" or "log".
      smallest: the weight that 0 stands for on the log scale.
    """

    def __init__(self, losses: LossSpace = gin.REQUIRED, searched: Sequence[str] = (ALL,),
                 fixed: Mapping[str, float] = MappingProxyType({}),
                 scale: Literal["linear", "log"] = "linear", smallest: float = 1e-2):
        """Makes the space.

        Args:
          losses: the loss space.
          searched: patterns of the losses that a search moves (the paper: all).
          fixed: weights in [0, 1] of the others, by pattern.
          scale: "linear" (the paper's "continuous weights in [0, 1]"), or "log": a vector's u
            stands for the weight smallest^(1 - u).
          smallest: of the log scale. Below LossSpace.dead_zone, so that a search can leave a loss
            out: 0.01 leaves out the lowest 15% of u.

        Raises:
          UserError: a pattern matches no loss, a loss is searched and fixed, or neither, or a
            value is impossible.
        """
        self.losses = losses
        self.names = tuple(losses.names)
        if scale not in ("linear", "log"):
            raise UserError(f"SearchSpace.scale is {scale!r}; it must be 'linear' or 'log'")
        if not 0 < smallest < 1:
            raise UserError(f"SearchSpace.smallest is {smallest}; it must lie between 0 and 1")
        self.scale = scale
        self.smallest = smallest
        for pattern, weight in fixed.items():
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or (
                    not 0 <= weight <= 1):
                raise UserError(f"SearchSpace.fixed gives {pattern!r} the weight {weight!r}; "
                                "weights lie in [0, 1]")
        chosen = set(self._matches(searched, "SearchSpace.searched"))
        held = {name: float(fixed[pattern])
                for name, pattern in self._matches(fixed, "SearchSpace.fixed").items()}
        for name in self.names:
            if name in chosen and name in held:
                raise UserError(f"{name} is named in SearchSpace.searched and in SearchSpace.fixed;"
                                " take it out of one of them")
        others = [name for name in self.names if name not in chosen and name not in held]
        if ALL in searched and ALL in fixed:
            raise UserError("'*' is in SearchSpace.searched and in SearchSpace.fixed; take it out "
                            "of one of them")
        if ALL in searched:
            chosen.update(others)
        elif ALL in fixed:
            held |= {name: float(fixed[ALL]) for name in others}
        elif others:
            shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
            raise UserError(
                f"{len(others)} of {len(self.names)} losses are neither searched nor fixed: {shown}"
                ". SearchSpace.fixed = {'*': 0.0} leaves them out; other weights of it stay")
        if not chosen:
            raise UserError("SearchSpace.searched leaves no loss to search; the losses are: "
                            + ", ".join(self.names))
        self.searched = tuple(name for name in self.names if name in chosen)
        self.fixed = {name: held[name] for name in self.names if name in held}

    def weights(self, vector: Sequence[float] | np.ndarray) -> dict[str, float]:
        """What a strategy's vector stands for.

        Args:
          vector: [len(searched)] in [0, 1].

        Returns:
          The weight of every loss, in the order of `names`.

        Raises:
          ValueError: the vector is of another length, or leaves [0, 1].
        """
        values = [float(x) for x in vector]
        if len(values) != len(self.searched) or not all(0 <= x <= 1 for x in values):
            raise ValueError(f"a vector of this space has {len(self.searched)} numbers in [0, 1], "
                             f"not {values}")
        if self.scale == "log":
            values = [self.smallest ** (1 - x) for x in values]
        found = dict(zip(self.searched, values, strict=True)) | self.fixed
        return {name: found[name] for name in self.names}

    def _matches(self, patterns: Sequence[str] | Mapping[str, float],
                 parameter: str) -> dict[str, str]:
        """{name: the pattern that names it}, without '*'."""
        found: dict[str, str] = {}
        for pattern in patterns:
            if pattern == ALL:
                continue
            names = [name for name in self.names if fnmatch.fnmatchcase(name, pattern)]
            if not names:
                raise UserError(f"{parameter}: {pattern!r} matches no loss{self._near(pattern)}")
            for name in names:
                other = found.setdefault(name, pattern)
                if isinstance(patterns, Mapping) and patterns[other] != patterns[pattern]:
                    raise UserError(f"{parameter} gives {name} two weights, by {other!r} and by "
                                    f"{pattern!r}")
        return found

    def _near(self, pattern: str) -> str:
        """The losses, or patterns of them, that the user may have meant."""
        parts = [name.split("/") for name in self.names]
        known = [*self.names, *dict.fromkeys(
            x for first, *rest in parts for x in (f"{first}/*", f"*/{rest[-1] if rest else first}"))
        ]
        close = difflib.get_close_matches(pattern, known, n=3, cutoff=0.6)
        if close:
            return f"; did you mean {' or '.join(map(repr, close))}?"
        return f"; the losses are: {', '.join(self.names)}"
