"""Every record of a set is checked, and what is in the set is told."""

from elo_tf.data.inspection.inspector import (
    Problem,
    RecordSet,
    find_sets,
    inspect,
    read_record,
)

__all__ = ["Problem", "RecordSet", "find_sets", "inspect", "read_record"]
