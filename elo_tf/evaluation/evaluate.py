"""Frozen features of labelled splits, scored by every protocol, beside the untrained network."""

import json
import pathlib

import gin
import numpy as np

from elo_tf import files
from elo_tf.data import schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.pipeline import reading, testing_clips
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError
from elo_tf.evaluation.protocols import run_protocols
from elo_tf.features import FeatureExtractor, Features
from elo_tf.training import encoder_files

RESULT = "evaluation.json"
NETWORKS = {"trained": encoder_files.TRAINED, "untrained": encoder_files.UNTRAINED}


@gin.configurable(denylist=["run_dir", "encoder_dir"])
def evaluate(run_dir: str, encoder_dir: str, *, records: Records | MixedRecords = gin.REQUIRED,
             train_split: str = "train", test_split: str = "test", batch_size: int = 32,
             windows: int = 2, crops: int = 1,
             seeds: tuple[int, ...] = (0, 1, 2, 3, 4)) -> dict:
    """Evaluates an encoder by k-means and by one linear layer on its frozen features.

    Args:
      run_dir: gets evaluation.json.
      encoder_dir: the folder `encoder` of a pre-training.
      records: with labelled splits.
      train_split: its labels train the linear layer.
      test_split: what is scored.
      batch_size: of feature extraction.
      windows: clips of each video, spread evenly, whose features are averaged (our choice; the
        paper does not say how it samples clips at test time).
      crops: of each window, along the longer side of the frame; their features are averaged too
        (our choice: the central one).
      seeds: of the protocols.

    Returns:
      What evaluation.json holds.

    Raises:
      UserError: if a split has no labels, or the encoder or a split is missing.
    """
    for name, value in (("windows", windows), ("crops", crops)):
        if value < 1:
            raise UserError(f"evaluate.{name} is {value}; it must be 1 or more")
    encoder_dir = pathlib.Path(encoder_dir)
    clip = encoder_files.load_clip(encoder_dir)
    rows = []
    for network, file in NETWORKS.items():
        encoder = encoder_files.load_encoder(encoder_dir, file)
        extractor = FeatureExtractor(encoder, clip)
        train, test = (
            labelled_features(extractor, records, split, clip, batch_size, windows, crops,
                              f"{network} network, {split}")
            for split in (train_split, test_split))
        rows += run_protocols(train.embedding, train.labels, test.embedding, test.labels,
                              network=network, seeds=seeds)
    classes = np.unique(np.concatenate([train.labels, test.labels]))
    names = records.labels()
    result = {
        "split": test_split, "train_clips": len(train.ids), "test_clips": len(test.ids),
        "classes": [names[i] if i < len(names) else str(i) for i in classes.tolist()],
        # What always answering the most frequent class gets.
        "chance": float(np.bincount(test.labels).max() / len(test.labels)),
        "windows": windows, "crops": crops, "seeds": list(seeds), "rows": rows}
    files.write_atomic(pathlib.Path(run_dir) / RESULT, json.dumps(result, indent=1) + "\n")
    return result


def labelled_features(extractor: FeatureExtractor, records: Records | MixedRecords, split: str,
                      clip: ClipSpec, batch_size: int, windows: int, crops: int,
                      desc: str) -> Features:
    """Features of a split, all of whose records have labels."""
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
