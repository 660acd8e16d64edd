"""Classifiers that an evaluation keeps, for an export to serve: a folder each.

    heads/linear/    the "1-layer" classifier on the frozen embedding, its standardisation folded in
    heads/finetune/  the fine-tuned network and its linear layer

    head.npz         kernel float32 [D, C] and bias float32 [C]: the probabilities of an embedding x
                     are softmax(x @ kernel + bias)
    rgb.keras        in finetune/: the network that gives this embedding
    head.json        of which encoder it is, its classes in the order of the label map, how it was
                     trained and tested, and SHA-256 of the other files; it is written last
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from elo_tf import files, provenance
from elo_tf.errors import UserError
from elo_tf.training import encoder_files

HEADS = "heads"
WEIGHTS = "head.npz"
FACTS = "head.json"
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class HeadFacts:
    """What is known of a classifier, as head.json has it.

    Attributes:
      kind: "linear": on the embedding of the encoder as it is; "finetune": on that of the network
        in its own folder, which training began with the encoder.
      encoder: SHA-256, in hexadecimal, of the encoder's file.
      classes: names, in the order of the label map.
      training_clips: of each class.
      train_split: whose labels it was trained on.
      test_split: that it was tested on.
      test_clips: how many.
      test_accuracy: share of them whose likeliest class is theirs, in [0, 1].
      chance: what always answering their most frequent class gets.
      windows: clips of a test video whose features or probabilities were averaged.
      crops: of each of these.
      seed: of the training.
      recipe: its settings.
      of: what it depends on; another one is trained again.
    """

    kind: Literal["linear", "finetune"]
    encoder: str
    classes: Sequence[str]
    training_clips: Sequence[int]
    train_split: str
    test_split: str
    test_clips: int
    test_accuracy: float
    chance: float
    windows: int
    crops: int
    seed: int
    recipe: Mapping[str, Any]
    of: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class Head:
    """A classifier on an embedding.

    Attributes:
      kernel: float32 [D, C].
      bias: float32 [C].
      facts: what is known of it.
      commit: of the code that trained it.
      network: folder of the fine-tuned encoder; None where the embedding is the encoder's own.
    """

    kernel: np.ndarray
    bias: np.ndarray
    facts: HeadFacts
    commit: str
    network: pathlib.Path | None


def digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def class_names(labels: Sequence[str], classes: Sequence[int]) -> list[str]:
    """Names of classes by a label map; their numbers where it has none."""
    return [labels[i] if i < len(labels) else str(i) for i in map(int, classes)]


def save_head(folder: pathlib.Path, kernel: np.ndarray, bias: np.ndarray, facts: HeadFacts, *,
              network: tf.keras.Model | None = None) -> None:
    """Writes a classifier; one that is there already is replaced.

    Args:
      folder: of the classifier.
      kernel: [D, C].
      bias: [C].
      facts: what is known of it.
      network: the fine-tuned encoder, on any devices.
    """
    # Without it the folder holds no classifier, and nothing of two is ever mixed.
    (folder / FACTS).unlink(missing_ok=True)
    with files.atomic_path(folder / WEIGHTS) as path:
        np.savez(path, kernel=np.asarray(kernel, np.float32), bias=np.asarray(bias, np.float32))
    names = [WEIGHTS]
    if network is not None:
        encoder_files.save_encoder(network, folder)
        names.append(encoder_files.TRAINED)
    content = {"format": FORMAT, **dataclasses.asdict(facts), "commit": provenance.commit(),
               "files": {name: digest(folder / name) for name in names}}
    files.write_atomic(folder / FACTS, json.dumps(content, indent=1) + "\n")


def is_kept(folder: pathlib.Path, of: Sequence[Any]) -> bool:
    """Whether the folder holds the classifier of these things."""
    try:
        content = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return content["of"] == json.loads(json.dumps(of)) and content["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load_head(folder: str | os.PathLike, encoder_dir: str | os.PathLike) -> Head:
    """Reads a classifier of an encoder.

    Args:
      folder: of the classifier.
      encoder_dir: folder of the encoder that it must be of.

    Raises:
      UserError: it is missing or damaged, or of another encoder.
    """
    folder, encoder = pathlib.Path(folder), pathlib.Path(encoder_dir) / encoder_files.TRAINED
    path = folder / FACTS
    if not path.is_file():
        raise UserError(f"no classifier {path}; --head is a folder below `{HEADS}` of a finished "
                        f"run of bin/evaluate with evaluate.keep_heads = True, such as "
                        f"evaluate/{HEADS}/linear")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, not {FORMAT}")
        facts = HeadFacts(**{x.name: content[x.name] for x in dataclasses.fields(HeadFacts)})
        for name, expected in content["files"].items():
            if digest(folder / name) != expected:
                raise ValueError(f"{name} is not the file that was written with it")
        with np.load(folder / WEIGHTS, allow_pickle=False) as stored:
            kernel, bias = stored["kernel"], stored["bias"]
        if kernel.shape != (len(kernel), len(facts.classes)) or bias.shape != kernel.shape[1:]:
            raise ValueError(f"{WEIGHTS} is of shapes {kernel.shape} and {bias.shape}, and there "
                             f"are {len(facts.classes)} classes")
    except (OSError, ValueError, KeyError, TypeError, AttributeError,
            zipfile.BadZipFile) as error:
        raise UserError(f"the classifier {path} is damaged ({error}): remove its folder, and run "
                        "the evaluation again") from error
    if encoder.is_file() and digest(encoder) != facts.encoder:
        raise UserError(
            f"{path} is of another encoder (SHA-256 {facts.encoder[:12]}...) than {encoder} "
            f"({digest(encoder)[:12]}...): give --encoder the one that was evaluated, or evaluate "
            "this one")
    return Head(kernel, bias, facts, content.get("commit", "unknown"),
                folder if encoder_files.TRAINED in content["files"] else None)
