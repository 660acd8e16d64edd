"""Steps of a long work: each is one of the project's programs, and is done once."""

import contextlib
import dataclasses
import functools
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from elo_tf import programs
from elo_tf.bin import configuration, supervisor
from elo_tf.errors import UserError

BACKDROPS = 0.8
CONVERTERS = 2
_TAIL = 4000  # bytes of a log in which the reason of a failure is looked for

_running: set[subprocess.Popen] = set()
_stopping = threading.Event()


class StepFailedError(UserError):
    """A step failed.

    Attributes:
      reason: what its program said, without where and when.
    """

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.message, self.reason)


@dataclasses.dataclass(frozen=True)
class Step:
    """One program of the project.

    Attributes:
      title: what it does.
      command: its module and flags.
      product: a file that is only there when it is done.
    """

    title: str
    command: tuple[str, ...]
    product: pathlib.Path

    def run(self, log: pathlib.Path | None = None) -> bool:
        """Runs it unless it is done.

        Args:
          log: file to which its output is added; None shows it.

        Returns:
          Whether there was something to do.

        Raises:
          StepFailedError: it has said why.
        """
        if self.product.exists():
            if log is None:
                print(f"\n=== {self.title}: done before", flush=True)
            return False
        if _stopping.is_set():
            raise StepFailedError(f"the step '{self.title}' was not begun", "stopped on request")
        # As one text, since other steps may print at the same time.
        print(f"\n=== {self.title}\n$ {programs.shown(*self.command)}\n", end="", flush=True)
        started = time.monotonic()
        code = self._call(log)
        if code:
            where = "above" if log is None else f"in {log}"
            reason = f"exit code {code}" if log is None else _reason(log)
            raise StepFailedError(
                f"the step '{self.title}' ended with exit code {code}"
                + ("" if log is None else f" ({reason})") + f"; what it printed is {where}, and "
                "the same command goes on from there", reason)
        if log is None:
            print(f"    {time.monotonic() - started:.0f} s", flush=True)
        return True

    def _call(self, log: pathlib.Path | None) -> int:
        with contextlib.ExitStack() as stack:
            output = None
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
                output = stack.enter_context(open(log, "a", encoding="utf-8"))
                output.write(f"=== {self.title}\n$ {programs.shown(*self.command)}\n")
                output.flush()
            # Out of sight, Ctrl-C does not reach it: `stop_all` asks once, and it saves.
            program, *flags = self.command
            process = subprocess.Popen(
                [sys.executable, "-m", programs.module(program), *flags],
                cwd=configuration.ROOT, stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                start_new_session=log is not None,
                # Where this process is killed, the next one finds nobody at work in the folder.
                preexec_fn=functools.partial(supervisor.end_with_parent, signal.SIGKILL))
            _running.add(process)
            try:
                if _stopping.is_set():  # After it was looked at last, and before this was known.
                    process.send_signal(signal.SIGTERM)
                return process.wait()
            finally:
                _running.discard(process)


def stop_all() -> None:
    """Asks the programs that this process has started to save and end; no step is begun again."""
    _stopping.set()
    for process in list(_running):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)


def _reason(log: pathlib.Path) -> str:
    """What the last program of a log said of its failure."""
    lines = [x.strip() for x in log.read_bytes()[-_TAIL:].decode("utf-8", "replace").splitlines()]
    lines = [x for x in lines if x]
    errors = [x.removeprefix("error: ") for x in lines if x.startswith("error: ")]
    # The last line of an exception, below which gin puts its call chain.
    errors = errors or [x for x in lines if re.match(r"[\w.]+(Error|Exception)\b", x)]
    return (errors or lines or ["it said nothing"])[-1]


def motion_videos(videos: pathlib.Path, records: pathlib.Path, product: pathlib.Path, *,
                  clips: Mapping[str, int], classes: int) -> Iterator[Step]:
    """Videos of classes that differ by motion and mostly by place, and their records.

    Args:
      videos: the folder to make them in.
      records: the folder of their records.
      product: see `Step`; of all steps.
      clips: how many, by split.
      classes: how many.
    """
    listed = ",".join(f"{split}:{count}" for split, count in clips.items())
    yield Step("make videos whose classes differ by motion and by where they happen", (
        "tools.make_videos", f"--output={videos}", f"--clips={listed}", f"--classes={classes}",
        f"--backdrops={BACKDROPS}", "--size=40", "--seconds=2.5", "--fps=12",
        f"--workers={CONVERTERS}"), product)
    for split in clips:
        yield convert(videos / f"{split}.csv", records, split, product)


def convert(source: pathlib.Path, records: pathlib.Path, split: str, product: pathlib.Path, *,
            fps: float = 12, min_side: int = 32, region: Sequence[float] | None = None,
            root: pathlib.Path | None = None) -> Step:
    """Conversion of a CSV file of videos, whose paths are below `root` or beside it."""
    return Step(f"convert {split} videos to records", (
        "tools.convert_videos", f"--input={source}", f"--output={records}", f"--split={split}",
        f"--fps={fps:g}", f"--min_side={min_side}", "--flow=dis", f"--workers={CONVERTERS}",
        *(() if region is None else (f"--region={','.join(f'{x:g}' for x in region)}",)),
        *(() if root is None else (f"--video_root={root}",))), product)
