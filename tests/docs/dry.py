"""Goes as far into commands as they can without work: flags, gin and what a program asks first.

A program of its own, for the libraries are imported once, and each program of the project is then
looked at in a fork: its flags would meet those of others. Reads from standard input, and writes to
standard output, JSON: {"commands": [[place, module, arguments]], "gin": [[place, text]],
"names": [[place, "Name.parameter"]]} -> [[place, what is wrong]].
"""

import contextlib
import difflib
import importlib
import io
import itertools
import json
import os
import pathlib
import sys
import tempfile
import traceback
from collections.abc import Sequence

import gin
from absl import flags

from elo_tf.bin import configuration, gin_checks
from elo_tf.errors import UserError


class ReachedError(Exception):
    """A program has read its configuration, and would begin to work."""


def check_command(module, arguments: Sequence[str], work: str) -> str:
    """What is wrong with a command of a program that is imported; "" if nothing is."""
    flags.FLAGS.unparse_flags()
    flags.FLAGS.mark_as_parsed()
    if "..." in " ".join(arguments):  # A part of a command: each flag by itself.
        return "; ".join(filter(None, map(_check_flag, arguments)))
    try:
        flags.FLAGS([module.__name__, *arguments])
    except flags.Error as error:
        return str(error)
    left = flags.FLAGS([module.__name__, *arguments])[1:]
    if left:
        return f"unexpected argument {left[0]!r}"
    if "gin_file" not in flags.FLAGS:
        return ""
    if "run_dir" in flags.FLAGS and flags.FLAGS.run_dir and hasattr(module, "main"):
        if "restarts" in flags.FLAGS:  # It would start the program again, as another one.
            flags.FLAGS.restarts = 0
        flags.FLAGS.run_dir = tempfile.mkdtemp(dir=work)
        try:
            module.main([module.__name__])
        except ReachedError:
            return ""
        except UserError as error:
            return error.message
        return "it ended before it had read its configuration"
    try:
        configuration.parse(flags.FLAGS.gin_file, flags.FLAGS.gin_bindings)
    except UserError as error:
        return error.message
    return ""


def _check_flag(argument: str) -> str:
    if not argument.startswith("--"):
        return ""
    name, _, value = argument[2:].partition("=")
    if name not in flags.FLAGS:
        positive = name.removeprefix("no")
        return "" if positive in flags.FLAGS else f"there is no flag --{name}"
    if value and "..." not in value:
        try:
            flags.FLAGS[name].parser.parse(value)
        except (ValueError, TypeError) as error:
            return f"--{name}: {error}"
    return ""


def check_commands(module: str, commands: Sequence[tuple[str, list[str]]], work: str
                   ) -> list[tuple[str, str]]:
    """Looks at all commands of one program, in this process."""
    real = configuration.start

    def start(*args, **kwargs):
        real(*args, **kwargs)
        raise ReachedError

    configuration.start = start
    try:
        program = importlib.import_module(module)
    except ImportError as error:
        return [(place, f"{module}: {error}") for place, _ in commands]
    if not any(x is configuration for x in vars(program).values()):
        for name in ("run_dir", "gin_file", "gin_bindings"):  # Of others, imported before.
            delattr(flags.FLAGS, name)
    found = []
    for place, arguments in commands:
        gin.clear_config()
        os.environ.pop("TF_CONFIG", None)
        with contextlib.redirect_stdout(io.StringIO()):
            wrong = check_command(program, arguments, work)
        if wrong:
            found.append((place, f"{module} {' '.join(arguments)}: {wrong}"))
    return found


def in_a_fork(function, *args):
    """The function's result, of a child of this process."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            result = function(*args)
        except BaseException:  # noqa: BLE001  (whatever it was, it is the command's problem)
            result = [(args[1][0][0], traceback.format_exc())]
        with os.fdopen(writer, "w") as pipe:
            json.dump(result, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        result = json.load(pipe)
    os.wait()
    return result


def check_gin(text: str) -> str:
    """What is wrong with bindings that follow the defaults."""
    gin.clear_config()
    path = pathlib.Path(tempfile.mkstemp(suffix=".gin")[1])
    path.write_text(text)
    try:
        configuration.parse([str(path)], [])
    except UserError as error:
        return error.message
    finally:
        path.unlink()
    return ""


def check_name(name: str) -> str:
    """What is wrong with `Name.parameter`, if Name is, or looks like, what gin configures."""
    owner, parameter = name.rsplit("/", 1)[-1].rsplit(".", 1)
    known = gin_checks.names()
    if owner not in known:
        close = difflib.get_close_matches(owner, known, n=1, cutoff=0.85)
        return f"there is no {owner}; did you mean {close[0]}?" if close else ""
    if parameter not in gin_checks.parameters(owner):
        return f"{owner} has no parameter {parameter}"
    return ""


def main() -> None:
    asked = json.load(sys.stdin)
    found = []
    with tempfile.TemporaryDirectory() as work:
        ordered = sorted(asked["commands"], key=lambda x: x[1])
        for module, group in itertools.groupby(ordered, key=lambda x: x[1]):
            commands = [(place, arguments) for place, _, arguments in group]
            found += in_a_fork(check_commands, module, commands, work)
        for check, items in ((check_gin, asked["gin"]), (check_name, asked["names"])):
            found += [(place, f"{text}: {wrong}") for place, text in items
                      if (wrong := check(text))]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
