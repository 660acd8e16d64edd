"""What every command-line program of the project shares: clear errors and progress."""

import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import tqdm
from absl import app, flags, logging

from elo_tf import quiet
from elo_tf.errors import Stopped, UserError

USER_ERROR_EXIT_CODE = 2


def run(main: Callable[[list[str]], Any]) -> None:
    """Runs `main` under absl; an error that the user can mend becomes one line and exit code 2."""

    def guarded(argv: list[str]) -> Any:
        quiet.configure_logging()
        try:
            if len(argv) > 1:
                raise UserError(f"unexpected argument {argv[1]!r}; options start with --, and "
                                "--help lists them")
            return main(argv)
        except UserError as error:
            logging.flush()
            print(f"error: {error.message}", file=sys.stderr)
            return USER_ERROR_EXIT_CODE
        except Stopped as stopped:
            logging.flush()
            print(stopped.message, file=sys.stderr)
            return stopped.exit_code
        except RuntimeError as error:
            # What gin says of a value that has no default, as of a second `@Records()`.
            unset = re.match(r"Required bindings for `([\w./]+)` not provided in config: \[(.+)\]",
                             str(error))
            if unset is None:
                raise
            logging.flush()
            names = ", ".join(f"{unset[1]}.{x}" for x in re.findall(r"\w+", unset[2]))
            print(f"error: {names} is not set; set it, or what it is used for (such as "
                  "pretrain.records = @MixedRecords())", file=sys.stderr)
            return USER_ERROR_EXIT_CODE
        except OSError as error:
            # A missing folder, no right to write, a full disk: the file and the reason say it all.
            # They are read from the text, since gin replaces errors by copies without attributes.
            reason = re.match(r"\[Errno \d+\] ([^\n]+)", str(error))
            if reason is None:
                raise
            logging.flush()
            print(f"error: {reason[1]}", file=sys.stderr)
            return USER_ERROR_EXIT_CODE
        except KeyboardInterrupt:
            print("interrupted; the same command resumes where it stopped", file=sys.stderr)
            return 130

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    """Sets the flags; one that is wrong ends the program as other errors of the user do."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(f"error: {error}\n--help lists the options", file=sys.stderr)
        sys.exit(USER_ERROR_EXIT_CODE)


def progress(iterable: Iterable | None = None, *, total: int | None = None, initial: int = 0,
             desc: str = "", unit: str = "it") -> tqdm.tqdm:
    """A progress bar on standard error, with rate and time left.

    What was done before, `initial` of `total`, does not count for the rate.

    Without a terminal it prints a line every few seconds instead of redrawing one.
    """
    interactive = sys.stderr.isatty()
    return tqdm.tqdm(
        iterable, total=total, initial=initial, desc=desc, unit=unit, file=sys.stderr,
        dynamic_ncols=interactive, mininterval=0.2 if interactive else 5.0)
