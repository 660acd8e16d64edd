"""Which code and which configuration made a result."""

import hashlib
import importlib.metadata
import pathlib
import subprocess

DISTRIBUTION = "elo-tf"


def commit() -> str:
    """The git commit of this code, with `-dirty` if files differ.

    Of an installed package it is the one it was built from, or else "version 1.2.3"; "unknown" of a
    copy of the files.
    """
    root = pathlib.Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return _installed()
    try:
        return subprocess.run(
            ["git", "-c", f"safe.directory={root}", "describe", "--always", "--dirty",
             "--abbrev=12", "--exclude=*"],
            cwd=root, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _installed() -> str:
    """What setup.py wrote into the version, as in 1.2.3+g0123456789ab.dirty."""
    try:
        distribution = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
    here = pathlib.Path(str(distribution.locate_file("elo_tf/provenance.py")))
    if here.resolve() != pathlib.Path(__file__).resolve():
        return "unknown"  # Another copy is the installed one.
    _, built, local = distribution.version.partition("+g")
    return local.replace(".", "-") if built else f"version {distribution.version}"


def config_hash(config: str) -> str:
    """SHA-256 of a configuration's text, in hexadecimal."""
    return hashlib.sha256(config.encode()).hexdigest()
