#!/usr/bin/env python3
"""Lets Bazel 4.2 (Debian: bazel-bootstrap) build and test without a network.

    .venv/bin/python .ci/bazel_offline.py && bazel test //tests/...

Bazel fetches its rules from the internet. This writes stand-ins for them, a few lines each, into
`.bazel/`, and `.bazelrc.offline`, which makes Bazel use them and run all programs with the Python
that runs this script. `.bazelrc` reads that file where it exists; git ignores both.
"""

import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".bazel"
OPTIONS = ROOT / ".bazelrc.offline"


def rules(names: str) -> str:
    """A .bzl file that names Bazel's own rules."""
    return "".join(f"{name} = native.{name}\n" for name in names.split())


def stand_ins(python: str) -> dict[str, str]:
    """The text of each file, by path. The first part of a path is the name of a repository."""
    return {
        "rules_python/python/defs.bzl": rules("py_binary py_library py_runtime py_test"),
        "rules_cc/cc/BUILD": "",
        "rules_cc/cc/defs.bzl": rules(
            "cc_binary cc_import cc_library cc_proto_library cc_test cc_toolchain "
            "cc_toolchain_suite fdo_prefetch_hints fdo_profile objc_import objc_library"),
        "rules_java/java/defs.bzl": rules(
            "java_binary java_import java_library java_lite_proto_library "
            "java_package_configuration java_plugin java_proto_library java_runtime java_test "
            "java_toolchain"),
        "remote_coverage_tools/BUILD": (
            'package(default_visibility = ["//visibility:public"])\n'
            'filegroup(name = "coverage_report_generator")\nfilegroup(name = "lcov_merger")\n'),
        "local_python/BUILD": (
            'load("@bazel_tools//tools/python:toolchain.bzl", "py_runtime_pair")\n'
            f'py_runtime(name = "python3", interpreter_path = "{python}", python_version = "PY3")\n'
            'py_runtime_pair(name = "runtimes", py3_runtime = ":python3")\n'
            'toolchain(name = "toolchain", toolchain = ":runtimes",\n'
            '          toolchain_type = "@bazel_tools//tools/python:toolchain_type")\n'),
    }


def main() -> None:
    """Writes all files."""
    # Not resolved: the link in the virtual environment is what makes it that environment's Python.
    python = os.path.abspath(sys.executable)
    repositories = []
    for path, text in stand_ins(python).items():
        name = path.partition("/")[0]
        if name not in repositories:
            repositories.append(name)
        workspace = f'workspace(name = "{name}")\n'
        for place, content in ((path, text), (f"{name}/WORKSPACE", workspace)):
            file = FOLDER / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
            build = file.parent / "BUILD"
            if not build.exists():
                build.touch()
    lines = [f"common --override_repository={name}={FOLDER / name}" for name in repositories]
    lines += ["build --extra_toolchains=@local_python//:toolchain",
              f"build --action_env=PATH={os.path.dirname(python)}:/usr/local/bin:/usr/bin:/bin"]
    OPTIONS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {OPTIONS} for {python}")


if __name__ == "__main__":
    main()
