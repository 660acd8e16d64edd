"""The project's programs, as modules and as commands: in a checkout, and where it is installed.

A checkout has the tools in the folder tools/, as the module `tools.make_videos`; the package as it
is installed holds them as `elo_tf.tools.make_videos`, since `tools` is a name that others use too.
The gin files are in gin/ and in elo_tf/gin_files/. setup.py puts both there.
"""

import pathlib
import runpy
import shlex
import sys

PACKAGE = pathlib.Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "gin" / "defaults.gin").is_file() else None
GIN = CHECKOUT / "gin" if CHECKOUT else PACKAGE / "gin_files"


def module(name: str) -> str:
    """The name under which a program such as `tools.make_videos` is imported here."""
    return f"elo_tf.{name}" if CHECKOUT is None and name.startswith("tools.") else name


def shown(name: str, *arguments: str) -> str:
    """A program's command line, to be pasted into a shell."""
    if CHECKOUT is None:
        return shlex.join([f"elo-{name.rpartition('.')[2].replace('_', '-')}", *arguments])
    return shlex.join(["python", "-m", name, *arguments])


def main() -> None:
    """Runs the program that the installed command is named after, such as `elo-make-videos`."""
    if CHECKOUT is not None:  # installed with --editable
        sys.path.insert(0, str(CHECKOUT))
    name = pathlib.Path(sys.argv[0]).stem.removeprefix("elo-").replace("-", "_")
    kind = "elo_tf.bin" if (PACKAGE / "bin" / f"{name}.py").is_file() else "tools"
    runpy.run_module(module(f"{kind}.{name}"), run_name="__main__", alter_sys=True)
