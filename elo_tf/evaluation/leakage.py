"""Guards against scoring what was trained on: by the ids of the records."""

import pathlib
from collections.abc import Mapping

from elo_tf.data.record_set import Records
from elo_tf.errors import UserError
from elo_tf.evaluation.record_index import RecordIndex, read_index
from elo_tf.training import encoder_files

_NAMED = 3  # ids in a message


def check_pair(train: RecordIndex, test: RecordIndex, names: tuple[str, str]) -> list[str]:
    """Refuses a clip that is in both splits of a pair.

    Args:
      train: the training split.
      test: the test split.
      names: of the two.

    Returns:
      Warnings: of test clips cut from a video that training clips are cut from too.

    Raises:
      UserError: naming some ids that both have.
    """
    common = sorted(set(train.ids) & set(test.ids))
    if common:
        raise UserError(
            f"splits {names[0]!r} and {names[1]!r} have {len(common)} clips in common, such as "
            f"{_some(common)}: the classifier would be tested on what it was trained on. Leave "
            "them out of one; or, where different files have the same name below the folders they "
            "were converted from, convert both with paths from a common folder")
    videos = set(train.videos)
    shared = sorted({x for x in test.videos if x in videos})
    if not shared:
        return []
    return [f"{len(shared)} videos, such as {_some(shared)}, have clips both in split "
            f"{names[0]!r} and in {names[1]!r}: the accuracy may be too high"]


def pretraining_warnings(encoder_dir: pathlib.Path,
                         tests: Mapping[str, RecordIndex]) -> list[str]:
    """Says which test clips the pre-training may have seen, without their labels or with them.

    Args:
      encoder_dir: the folder `encoder` of a pre-training, which names its records.
      tests: the test splits by name.

    Returns:
      A sentence for each set of records with test clips in it, or that could not be looked at.
    """
    sources = encoder_files.load_data(encoder_dir)
    if sources is None:
        return [f"{encoder_dir / encoder_files.DATA} is missing: whether the pre-training saw the "
                "test clips is not known"]
    said = []
    for directory, split in sources:
        try:
            seen = set(read_index(Records(directory), split, f"ids of {split}").ids)
        except UserError as error:
            said.append(f"whether the pre-training saw the test clips is not known: {error}")
            continue
        for name, test in tests.items():
            common = sorted(seen.intersection(test.ids))
            if common:
                said.append(
                    f"the pre-training drew its clips from split {split!r} of {directory}, which "
                    f"has {len(common)} of the {len(test.ids)} clips of the test split {name!r}, "
                    f"such as {_some(common)}")
    return said


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED])
