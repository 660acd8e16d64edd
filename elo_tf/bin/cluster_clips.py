"""The clips that a search's report shows: of the records and at the frame rate of its proxies."""

from collections.abc import Mapping, Sequence

import gin
import numpy as np

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.record_set import MixedRecords, Records


@gin.configurable(denylist=["ids"])
def cluster_clips(ids: Sequence[str], *, records: Records | MixedRecords = gin.REQUIRED,
                  clip: ClipSpec = gin.REQUIRED,
                  split: str = "unlabelled") -> Mapping[str, np.ndarray]:
    """Frames uint8 [T, S, S, 3] of clips, by id; those that are not there are left out.

    Args:
      ids: of the clips.
      records: the record set.
      clip: the clip's size.
      split: of the records.
    """
    # Drawing is imported by those binaries alone that draw.
    from elo_tf.reporting.record_samples import read_frames

    return read_frames(records, split, clip, ids)
