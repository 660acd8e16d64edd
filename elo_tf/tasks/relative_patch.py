"""Relative patch position: where, around a patch, does another lie (Doersch et al., ICCV 2015)."""

import gin

from elo_tf.tasks.jigsaw import Placement
from elo_tf.views.patch_sampling import NeighbourPatches


@gin.register
class RelativePatch(Placement):
    """`rgb/relative_patch`: which of eight neighbours the second patch is; gradient to RGB."""

    family = "relative_patch"
    pieces = "neighbours"
    answer = "direction"

    def __init__(self, modality: str, *, sampler: NeighbourPatches | None = None,
                 hidden: int = 512):
        """Makes the task.

        Args:
          modality: of the clip.
          sampler: of the patches.
          hidden: width of the layer before the softmax (our choice; the paper's 4096 is from
            memory, unproven).
        """
        super().__init__(modality, sampler or NeighbourPatches(), items=2, classes=8,
                         hidden=hidden)
