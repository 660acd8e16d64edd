"""The features of a search's networks on disk, to study a fitness on without training again.

A file `<digest of the weights>-<repeat>-<step>.npz` for each; NumPy reads it, without pickle.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from elo_tf import files
from elo_tf.errors import UserError
from elo_tf.features import Features

UNTRAINED = "untrained"


@dataclasses.dataclass(frozen=True)
class Kept:
    """The features of one network.

    Attributes:
      weights: that it was trained with, by name; None: it was not.
      repeat: number of the repeat.
      step: after which it was looked at.
      heldout: of the unlabelled clips that fitness is measured on.
      labelled: of the labelled clips, where there are any.
    """

    weights: Mapping[str, float] | None
    repeat: int
    step: int
    heldout: Features
    labelled: Features | None

    @property
    def name(self) -> str:
        """Of its file."""
        digest = UNTRAINED
        if self.weights is not None:
            digest = hashlib.sha256(_as_json(self.weights).encode()).hexdigest()[:16]
        return f"{digest}-{self.repeat}-{self.step}.npz"


def write(folder: str | os.PathLike, kept: Kept) -> None:
    """Writes the file, whole or not at all."""
    arrays = {"weights": np.array("" if kept.weights is None else _as_json(kept.weights)),
              "repeat": np.array(kept.repeat), "step": np.array(kept.step)}
    for part in ("heldout", "labelled"):
        features = getattr(kept, part)
        if features is not None:
            arrays |= {f"{part}_embedding": features.embedding,
                       f"{part}_ids": np.array(features.ids),
                       f"{part}_labels": features.labels}
    with files.atomic_path(pathlib.Path(folder) / kept.name) as temporary:
        np.savez(temporary, **arrays)


def read(path: str | os.PathLike) -> Kept:
    """Reads a file.

    Raises:
      UserError: it is none of `write`.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            weights = str(arrays["weights"])
            parts = {
                part: Features(arrays[f"{part}_embedding"], arrays[f"{part}_ids"].tolist(),
                               arrays[f"{part}_labels"])
                for part in ("heldout", "labelled") if f"{part}_ids" in arrays}
            return Kept(json.loads(weights) if weights else None, int(arrays["repeat"]),
                        int(arrays["step"]), parts["heldout"], parts.get("labelled"))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} does not hold the features of a search's network ({error}); "
                        "remove it, or name the folder of Proxy.keep_features") from error


def _as_json(weights: Mapping[str, float]) -> str:
    return json.dumps(dict(weights), sort_keys=True)
