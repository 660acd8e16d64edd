"""What the files of an encoder and of its run say of the training; what they lack is None."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from elo_tf import provenance
from elo_tf.data.record_set import Records
from elo_tf.errors import UserError
from elo_tf.evaluation.record_index import read_index
from elo_tf.training import encoder_files

# Of a run of bin/pretrain or bin/initial, in the folder that holds the encoder's.
CONFIGS = ("config.gin", "operative_config.gin")
HELDOUT = "heldout.json"
_BINDING = re.compile(r"^([\w./]+) = (\S.*)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Source:
    """A split of a folder of records that an encoder was trained on, as it is now.

    Attributes:
      directory: the folder.
      split: of it.
      clips: how many records it has; None where they cannot be read.
      fingerprint: SHA-256 over their ids, labels and shards; None with `clips`.
      summary: what the conversion wrote of these clips; None where there is no such file.
    """

    directory: str
    split: str
    clips: int | None
    fingerprint: str | None
    summary: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What is known of the training of an encoder.

    Attributes:
      commit: of the code.
      config: SHA-256 of the configuration.
      sources: of clips; empty for an encoder that was not trained on records.
      settings: the run's gin bindings of one line, by name, as they are written; None where no
        configuration beside the encoder has the hash that the encoder's folder names.
      losses: of heldout.json: weights by name, and losses on unseen clips before and after.
    """

    commit: str | None
    config: str | None
    sources: tuple[Source, ...] | None
    settings: Mapping[str, str] | None
    losses: Mapping[str, Mapping[str, float]] | None

    def setting(self, name: str) -> str | None:
        """The value of a binding as a reader wants it; None where it is not known."""
        value = (self.settings or {}).get(name)
        # A long one goes on in other lines, and a macro is no value.
        return None if value is None or value == "\\" or value[0] == "%" else value.strip("'")


def read_run(encoder_dir: pathlib.Path) -> RunFacts:
    """Reads what there is.

    Args:
      encoder_dir: folder of the encoder, in that of its run.
    """
    origin = _json(encoder_dir / encoder_files.CLIP) or {}
    run_dir = encoder_dir.resolve().parent
    settings = _settings(run_dir, origin.get("config"))
    losses = _json(run_dir / HELDOUT) if settings is not None else None
    whole = losses is not None and {"weights", "before", "after"} <= set(losses)
    named = encoder_files.load_data(encoder_dir)
    return RunFacts(
        commit=origin.get("commit"), config=origin.get("config"),
        sources=None if named is None else tuple(_source(*source) for source in named),
        settings=settings, losses=losses if whole else None)


def _source(directory: str, split: str) -> Source:
    try:
        index = read_index(Records(directory), split, f"clips of {split}")
    except (UserError, OSError):
        return Source(directory, split, None, None, None)
    summary = _json(pathlib.Path(directory) / f"{split}.json")
    if summary is not None and summary.get("clips") != len(index.ids):
        summary = None  # It is of other records.
    return Source(directory, split, len(index.ids), index.fingerprint, summary)


def _settings(run_dir: pathlib.Path, config: str | None) -> dict[str, str] | None:
    """The bindings of the run, if its configuration is the one that made the encoder."""
    paths = [run_dir / name for name in CONFIGS]
    if not paths[0].is_file():
        return None
    texts = [path.read_text(encoding="utf-8") for path in paths if path.is_file()]
    if provenance.config_hash(texts[0]) != config:
        return None
    found: dict[str, str] = {}
    for text in texts:  # The second has what the code's defaults added.
        found.update(_BINDING.findall(text))
    return found


def _json(path: pathlib.Path) -> dict[str, Any] | None:
    """The object of a JSON file; None where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
