"""The features of each network and split, extracted once: for all protocols and for later runs."""

import dataclasses
import hashlib
import json
import pathlib
import zipfile

import numpy as np
from absl import logging

from elo_tf import files
from elo_tf.data import schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.pipeline import reading, testing_clips
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError
from elo_tf.evaluation import heads
from elo_tf.evaluation.record_index import RecordIndex, read_index
from elo_tf.features import FeatureExtractor, Features
from elo_tf.training import encoder_files

FORMAT = 1  # of what is stored; another one is extracted again


@dataclasses.dataclass(frozen=True)
class StoredFeatures:
    """Features of a split by a network.

    Attributes:
      features: one row a video.
      parameters: how many numbers the network has.
      key: SHA-256, in hexadecimal, of all that they depend on.
    """

    features: Features
    parameters: int
    key: str


class FeatureStore:
    """Extracts features, or reads them from where an earlier run put them.

    A file is named by a hash of what its features depend on: the encoder's file, the ids, labels
    and shards of the split, the clip, windows, crops, and whether clips stand still.
    """

    def __init__(self, folder: pathlib.Path, encoder_dir: pathlib.Path,
                 records: Records | MixedRecords, *, batch_size: int, windows: int, crops: int,
                 static: bool):
        """Extracts nothing yet.

        Args:
          folder: where the features are kept.
          encoder_dir: the folder `encoder` of a pre-training.
          records: the record set.
          batch_size: videos in a batch.
          windows: clips of each video, whose features are averaged.
          crops: of each window; averaged too.
          static: repeat the middle frame of each window.

        Raises:
          UserError: if the encoder's clip cannot be read.
        """
        self.clip = encoder_files.load_clip(encoder_dir)
        self._folder, self._encoder_dir, self._records = folder, encoder_dir, records
        self._batch_size, self._windows, self._crops = batch_size, windows, crops
        self._static = static
        self._indices: dict[str, RecordIndex] = {}
        self._extractor: tuple[str, FeatureExtractor, int] | None = None

    def index(self, split: str) -> RecordIndex:
        """Ids and labels of a split; read once."""
        if split not in self._indices:
            self._indices[split] = read_index(self._records, split)
        return self._indices[split]

    def __call__(self, network: str, file: str, split: str) -> StoredFeatures:
        """The features of a split.

        Args:
          network: its name, for the progress bar.
          file: of the encoder.
          split: of the records.

        Raises:
          UserError: the encoder cannot be loaded, or the split cannot be used.
        """
        key = self._key(file, split)
        path = self._folder / f"{network}-{split}-{key[:16]}.npz"
        stored = _read(path, key)
        if stored is not None:
            return stored
        if self._extractor is None or self._extractor[0] != file:
            encoder = encoder_files.load_encoder(self._encoder_dir, file)
            self._extractor = (file, FeatureExtractor(encoder, self.clip, static=self._static),
                               encoder.count_params())
        _, extractor, parameters = self._extractor
        features = labelled_features(
            extractor, self._records, split, self.clip, self._batch_size, self._windows,
            self._crops, f"{network} network, {split}")
        with files.atomic_path(path) as temporary:
            np.savez(temporary, embedding=features.embedding, labels=features.labels,
                     ids=np.array(features.ids, dtype=np.str_), parameters=parameters, key=key)
        return StoredFeatures(features, parameters, key)

    def digest(self, file: str) -> str:
        """SHA-256, in hexadecimal, of an encoder's file.

        Raises:
          UserError: there is none.
        """
        path = self._encoder_dir / file
        if not path.is_file():
            raise UserError(f"no encoder {path}; --encoder is the folder `encoder` of a finished "
                            "run of bin/pretrain (and evaluate.networks says which of its "
                            "networks are evaluated)")
        return heads.digest(path)

    def _key(self, file: str, split: str) -> str:
        content = {
            "format": FORMAT, "encoder": self.digest(file), "data": self.index(split).fingerprint,
            "clip": dataclasses.asdict(self.clip), "windows": self._windows,
            "crops": self._crops, "static": self._static}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read(path: pathlib.Path, key: str) -> StoredFeatures | None:
    """What a file holds; None where there is none, or it is damaged or of something else."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) == key:
                return StoredFeatures(
                    Features(stored["embedding"], stored["ids"].tolist(), stored["labels"]),
                    int(stored["parameters"]), key)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        logging.warning("%s cannot be read (%s): the features are extracted again", path, error)
    return None


def labelled_features(extractor: FeatureExtractor, records: Records | MixedRecords, split: str,
                      clip: ClipSpec, batch_size: int, windows: int, crops: int,
                      desc: str) -> Features:
    """Features of a split, all of whose records have labels.

    Args:
      extractor: of the network.
      records: the record set.
      split: of it.
      clip: the clip's size.
      batch_size: videos in a batch.
      windows: clips of each video.
      crops: of each window.
      desc: title of the progress bar.

    Raises:
      UserError: no record can be read, or labels are missing or mean different things.
    """
    views = windows * crops
    clips = testing_clips(records, split, clip, batch_size=batch_size * views, windows=windows,
                          crops=crops, modalities=("rgb",))
    with reading(records, split):
        features = extractor(clips, views=views, desc=desc)
    if not features.ids:
        raise UserError(f"no record of split {split!r} in {records.directory} can be read; "
                        "convert more videos")
    if len(records.weighted()) > 1 and not records.labels():
        raise UserError(f"the sources of {records.directory} have no label map in common, so that "
                        f"labels cannot be compared; give each the same {schema.LABELS_FILE}, or "
                        "evaluate them one by one")
    unlabelled = int((features.labels < 0).sum())
    if unlabelled:
        raise UserError(f"{unlabelled} of {len(features.ids)} records of split {split!r} in "
                        f"{records.directory} have no label; convert it with --labels=folders or "
                        "from a CSV with labels")
    return features
