"""Which code and which configuration made a result."""

import hashlib
import pathlib
import subprocess


def commit() -> str:
    """The git commit of this code, with `-dirty` if files differ; "unknown" outside a checkout."""
    root = pathlib.Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return "unknown"
    try:
        return subprocess.run(
            ["git", "-c", f"safe.directory={root}", "describe", "--always", "--dirty",
             "--abbrev=12", "--exclude=*"],
            cwd=root, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def config_hash(config: str) -> str:
    """SHA-256 of a configuration's text, in hexadecimal."""
    return hashlib.sha256(config.encode()).hexdigest()
