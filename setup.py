"""What pyproject.toml cannot say: where the files of a checkout go, and which commit they are."""

import pathlib
import re
import runpy

from setuptools import find_packages, setup

VERSION = "0.1.0"
ROOT = pathlib.Path(__file__).resolve().parent


def requirements() -> tuple[list[str], list[str]]:
    """What requirements.in lists: for everybody, and for development, its last part."""
    parts = (ROOT / "requirements.in").read_text(encoding="utf-8").partition("# Development.")
    needed, _, development = ([re.sub(r"\s*#.*", "", line) for line in part.splitlines()]
                              for part in parts)
    return [x for x in needed if x], [x for x in development if x]


def version() -> str:
    """The version, with the commit of the checkout where there is one."""
    commit = runpy.run_path(str(ROOT / "elo_tf" / "provenance.py"))["commit"]()
    return VERSION if commit == "unknown" else f"{VERSION}+g{commit.replace('-', '.')}"


needed, development = requirements()
setup(
    version=version(),
    install_requires=needed,
    extras_require={"dev": development},
    # elo_tf/programs.py says why.
    packages=[*find_packages(include=["elo_tf", "elo_tf.*"]), "elo_tf.tools", "elo_tf.gin_files"],
    package_dir={"elo_tf.tools": "tools", "elo_tf.gin_files": "gin"},
    package_data={"elo_tf.gin_files": ["**/*.gin"]},
)
