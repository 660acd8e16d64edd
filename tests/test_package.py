"""`pip install .`: what is installed works from anywhere, and says which commit it is."""

import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib

import pytest

from elo_tf import programs, provenance

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGED = ("elo_tf", "tools", "gin", "pyproject.toml", "setup.py", "requirements.in", "README.md",
            "LICENSE")
TINY = """
ClipSpec.frames = 4
ClipSpec.size = 16
video_encoder.depth = 10
video_encoder.width = 0.0625
"""


# Without the checkout, which Bazel puts on the path of its tests.
OUTSIDE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(command: list, **options) -> str:
    """What a program prints; it has ended well."""
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True, timeout=600,
                          check=False, env=OUTSIDE, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


class Installed:
    """An environment in which a commit of the project is installed."""

    def __init__(self, root: pathlib.Path):
        source = root / "source"
        for name in PACKAGED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name,
                                ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, source / name)
        git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", source]
        run([*git, "init", "-q"])
        run([*git, "add", "."])
        run([*git, "commit", "-q", "-m", "all of it"])
        self.commit = run([*git, "rev-parse", "HEAD"]).strip()[:12]
        # What the project needs is taken from the environment of this test, without a network.
        environment = root / "environment"
        run([sys.executable, "-m", "venv", "--without-pip", environment])
        self.bin = environment / "bin"
        self.site = pathlib.Path(run([
            self.bin / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        ).strip())
        (self.site / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        run([sys.executable, "-m", "pip", "--python", self.bin / "python", "install", "--no-index",
             "--no-deps", "--no-build-isolation", "--disable-pip-version-check", source])
        shutil.rmtree(source)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("package"))


def main_modules(folder: str) -> set[str]:
    return {x.stem for x in (ROOT / folder).glob("*.py")
            if '__name__ == "__main__"' in x.read_text()}


def test_every_program_is_a_command():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    modules = main_modules("elo_tf/bin") | main_modules("tools")
    assert set(scripts) == {f"elo-{x.replace('_', '-')}" for x in modules}
    assert set(scripts.values()) == {"elo_tf.programs:main"}
    assert not main_modules("elo_tf/bin") & main_modules("tools")


def test_how_a_program_is_called_from_a_checkout():
    assert programs.CHECKOUT == ROOT
    assert programs.module("tools.make_folds") == "tools.make_folds"
    assert programs.shown("tools.make_folds", "--by=the group") == (
        "python -m tools.make_folds '--by=the group'")


def test_what_is_needed_is_what_requirements_in_lists(installed):
    found = importlib.metadata.Distribution.at(next(installed.site.glob("elo_tf-*.dist-info")))
    needed = {x for x in found.requires if "extra ==" not in x}
    extra = {x.split(";")[0].strip() for x in found.requires if "extra ==" in x}
    lines = (re.sub(r"\s*#.*", "", x) for x in (ROOT / "requirements.in").read_text().splitlines())
    assert {x.replace(" ", "") for x in needed | extra} == {x for x in lines if x}
    assert "tensorflow==2.15.1" in needed and any(x.startswith("pytest==") for x in extra)


def test_the_tools_run_from_anywhere(installed, tmp_path):
    run([installed.bin / "elo-make-videos", "--output=videos", "--clips=train:3", "--seconds=1",
         "--size=32", "--fps=4", "--classes=3", "--workers=2"], cwd=tmp_path)
    assert len(list((tmp_path / "videos" / "train").glob("*.mp4"))) == 3
    (tmp_path / "list.csv").write_text("path,label,group\n" + "".join(
        f"{i}.mp4,{'ab'[i % 2]},{i // 2}\n" for i in range(8)))
    said = run([installed.bin / "elo-make-folds", "--input=list.csv", "--output=lists"],
               cwd=tmp_path)
    assert "elo-convert-videos --input=lists/train1.csv" in said, said
    assert "python -m" not in said


def test_a_binary_finds_the_gin_files_and_knows_its_commit(installed, tmp_path):
    assert len(list((installed.site / "elo_tf" / "gin_files").rglob("*.gin"))) == len(
        list((ROOT / "gin").rglob("*.gin")))
    (tmp_path / "tiny.gin").write_text(TINY)
    run([installed.bin / "elo-initial", "--run_dir=run", "--gin_file=search/random.gin",
         "--gin_file=tiny.gin"], cwd=tmp_path)
    clip = json.loads((tmp_path / "run" / "encoder" / "clip.json").read_text())
    assert (clip["commit"], clip["frames"]) == (installed.commit, 4)
    assert "video_encoder.depth = 10" in (tmp_path / "run" / "config.gin").read_text()


def test_help_is_that_of_the_program(installed, tmp_path):
    done = subprocess.run([installed.bin / "elo-convert-videos", "--help"], cwd=tmp_path,
                          env=OUTSIDE, capture_output=True, text=True, timeout=300, check=False)
    assert "--min_side" in done.stdout and "Converts" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("version, expected", [
    ("0.1.0+g0123456789ab", "0123456789ab"), ("0.1.0+g0123456789ab.dirty", "0123456789ab-dirty"),
    ("0.1.0", "version 0.1.0")])
def test_the_commit_of_an_installed_package_is_in_its_version(version, expected, tmp_path,
                                                              monkeypatch):
    (tmp_path / "elo_tf-1.dist-info").mkdir()
    (tmp_path / "elo_tf-1.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: elo-tf\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "elo_tf" / "provenance.py"))
    assert provenance.commit() == expected


def test_a_copy_of_the_files_knows_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "elo_tf" / "provenance.py"))
    assert provenance.commit() == "unknown"
