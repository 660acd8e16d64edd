"""Flags, gin and the run directory: what every binary does before its one call.

`gin/defaults.gin` is always read first, then the user's files, then the bindings; later ones win.
The configuration is written into the run directory, and a run directory of another configuration
is refused with the lines that differ.
"""

import difflib
import pathlib
import re

import gin
from absl import flags, logging

from elo_tf import files
from elo_tf.bin import registered  # noqa: F401  (imports all that gin can name)
from elo_tf.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DEFAULTS = ROOT / "gin" / "defaults.gin"
CONFIG = "config.gin"
OPERATIVE_CONFIG = "operative_config.gin"

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


def start() -> pathlib.Path:
    """Parses the configuration and claims the run directory.

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
    run_dir = pathlib.Path(RUN_DIR.value)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make --run_dir {run_dir}: {error.strerror}") from error
    claim(run_dir, gin.config_str())
    return run_dir


def finish(run_dir: pathlib.Path) -> None:
    """Writes the values that were in effect, with those that came from defaults in the code."""
    files.write_atomic(run_dir / OPERATIVE_CONFIG, gin.operative_config_str())


def parse(gin_files: list[str], bindings: list[str]) -> None:
    """Reads the defaults, the files and the bindings, strictly.

    Raises:
      UserError: naming the file and what is wrong with it, with near misses for a name.
    """
    gin.add_config_file_search_path(str(ROOT / "gin"))
    paths = [str(DEFAULTS), *gin_files]
    for path in gin_files:
        if not (pathlib.Path(path).is_file() or (ROOT / "gin" / path).is_file()):
            raise UserError(f"no gin file {path} (looked here and in {ROOT / 'gin'})")
    try:
        gin.parse_config_files_and_bindings(paths, bindings, finalize_config=True)
    except (ValueError, SyntaxError, OSError) as error:
        raise UserError(explain(error)) from error


def explain(error: Exception) -> str:
    """One line for what gin says, with the names the user may have meant."""
    text = " ".join(str(error).split())
    unknown = re.search(r"No configurable matching '([^']+)'", text)
    if unknown:
        return f"gin: there is no {unknown[1]!r}{near(unknown[1], names())}. {place(text)}"
    parameter = re.search(r"doesn't have a parameter (?:named )?'?(\w+)'?", text)
    owner = re.search(r"[Cc]onfigurable '?([\w./]+)'?", text)
    if parameter and owner:
        return (f"gin: {owner[1]} has no parameter {parameter[1]!r}"
                f"{near(parameter[1], parameters(owner[1]))}. {place(text)}")
    return f"gin: {text}"


def place(text: str) -> str:
    """Where in the configuration gin found the fault, as far as it says so."""
    match = re.search(r"In (?:file|bindings)[^:]*(?:\"[^\"]*\"|string)?[^\n]{0,200}", text)
    return match[0].strip() if match else text


def near(name: str, known: list[str]) -> str:
    """The known names that look like `name`."""
    matches = difflib.get_close_matches(name.rsplit(".", 1)[-1], known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def names() -> list[str]:
    """What gin can configure, by short name."""
    # gin-config has no public list of what is registered.
    return sorted({selector.rsplit(".", 1)[-1] for selector in gin.config._REGISTRY})


def parameters(selector: str) -> list[str]:
    """The parameters of a configurable."""
    import inspect

    try:
        return list(inspect.signature(gin.get_configurable(selector)).parameters)
    except ValueError:
        return []


def claim(run_dir: pathlib.Path, config: str) -> None:
    """Writes the configuration into a new run directory, or compares it with what is there.

    Raises:
      UserError: with the lines that differ.
    """
    path = run_dir / CONFIG
    if not path.exists():
        files.write_atomic(path, config)
        return
    ours, theirs = config.splitlines(), path.read_text(encoding="utf-8").splitlines()
    if ours == theirs:
        logging.info("%s holds a run of this configuration; resuming it", run_dir)
        return
    changed = [line for line in difflib.ndiff(theirs, ours)
               if line[:2] in ("- ", "+ ") and line[2:].strip() and not line[2:].startswith("#")]
    raise UserError(
        f"{run_dir} holds a run of another configuration; use another --run_dir. "
        f"Lines that differ (- there, + asked for): {' | '.join(changed[:8])}"
        + (f" | and {len(changed) - 8} more" if len(changed) > 8 else ""))
