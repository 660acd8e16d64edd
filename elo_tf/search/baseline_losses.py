"""Losses that nobody searched for: the rows that an evolved loss is compared with.

They take the place of best_loss.gin: `pretrain.loss_weights = @random_weights()`.
"""

import gin
import numpy as np

from elo_tf.search.space import SearchSpace


@gin.register
def random_weights(space: SearchSpace = gin.REQUIRED, seed: int = 1) -> dict[str, float]:
    """Weights drawn from the search space, each uniformly: the paper's "Random Loss".

    Args:
      space: the space; what it fixes stays as it is.
      seed: of the draw. One draw is one loss; repeat the row with several.

    Returns:
      The weight of every loss, by name.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    return space.weights(generator.uniform(size=len(space.searched)))


@gin.register
def equal_weights(space: SearchSpace = gin.REQUIRED, weight: float = 1.0) -> dict[str, float]:
    """One weight for all: multi-task learning without a search (Doersch and Zisserman, ICCV 2017).

    Args:
      space: the space; what it fixes stays as it is.
      weight: of the others, in [0, 1].

    Returns:
      The weight of every loss, by name.
    """
    return {name: space.fixed.get(name, float(weight)) for name in space.names}
