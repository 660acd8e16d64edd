"""The BUILD files name every source, program and test, and deps that suffice; without Bazel.

BUILD files are Python in syntax: they are run here with functions that note what is declared.
"""

import ast
import dataclasses
import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
CODE = ("elo_tf", "tools", "benchmarks", "tests")
STARTS_A_PROGRAM = re.compile(r"\b(elo_tf\.bin|tools|benchmarks)\.[a-z{]")


@dataclasses.dataclass
class Target:
    """What is declared; files by their path in the project, deps by their full label."""

    kind: str
    srcs: list[str]
    deps: list[str]
    options: dict


def full_label(label: str, package: str) -> str:
    where, _, name = label.rpartition(":")
    if not label.startswith("//"):
        return f"//{package}:{name}"
    return label if where else f"{label}:{label.rpartition('/')[2]}"


def file_of(src: str, package: str) -> str:
    """Of "a.py" or "//tests:a.py", the path."""
    folder, _, name = src.removeprefix("//").rpartition(":") if ":" in src else (package, "", src)
    return f"{folder}/{name}".lstrip("/")


class Package:
    """Runs one BUILD file."""

    def __init__(self, folder: pathlib.Path, targets: dict[str, Target]):
        self._folder = folder
        self._name = "" if folder == ROOT else folder.relative_to(ROOT).as_posix()
        self._targets = targets
        self._run(folder / "BUILD")

    def _run(self, path: pathlib.Path) -> dict:
        def note(kind):
            def declare(name, srcs=(), deps=(), **options):
                label = f"//{self._name}:{name}"
                assert label not in self._targets, f"{label} is declared twice"
                self._targets[label] = Target(
                    kind, [file_of(x, self._name) for x in srcs],
                    [full_label(x, self._name) for x in deps], options)
            return declare

        def load(source, *names):
            if source == "//:build_defs.bzl":
                macros = self._run(ROOT / "build_defs.bzl")
                scope.update({name: macros[name] for name in names})
            else:
                assert source == "@rules_python//python:defs.bzl", source

        scope = {kind: note(kind) for kind in ("py_library", "py_binary", "py_test", "filegroup")}
        scope |= {"load": load, "glob": self._glob, "package": lambda **_: None,
                  "exports_files": lambda _: None}
        exec(compile(path.read_text(), str(path), "exec"), scope)
        return scope

    def _glob(self, patterns, exclude=()):
        def in_another_package(path):
            between = path.relative_to(self._folder).parents
            return any((self._folder / x / "BUILD").exists() for x in between if str(x) != ".")

        found = {path for pattern in patterns for path in self._folder.glob(pattern)
                 if path.is_file() and not in_another_package(path)}
        names = {path.relative_to(self._folder).as_posix() for path in found}
        return sorted(names - set(exclude))


@pytest.fixture(scope="module")
def targets() -> dict[str, Target]:
    found: dict[str, Target] = {}
    for folder in ("", "docs", "gin", *CODE):
        for path in sorted((ROOT / folder).glob("BUILD" if not folder else "**/BUILD")):
            Package(path.parent, found)
    return found


def python_files() -> Iterator[pathlib.Path]:
    for folder in CODE:
        yield from sorted((ROOT / folder).rglob("*.py"))


def has_main(path: pathlib.Path) -> bool:
    return '__name__ == "__main__"' in path.read_text()


def closure(targets: dict[str, Target], label: str) -> set[str]:
    """All files that a target's Python sees."""
    seen, waiting, files = set(), [label], set()
    while waiting:
        label = waiting.pop()
        if label not in seen:
            seen.add(label)
            files.update(targets[label].srcs)
            waiting += targets[label].deps
    return files


def imported(path: pathlib.Path) -> set[str]:
    """The project's files that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    found = set()
    for name in names:
        parts = name.split(".")
        if parts[0] not in CODE:
            continue
        for count in range(len(parts), 0, -1):
            place = ROOT.joinpath(*parts[:count])
            files = [x for x in (place.with_suffix(".py"), place / "__init__.py") if x.is_file()]
            if files:
                found.add(files[0].relative_to(ROOT).as_posix())
                break
    return found


def starts_programs(path: pathlib.Path) -> bool:
    """Whether a test runs programs, itself or by the fixture of conftest.py."""
    tree = ast.parse(path.read_text())
    texts = [x.value for x in ast.walk(tree) if isinstance(x, ast.Constant)]
    arguments = [x.arg for x in ast.walk(tree) if isinstance(x, ast.arg)]
    return "workshop" in arguments or any(
        isinstance(x, str) and STARTS_A_PROGRAM.match(x) for x in texts)


def test_every_dependency_is_declared(targets):
    for label, target in targets.items():
        data = [full_label(x, "") for x in target.options.get("data", ()) if x.startswith("//")]
        missing = [x for x in (*target.deps, *data) if x not in targets
                   and not (ROOT / x.removeprefix("//").replace(":", "/").lstrip("/")).is_file()]
        assert not missing, f"{label} needs {missing}, which no BUILD file declares"


def test_every_source_has_a_target(targets):
    named = {src for target in targets.values() for src in target.srcs}
    files = {x.relative_to(ROOT).as_posix() for x in python_files()}
    assert not files - named, f"in no BUILD file: {sorted(files - named)}"
    assert not {x for x in named if x.endswith(".py")} - files, "named, but not there"


def test_every_program_and_every_test_has_its_own_target(targets):
    binaries = {x.srcs[0] for x in targets.values() if x.kind == "py_binary"}
    tests = {x.srcs[0] for x in targets.values() if x.kind == "py_test"}
    files = {x.relative_to(ROOT).as_posix(): x for x in python_files()}
    programs = {name for name, path in files.items()
                if not name.startswith("tests/") and has_main(path)}
    assert binaries == programs, f"differ in programs(names = ...): {binaries ^ programs}"
    assert tests == {x for x in files if re.fullmatch(r"tests/(.+/)?test_\w+\.py", x)}
    assert len(tests) > 100


def test_a_target_sees_all_that_it_imports(targets):
    for label, target in targets.items():
        seen = closure(targets, label)
        for src in target.srcs:
            if src.endswith(".py"):
                lacking = imported(ROOT / src) - seen
                assert not lacking, f"{label} lacks deps for {sorted(lacking)}, which {src} imports"


def test_a_test_sees_the_programs_that_it_starts_and_its_fixtures(targets):
    for label, target in targets.items():
        if target.kind != "py_test":
            continue
        seen, path = closure(targets, label), ROOT / target.srcs[0]
        if starts_programs(path):
            assert "elo_tf/bin/search.py" in seen, f"{label} starts programs: add //:programs"
        for folder in path.relative_to(ROOT).parents:
            fixtures = folder / "conftest.py"
            if (ROOT / fixtures).exists():
                assert fixtures.as_posix() in seen, f"{label} lacks {fixtures}"


def test_only_soak_tests_are_left_out_of_a_run_of_all_tests(targets):
    manual = {x.srcs[0] for x in targets.values() if "manual" in x.options.get("tags", ())}
    assert manual and all(x.startswith("tests/soak/") for x in manual)
