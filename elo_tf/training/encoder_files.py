"""The product of a training: the RGB encoder and the clip it expects, in one folder.

    rgb.keras              the trained encoder; Keras loads it without this code
    rgb_untrained.keras    the same network before the first step, the control of every evaluation
    clip.json              what it expects: frames, size, fps, mean, scale; commit and config
    data.json              the folders and splits of records that it was trained on
"""

import dataclasses
import json
import os
import pathlib
import zipfile

import tensorflow as tf

from elo_tf import files, provenance
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError
from elo_tf.models.convolution import FactorisedConv3D
from elo_tf.views.clip_views import RGB_MEAN, RGB_SCALE

TRAINED = "rgb.keras"
UNTRAINED = "rgb_untrained.keras"
CLIP = "clip.json"
DATA = "data.json"


def save_encoder(encoder: tf.keras.Model, folder: pathlib.Path, name: str = TRAINED, *,
                 writes: bool = True) -> None:
    """Saves an RGB encoder as a float32 network for one device.

    The same weights give the same bytes.

    Args:
      encoder: of any precision, on any number of devices.
      folder: to save it in.
      name: of the file.
      writes: False on a worker that only takes part in reading the weights.
    """
    weights = encoder.get_weights()
    if not writes:
        return
    plain = tf.keras.models.clone_model(encoder, clone_function=_as_in_keras)
    plain.set_weights(weights)
    with files.atomic_path(folder / name) as path:
        plain.save(path)
        _forget_the_date(path)


def _forget_the_date(path: pathlib.Path) -> None:
    """Rewrites what Keras saved without the time at which it did."""
    with zipfile.ZipFile(path) as saved:
        contents = {name: saved.read(name) for name in sorted(saved.namelist())}
    metadata = json.loads(contents["metadata.json"])
    metadata.pop("date_saved", None)
    contents["metadata.json"] = json.dumps(metadata).encode()
    with zipfile.ZipFile(path, "w") as rewritten:
        for name, content in contents.items():
            rewritten.writestr(zipfile.ZipInfo(name), content)


def _as_in_keras(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
    """A float32 copy of the layer, of Keras's own class and for one device."""
    config = layer.get_config() | {"dtype": "float32"}
    if isinstance(layer, tf.keras.layers.BatchNormalization):
        config["synchronized"] = False
        return tf.keras.layers.BatchNormalization.from_config(config)
    if isinstance(layer, FactorisedConv3D):
        return tf.keras.layers.Conv3D.from_config(config)
    return layer.__class__.from_config(config)


def save_clip(clip: ClipSpec, folder: pathlib.Path, config: str) -> None:
    """Writes clip.json.

    Args:
      clip: the clip's size.
      folder: of the encoder.
      config: text of the configuration, whose hash is stored.
    """
    content = {**dataclasses.asdict(clip), "mean": RGB_MEAN, "scale": RGB_SCALE,
               "commit": provenance.commit(), "config": provenance.config_hash(config)}
    files.write_atomic(folder / CLIP, json.dumps(content, indent=2) + "\n")


def save_data(records: Records | MixedRecords | None, split: str, folder: pathlib.Path) -> None:
    """Writes data.json, by which an evaluation finds out whether its test clips were seen.

    Args:
      records: that the encoder was trained on; None for an encoder that saw no records.
      split: of them.
      folder: of the encoder.
    """
    content = [{"directory": os.path.abspath(source.directory), "split": split}
               for source, _ in (records.weighted() if records else [])]
    files.write_atomic(folder / DATA, json.dumps(content, indent=2) + "\n")


def load_data(folder: pathlib.Path) -> list[tuple[str, str]] | None:
    """Folder and split of each record set in data.json; None where there is no such file.

    Raises:
      UserError: if it is not readable.
    """
    path = folder / DATA
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [(source["directory"], source["split"]) for source in content]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path} ({error}); it is written by bin/pretrain") from error


def load_encoder(folder: pathlib.Path, name: str = TRAINED) -> tf.keras.Model:
    """Loads an encoder.

    Raises:
      UserError: if it is not there, or damaged.
    """
    path = folder / name
    if not path.is_file():
        raise UserError(f"no encoder {path}; --encoder is the folder `encoder` of a finished "
                        "run of bin/pretrain")
    try:
        return tf.keras.models.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be loaded as a Keras model "
                        f"({str(error).splitlines()[0]}): run the pre-training again") from error


def load_clip(folder: pathlib.Path) -> ClipSpec:
    """Reads the clip's size from clip.json.

    Raises:
      UserError: if it is not there or not readable.
    """
    path = folder / CLIP
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return ClipSpec(**{f.name: content[f.name] for f in dataclasses.fields(ClipSpec)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path} ({error}); it is written by bin/pretrain") from error
