"""Flags, gin and the run directory: what every binary does before its one call.

`gin/defaults.gin` is always read first, then the user's files, then the bindings; later ones win.
The configuration is written into the run directory, and a run directory of another configuration
is refused with the lines that differ.
"""

import contextlib
import difflib
import logging as python_logging
import pathlib
import tokenize
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import gin
from absl import flags, logging

from elo_tf import files, programs
from elo_tf.bin import (
    gin_checks,
    registered,  # noqa: F401  (imports all that gin can name)
)
from elo_tf.errors import UserError

ROOT = programs.CHECKOUT or pathlib.Path.cwd()
DEFAULTS = programs.GIN / "defaults.gin"
CONFIG = "config.gin"
OPERATIVE_CONFIG = "operative_config.gin"
NEEDS_RECORDS = MappingProxyType(
    {"Records.directory": "give --data, the folder that tools/convert_videos wrote"})
NOTHING: Mapping[str, str] = MappingProxyType({})

RUN_DIR = flags.DEFINE_string(
    "run_dir", None, "Folder of this run: all output goes there. Starting the same command again "
    "resumes an unfinished run.", required=True)
GIN_FILE = flags.DEFINE_multi_string(
    "gin_file", [], "Gin file, read after gin/defaults.gin; may be repeated, later files win.")
GIN_BINDINGS = flags.DEFINE_multi_string(
    "gin_bindings", [], "Gin binding such as 'pretrain.steps = 200'; may be repeated.")


def define_data_flag() -> None:
    """Adds --data to a binary that reads records."""
    flags.DEFINE_string(
        "data", None, "Folder of records that tools/convert_videos wrote; the same as the binding "
        "Records.directory = '...'.")


def start(required: Mapping[str, str] = NOTHING,
          inputs: Mapping[str, str] = NOTHING) -> pathlib.Path:
    """Parses the configuration and claims the run directory.

    Args:
      required: bindings without which there is nothing to do, and how to give each.
      inputs: flags that decide the result, by name; they count as part of the configuration.

    Returns:
      The run directory, made if missing.

    Raises:
      UserError: for a gin file or name that does not exist, or a run directory of another
        configuration.
    """
    parse(GIN_FILE.value, GIN_BINDINGS.value)
    data = flags.FLAGS["data"].value if "data" in flags.FLAGS else None
    if data is not None:
        with gin.unlock_config():
            gin.bind_parameter("Records.directory", data)
    for binding, mend in required.items():
        if not gin_checks.is_bound(binding):
            raise UserError(f"{binding} is not set; {mend}")
    run_dir = pathlib.Path(RUN_DIR.value)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        flag_lines = "".join(f"# --{name}={value}\n" for name, value in inputs.items())
        claim(run_dir, flag_lines + gin.config_str())
    except OSError as error:
        raise UserError(f"cannot write to --run_dir {run_dir}: {error.strerror}") from error
    return run_dir


def finish(run_dir: pathlib.Path) -> None:
    """Writes the values that were in effect, with those that came from defaults in the code."""
    path = run_dir / OPERATIVE_CONFIG
    if not path.exists():  # A finished run that is started again calls next to nothing.
        files.write_atomic(path, gin.operative_config_str())


def parse(gin_files: list[str], bindings: list[str]) -> None:
    """Reads the defaults, the files and the bindings, strictly.

    Raises:
      UserError: naming the file and what is wrong with it, with near misses for a name.
    """
    gin.add_config_file_search_path(str(programs.GIN))
    for path in gin_files:
        if not (pathlib.Path(path).is_file() or (programs.GIN / path).is_file()):
            raise UserError(f"no gin file {path} (looked here and in {programs.GIN})")
    with _without_gins_own_log():
        for path in [str(DEFAULTS), *gin_files]:
            _read(gin.parse_config_file, path, path)
        for binding in bindings:
            _read(gin.parse_config, binding, f"--gin_bindings={binding!r}")
        _read(lambda _: gin.finalize(), None, "gin")
    gin_checks.check_values()


def _read(parser: Callable[[str | None], object], text: str | None, source: str) -> None:
    try:
        parser(text)
    except (ValueError, SyntaxError, ImportError, OSError, tokenize.TokenError) as error:
        raise UserError(gin_checks.explain(error, source)) from error


@contextlib.contextmanager
def _without_gins_own_log() -> Iterator[None]:
    """Leaves out the line that gin logs about an included file before it raises the error."""
    root = python_logging.getLogger()

    def wanted(record: python_logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Path not found: ")

    root.addFilter(wanted)
    try:
        yield
    finally:
        root.removeFilter(wanted)


def claim(run_dir: pathlib.Path, config: str) -> None:
    """Writes the configuration into a new run directory, or compares it with what is there.

    A directory that holds a configuration and nothing else is new: its run ended before it began,
    by a wrong path for example.

    Raises:
      UserError: with the lines that differ.
    """
    path = run_dir / CONFIG
    if not path.exists() or [x.name for x in run_dir.iterdir()] == [CONFIG]:
        files.write_atomic(path, config)
        return
    ours, theirs = config.splitlines(), path.read_text(encoding="utf-8").splitlines()
    if ours == theirs:
        logging.info("%s holds a run of this configuration; resuming it", run_dir)
        return
    changed = [line for line in difflib.ndiff(theirs, ours)
               if line[:2] in ("- ", "+ ") and (line[2:6] == "# --" or line[2:3] not in ("", "#"))]
    raise UserError(
        f"{run_dir} holds a run of another configuration; use another --run_dir. "
        f"Lines that differ (- there, + asked for): {' | '.join(changed[:8])}"
        + (f" | and {len(changed) - 8} more" if len(changed) > 8 else ""))
