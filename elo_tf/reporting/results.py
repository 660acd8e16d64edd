"""What the runs left behind, read for the report: whatever is there, checked when it is read."""

import dataclasses
import json
import os
import pathlib
import re
from typing import Any

from elo_tf.errors import UserError
from elo_tf.search.journal import Journal, read_journal

JOURNAL = "journal.jsonl"
CLUSTERS = "clusters.json"
_STUDY_KEYS = ("rows", "findings")
_STEP_KEYS = ("step", "total", "learning_rate", "losses", "share", "gradient_norms", "measured")


@dataclasses.dataclass(frozen=True)
class Clusters:
    """The clips nearest to the centres of a candidate's clusters.

    Attributes:
      place: generation, index and repeat of the candidate.
      shares: of the clips, of each cluster, largest first.
      clips: ids of the nearest ones, of each cluster.
    """

    place: tuple[int, int, int]
    shares: tuple[float, ...]
    clips: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Results:
    """The results of a search and what followed it; None for what was not found, or nothing.

    Attributes:
      journal: of the search.
      zipf_exponent: s of the fitness's Zipf law.
      clusters: of the best candidate: `clusters.json`.
      study: of strategies: `study.json`.
      heldout: losses on unseen clips before and after the final training: `heldout.json`.
      log: of the final training, which need not have ended: the entries of `losses.jsonl`.
      clip: what the final encoder takes, and its provenance: `encoder/clip.json`.
      evaluation: `evaluation.json`.
      export: the newest exported version's folder.
      export_provenance: what that folder says of its origin.
    """

    journal: Journal | None = None
    zipf_exponent: float = 1.0
    clusters: Clusters | None = None
    study: dict[str, Any] | None = None
    heldout: dict[str, Any] | None = None
    log: tuple[dict[str, Any], ...] = ()
    clip: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    export: str | None = None
    export_provenance: dict[str, Any] | None = None

    @property
    def running(self) -> bool:
        """Whether there is a search that has not ended."""
        return self.journal is not None and self.journal.end is None


def read_results(*, search_dir: str | os.PathLike | None = None,
                 pretrain_dir: str | os.PathLike | None = None,
                 evaluation_dir: str | os.PathLike | None = None,
                 export_dir: str | os.PathLike | None = None,
                 study_dir: str | os.PathLike | None = None, journal: Journal | None = None,
                 zipf_exponent: float | None = None) -> Results:
    """Reads the results that are there.

    Args:
      search_dir: run folder of the search.
      pretrain_dir: run folder of the final training.
      evaluation_dir: run folder of the evaluation.
      export_dir: folder of the exported versions.
      study_dir: run folder of the study of strategies.
      journal: of the search, where the caller has it; it is read if None.
      zipf_exponent: s of the Zipf law; from the search's configuration if None.

    Raises:
      UserError: a file is there but cannot be read.
    """
    if search_dir is not None:
        if journal is None:
            journal = read_journal(pathlib.Path(search_dir) / JOURNAL)
        if zipf_exponent is None:
            zipf_exponent = _exponent(pathlib.Path(search_dir))
    heldout = _read(pretrain_dir, "heldout.json", ("weights", "before"))
    version = _newest_version(export_dir)
    return Results(
        journal=journal if journal and journal.header else None,
        zipf_exponent=1.0 if zipf_exponent is None else zipf_exponent,
        clusters=read_clusters(search_dir), study=_read(study_dir, "study.json", _STUDY_KEYS),
        # Without it the training has not ended.
        heldout=heldout if heldout and "after" in heldout else None,
        log=_read_log(pretrain_dir),
        clip=_read(pretrain_dir, "encoder/clip.json", ()),
        evaluation=_read(evaluation_dir, "evaluation.json", ("chance", "rows")),
        export=None if version is None else str(version),
        export_provenance=_read(version, "assets.extra/provenance.json", ()))


def _read(folder: str | os.PathLike | None, name: str,
          needed: tuple[str, ...]) -> dict[str, Any] | None:
    """The JSON object of a file, or None where there is no such file."""
    if folder is None or not (path := pathlib.Path(folder) / name).is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): make it again, or leave its folder "
                        "out of the report") from error
    missing = [key for key in needed if not isinstance(value, dict) or key not in value]
    if missing:
        raise UserError(f"{path} has no {', '.join(missing)}: make it again with this version of "
                        "the program, or leave its folder out of the report")
    return value


def read_clusters(folder: str | os.PathLike | None) -> Clusters | None:
    """Reads `clusters.json` of a search's run folder; None where there is none.

    Raises:
      UserError: it cannot be read.
    """
    found = _read(folder, CLUSTERS, ("generation", "index", "repeat", "shares", "clips"))
    if found is None:
        return None
    shares, clips = found["shares"], found["clips"]
    good = (isinstance(shares, list) and all(isinstance(x, (int, float)) for x in shares)
            and isinstance(clips, list) and len(clips) == len(shares)
            and all(isinstance(x, list) and all(isinstance(y, str) for y in x) for x in clips))
    if not good:
        raise UserError(f"{pathlib.Path(folder or os.curdir) / CLUSTERS} is damaged (it needs a "
                        "share and a list of clip ids for each cluster): delete it")
    return Clusters(place=(found["generation"], found["index"], found["repeat"]),
                    shares=tuple(map(float, shares)), clips=tuple(map(tuple, clips)))


def _read_log(folder: str | os.PathLike | None) -> tuple[dict[str, Any], ...]:
    """The whole lines of `losses.jsonl`; a line that a kill left, or is being written, is not."""
    if folder is None or not (path := pathlib.Path(folder) / "losses.jsonl").is_file():
        return ()
    content = path.read_bytes()
    entries = []
    for number, line in enumerate(content[:content.rfind(b"\n") + 1].split(b"\n")[:-1], start=1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError("not an object")
            needed = ("step", "heldout_total") if "heldout_total" in entry else _STEP_KEYS
            if missing := [key for key in needed if key not in entry]:
                raise ValueError(f"no {', '.join(missing)}")
        except ValueError as error:
            raise UserError(f"{path}, line {number} is damaged ({error}): delete that line, or "
                            "leave the folder out of the report") from error
        entries.append(entry)
    return tuple(entries)


def _exponent(search_dir: pathlib.Path) -> float | None:
    """`ZipfFitness.s` of the search's configuration; None where it is not set."""
    for name in ("operative_config.gin", "config.gin"):
        path = search_dir / name
        if path.is_file():
            found = re.findall(r"^(?:[\w.]+\.)?ZipfFitness\.s\s*=\s*([-+.\deE]+)\s*$",
                               path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            if found:
                return float(found[-1])
    return None


def _newest_version(export_dir: str | os.PathLike | None) -> pathlib.Path | None:
    if export_dir is None or not pathlib.Path(export_dir).is_dir():
        return None
    return max((x for x in pathlib.Path(export_dir).iterdir() if x.name.isdigit()),
               key=lambda x: int(x.name), default=None)
