r"""Inspects record sets: are my records right, and what is in them?

All splits of a folder:

  python -m tools.inspect_records --records=records

One split, with a picture of six of its clips, and everything in a JSON file:

  python -m tools.inspect_records --records=records --split=train \
    --sheet=sheet.png --clips=6 --json=report.json

A quick look at the first ten records of each shard; single shards; records that were made by DMVR,
MediaSequence or anything else that writes SequenceExamples with their keys:

  python -m tools.inspect_records --records=records --limit=10
  python -m tools.inspect_records --records=records/train-00003-of-00010.tfrecord
  python -m tools.inspect_records --records=/data/hmdb_dmvr

Every record of every shard is read and checked: the file's framing and checksums, the keys and
their types, every frame and every flow image decoded, sizes, times, frame rates, sound, labels,
ids that occur twice, shards that are missing, and the counts of `<split>.json`. What is found is
printed with the shard, the number of the record in it (counted from 0) and its id. An error makes
a reader fail or learn something else than was meant; a warning may be meant so.

The exit code is 0 if there are no errors, 1 if there are, 2 if there is nothing to inspect.
"""

import collections
import json
import os

from absl import flags

from elo_tf import cli, files
from elo_tf.data import inspection
from elo_tf.data.inspection import summary as inspection_summary
from elo_tf.data.inspection.record_values import ERROR, WARNING
from elo_tf.errors import UserError

SHOWN = 20
"""Errors that are printed; the rest are in the JSON file."""

_RECORDS = flags.DEFINE_multi_string(
    "records", None, "Folder of records, or a shard; may be given several times.", required=True)
_SPLIT = flags.DEFINE_string("split", "", "Only this split; all by default.")
_SHEET = flags.DEFINE_string("sheet", None, "PNG file for a picture of some clips.")
_CLIPS = flags.DEFINE_integer("clips", 6, "How many clips the picture shows.", lower_bound=1,
                              upper_bound=60)
_JSON = flags.DEFINE_string("json", None, "JSON file for the table's figures and all problems.")
_LIMIT = flags.DEFINE_integer(
    "limit", 0, "Only the first so many records of each shard; 0 for all.", lower_bound=0)
_WORKERS = flags.DEFINE_integer(
    "workers", len(os.sched_getaffinity(0)),
    "Processes at most, each of which inspects one shard at a time; 0 for this one alone.",
    lower_bound=0)


def main(_: list[str]) -> int:
    """Inspects, prints, and gives the exit code."""
    if _SHEET.value and not _SHEET.value.lower().endswith(".png"):
        raise UserError(f"--sheet={_SHEET.value} is a PNG; let its name end with .png")
    sets = inspection.find_sets(_RECORDS.value, _SPLIT.value)
    total = sum(len(found.paths) for found in sets)
    with cli.progress(total=total, desc="inspecting", unit="shard") as bar:
        inspection.inspect(sets, workers=_WORKERS.value, limit=_LIMIT.value,
                           on_shard=lambda _: bar.update())
    print(inspection_summary.table(sets))
    problems = [problem for found in sets for problem in found.all_problems()]
    errors = [problem for problem in problems if problem.level == ERROR]
    _print_warnings([problem for problem in problems if problem.level == WARNING])
    _print_errors(errors)
    if _JSON.value:
        files.write_atomic(
            _JSON.value, json.dumps(inspection_summary.report(sets), indent=2) + "\n")
    if _SHEET.value:
        _draw(sets)
    return 1 if errors else 0


def _print_warnings(warnings: list[inspection.Problem]) -> None:
    """One line for each kind of warning, with the first record that has it."""
    counts = collections.Counter((problem.split, problem.check) for problem in warnings)
    for (split, check), count in counts.items():
        first = next(x for x in warnings if (x.split, x.check) == (split, check))
        times = f"{count} times in {split}, first in " if count > 1 else ""
        print(f"\nwarning ({check}): {times}{first.where}: {first.message}")


def _print_errors(errors: list[inspection.Problem]) -> None:
    for problem in errors[:SHOWN]:
        print(f"\nerror ({problem.check}): {problem.where}: {problem.message}")
    if errors[SHOWN:]:
        print(f"\nand {len(errors) - SHOWN} errors more" + (
            f", all in {_JSON.value}" if _JSON.value else "; --json=FILE writes all of them"))
    print("\n" + (f"{len(errors)} errors" if errors else "no errors"))


def _draw(sets: list[inspection.RecordSet]) -> None:
    """Draws clips without errors, evenly spread over the sets."""
    # Here, since the pictures need libraries that inspecting does without.
    from elo_tf.reporting import contact_sheet

    places = [place for found in sets for place in _sound_records(found)]
    if not places:
        print(f"no record is without errors: {_SHEET.value} is not drawn")
        return
    count = min(_CLIPS.value, len(places))
    chosen = [places[(2 * i + 1) * len(places) // (2 * count)] for i in range(count)]
    clips = [contact_sheet.read_clip(inspection.read_record(report, number), found.names,
                                     found.split) for found, report, number in chosen]
    folders = ", ".join(sorted({found.directory.resolve().name for found in sets}))
    contact_sheet.draw(clips, _SHEET.value,
                       title=f"{folders}: {count} of {len(places)} clips")
    print(f"{_SHEET.value} shows {count} clips")


def _sound_records(found: inspection.RecordSet) -> list[tuple]:
    """(set, shard's report, number) of each record without errors."""
    wrong = {(problem.shard, problem.record) for problem in found.all_problems()
             if problem.level == ERROR}
    return [(found, report, number) for report in found.reports
            for number in range(len(report.facts)) if (report.name, number) not in wrong]


if __name__ == "__main__":
    cli.run(main)
