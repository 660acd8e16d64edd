"""An exported encoder on disk: its version, its clip, its fingerprint, and its network."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Callable

import numpy as np

from elo_tf.errors import UserError

_GRAPH = "saved_model.pb"


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A version of an exported encoder.

    Attributes:
      folder: of the version.
      frames: of a clip.
      fps: frames a second of a clip.
      size: side of what the network sees, in pixels.
      crop: share of the shorter side that is cut out of the middle of a picture.
      embedding_size: D.
    """

    folder: pathlib.Path
    frames: int
    fps: float
    size: int
    crop: float
    embedding_size: int

    @property
    def side(self) -> int:
        """Shorter side of pictures in pixels, such that what the model cuts out is `size` large."""
        return round(self.size / self.crop)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the graph and the variables, in hexadecimal."""
        digest = hashlib.sha256()
        for path in [self.folder / _GRAPH, *sorted((self.folder / "variables").iterdir())]:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def load(self) -> Callable[[np.ndarray], np.ndarray]:
        """A function of clips uint8 [B, T, H, W, 3] that gives their embeddings, float32 [B, D].

        Raises:
          UserError: it cannot be loaded; or from the function, a batch takes too much memory.
        """
        import tensorflow as tf  # Here: the processes that decode need none of it.

        try:
            model = tf.saved_model.load(os.fspath(self.folder))
            model.signatures["embed"]  # noqa: B018  (a KeyError where there is none)
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"{self.folder} cannot be loaded as an exported encoder ({reason[0]}); "
                            "export it again (bin/export)") from error

        def embed(clips: np.ndarray) -> np.ndarray:
            try:
                frames = tf.constant(clips)
                return model.signatures["embed"](frames=frames)["embedding"].numpy()
            except tf.errors.ResourceExhaustedError as error:
                raise UserError(f"{len(clips)} clips at a time take more memory than there is; "
                                "give a smaller --batch_size") from error

        return embed


def open_model(path: str | os.PathLike) -> SavedModel:
    """Finds an exported encoder and reads what it says of itself; loads nothing.

    Args:
      path: a version's folder, or the one that holds the versions, of which the newest is taken.

    Raises:
      UserError: there is none, or it does not say what its clips are.
    """
    folder = _version(pathlib.Path(path))
    record = folder / "assets.extra" / "provenance.json"
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        clip = content["clip"]
        model = SavedModel(folder, int(clip["frames"]), float(clip["fps"]), int(clip["size"]),
                           float(clip["crop"]), int(content["embedding_size"]))
        if min(model.frames, model.size, model.embedding_size) < 1 or not 0 < model.crop <= 1 or (
                not 0 < model.fps < math.inf):
            raise ValueError(f"a clip of {clip}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {record} ({type(error).__name__}: {error}), which says what "
                        "the model's clips are; export it again (bin/export)") from error
    return model


def _version(path: pathlib.Path) -> pathlib.Path:
    if not path.is_dir():
        raise UserError(f"--model_dir={path} is no folder; name one that bin/export wrote")
    versions = [x for x in path.iterdir() if x.name.isdecimal() and (x / _GRAPH).is_file()]
    if (path / _GRAPH).is_file():
        newest = path
    elif versions:
        newest = max(versions, key=lambda x: int(x.name))
    else:
        raise UserError(f"--model_dir={path} holds no exported encoder (no {_GRAPH}, here or in a "
                        "folder with a number for a name); name the --export_dir of bin/export")
    return newest.resolve()
