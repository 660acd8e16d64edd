"""Label efficiency: accuracy against the number of labelled training clips."""

import dataclasses
from collections.abc import Callable, Sequence

import gin
import numpy as np

from elo_tf.errors import UserError
from elo_tf.evaluation.protocols import LinearProtocol
from elo_tf.evaluation.subsets import growing_order


@gin.register
@dataclasses.dataclass(frozen=True)
class LabelCurve:
    """Growing sets of labelled clips, as the paper's Table 3 and Figure 5 have them.

    A set holds the smaller ones of the same seed, and its classes have their shares of the whole,
    one clip each at least. The paper does not say how it drew its sets (our choice).

    Attributes:
      counts: of clips; None: by `fractions`.
      fractions: of the training clips, lifted to one clip a class (our choice).
      linear: the linear layer on frozen features, trained on all of each set (its own
        `train_fraction` is not used); None leaves it out.
      finetune: a `Finetune`, which trains the whole network on each set; None leaves it out.
    """

    counts: Sequence[int] | None = None
    fractions: Sequence[float] = (0.05, 0.1, 0.2, 0.5, 1.0)
    linear: LinearProtocol | None = LinearProtocol()
    finetune: Callable[..., float] | None = None

    def __post_init__(self):
        if self.linear is not None:
            whole = dataclasses.replace(self.linear, train_fraction=1.0)
            object.__setattr__(self, "linear", whole)

    def sizes(self, labels: np.ndarray) -> list[int]:
        """How many clips each set of a training split has.

        Args:
          labels: integers [N], of the split.

        Raises:
          UserError: a size is larger than the split or smaller than its number of classes.
        """
        total, classes = len(labels), len(np.unique(labels))
        if self.counts is None:
            if not self.fractions or not all(0 < x <= 1 for x in self.fractions):
                raise UserError(f"LabelCurve.fractions is {list(self.fractions)}; give shares in "
                                "(0, 1]")
            return [max(classes, round(x * total)) for x in self.fractions]
        for count in self.counts:
            if not classes <= count <= total:
                raise UserError(
                    f"LabelCurve.counts holds {count}; the training split has {total} clips of "
                    f"{classes} classes, and a set needs one clip of each")
        return list(self.counts)

    def subsets(self, labels: np.ndarray, seed: int) -> list[np.ndarray]:
        """Indices of the clips of each set, in the order of `sizes`."""
        order = growing_order(labels, seed)
        return [np.sort(order[:size]) for size in self.sizes(labels)]
