"""Lists of known data sets become CSV files for the conversion."""

from elo_tf.data.splits.importing import DATASETS, UNLABELLED, Import, Imported, import_splits

__all__ = ["DATASETS", "UNLABELLED", "Import", "Imported", "import_splits"]
