"""What a program says, and its exit code, where its command line is wrong."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = """
from absl import flags
from elo_tf import cli
from elo_tf.errors import UserError
NAME = flags.DEFINE_string("name", None, "A name.", required=True)
COUNT = flags.DEFINE_integer("count", 1, "How many of them.", lower_bound=0)


def main(_):
    if COUNT.value == 7:
        raise UserError("seven are too many; take six")
    return 1 if COUNT.value else 0


cli.run(main)
"""


def run(*options):
    done = subprocess.run([sys.executable, "-c", PROGRAM, *options], cwd=ROOT, text=True,
                          capture_output=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("options", "words"), [
    (["--name=x", "--cuont=2"], ["Unknown command line flag 'cuont'", "count"]),
    (["--name=x", "--count=two"], ["--count=two", "two"]),
    (["--name=x", "--count=-1"], ["--count", "-1", "non-negative"]),
    ([], ["--name", "must have a value"]),
    (["--name=x", "more"], ["unexpected argument 'more'"])])
def test_a_wrong_command_line_is_two_lines_and_exit_code_2(options, words):
    code, out, errors = run(*options)
    assert (code, out) == (2, "")
    assert errors.startswith("error: ") and "--help lists" in errors
    assert len(errors.splitlines()) <= 2 and all(word in errors for word in words), errors


def test_other_exit_codes_are_those_of_the_program():
    assert run("--name=x", "--count=0") == (0, "", "")
    assert run("--name=x") == (1, "", "")
    assert run("--name=x", "--count=7") == (2, "", "error: seven are too many; take six\n")
    code, out, _ = run("--help")
    assert code in (0, 1) and "How many of them." in out
