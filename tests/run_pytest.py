"""Runs pytest on what the arguments name: the main of every py_test in the BUILD files."""

import os
import sys

import pytest


def main() -> int:
    """Runs the tests in the current directory, Bazel's copy of the project."""
    # Python puts this script's folder first, where tools/ would be the tests of the tools.
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path = [x for x in sys.path if os.path.abspath(x) != here]
    arguments = ["--rootdir=.", "-p", "no:cacheprovider", *sys.argv[1:]]
    if "XML_OUTPUT_FILE" in os.environ:
        arguments.append(f"--junit-xml={os.environ['XML_OUTPUT_FILE']}")
    if "TESTBRIDGE_TEST_ONLY" in os.environ:  # bazel test --test_filter=...
        arguments += ["-k", os.environ["TESTBRIDGE_TEST_ONLY"]]
    return pytest.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
