"""Runs the methods of the paper's tables and writes the tables with our figures beside its own.

    # At a mini scale, on videos that it makes:
    python -m elo_tf.bin.tables --gin_file=tables/mini.gin --run_dir=tables

    # On your records, with the splits unlabelled, train and test:
    python -m elo_tf.bin.tables --gin_file=tables/mini.gin --run_dir=tables --data=/my/records

    # At the paper's scale, by its files alone:
    python -m elo_tf.bin.tables --run_dir=tables --data=/my/records --workers=ray

    # On clips whose labels.csv names a group for each, such as a person; groups are held out:
    python -m elo_tf.bin.tables --gin_file=tables/real.gin --run_dir=real --videos=/my/clips \
        --results=docs/results/real --name=my_clips

Each method, gin/papers/elo_cvpr2020/<method>.gin, is trained and evaluated; --gin_file is read
after its file. Searched methods take the loss of a search, see `tables.searches`. Every step is one
of the project's programs, printed as you would type it; its output is in the folder `logs`. Run it
again and it goes on where it stopped. After each method, what there is so far is written to
--results. A method that fails is reported with its reason, stops no other, and makes the exit
code 1.
"""

import json
import pathlib
import signal
from collections.abc import Sequence

import gin
import numpy as np
from absl import flags

from elo_tf import cli, files, provenance
from elo_tf.bin import configuration, tables_steps
from elo_tf.bin.tables_steps import Job, Steps, run_jobs
from elo_tf.data import schema
from elo_tf.data.parsing import video_key
from elo_tf.data.record_set import Records
from elo_tf.data.splits import folds
from elo_tf.data.streams import Stream
from elo_tf.errors import UserError
from elo_tf.reporting import tables, tables_figures, tables_findings
from elo_tf.reporting.scores import plural, scored
from elo_tf.reporting.tables import Plan
from elo_tf.search.search import BEST_LOSS

configuration.define_data_flag()
RESULTS = flags.DEFINE_string(
    "results", "docs/results/mini", "Folder for the tables, the JSON and the figures.")
NAME = flags.DEFINE_string("name", "tables", "Of the Markdown and the JSON file.")
WORKERS = flags.DEFINE_string(
    "workers", "1", "How many methods at a time, each in processes of its own; or ray, as many as "
    "the cluster has cores.")
RAY_ADDRESS = flags.DEFINE_string(
    "ray_address", None, "Of a running Ray cluster that sees the same files, with --workers=ray; "
    "by default Ray is started on this machine.")
IMAGENET_WEIGHTS = flags.DEFINE_string(
    "imagenet_weights", "", "Weights of a 2-D ResNet-50 for the method `imagenet`: a file, or "
    "'imagenet' to let Keras download them. Without, that method is not run.")
VIDEOS = flags.DEFINE_string(
    "videos", "", "Folder of clips with labels.csv (columns path, label, group), in place of "
    "--data.")
FOLDS = flags.DEFINE_integer(
    "folds", 0, "Of --videos; 0 holds out each group once.", lower_bound=0)


def main(argv: list[str]) -> int:
    """Runs all jobs."""
    del argv
    gin_flags = (*(f"--gin_file={_absolute(x)}" for x in configuration.GIN_FILE.value),
                 *(f"--gin_bindings={x}" for x in configuration.GIN_BINDINGS.value))
    if VIDEOS.value and flags.FLAGS.data:
        raise UserError("--videos and --data are both given; leave one of them out")
    run_dir = configuration.start(inputs={x.name: x.value for x in (VIDEOS, FOLDS)}).resolve()
    plan = gin.get_configurable(Plan)()
    data, bindings = _records(run_dir)
    steps = Steps(run_dir, data, plan, gin_flags, bindings=bindings,
                  imagenet_weights=_absolute(IMAGENET_WEIGHTS.value))
    _prepare(run_dir, data, plan, steps)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # As Ctrl-C: the steps save and end.
    failed = _run(run_dir, plan, steps)
    configuration.finish(run_dir)
    found = tables.read_tables(run_dir, plan)
    print("\n" + "\n".join(tables_findings.findings(found)))
    print(f"\nThe tables: {pathlib.Path(RESULTS.value, NAME.value)}.md")
    if failed:
        print(f"{plural(len(failed), 'job')} failed: " + "; ".join(
            f"{title}: {why}" for title, why in failed.items()))
    return 1 if failed else 0


def _records(run_dir: pathlib.Path) -> tuple[pathlib.Path, list[str]]:
    """The folder of the records, and the bindings that name the folds."""
    if flags.FLAGS.data:
        return pathlib.Path(flags.FLAGS.data).expanduser().resolve(), []
    if VIDEOS.value:
        return run_dir / "records", [f"evaluate.splits = {tables_steps.fold_splits(_folds())!r}"]
    if not configuration.GIN_FILE.value:
        raise UserError("at the paper's scale records are needed: give --data; or give "
                        "--gin_file=tables/mini.gin, to run on videos that are made")
    return run_dir / "records", []


def _videos() -> pathlib.Path:
    return pathlib.Path(VIDEOS.value).expanduser().resolve()


def _folds() -> int:
    """How many folds; the groups of each are `tools.make_folds`' affair."""
    return len(folds.assign(folds.read_list(_videos() / "labels.csv"), FOLDS.value))


def _prepare(run_dir: pathlib.Path, data: pathlib.Path, plan: Plan, steps: Steps) -> None:
    """Makes the records, where there are none yet, and counts their clips."""
    path = run_dir / tables.DATA
    if path.exists():
        return
    if VIDEOS.value:
        for step in steps.folds(_videos(), _folds()):
            step.run()
    elif not flags.FLAGS.data:
        for step in steps.motion_videos():
            step.run()
    files.write_atomic(path, json.dumps(_counts(Records(str(data)), plan.heldout), indent=1) + "\n")


def _counts(records: Records, heldout: Sequence[int]) -> dict[str, dict[str, int]]:
    """How many clips there are of each split, and how many are trained on by share held out."""
    clips, fit = {}, {}
    for split in records.splits():
        summary = pathlib.Path(records.directory, schema.summary_name(split))
        if summary.exists():
            clips[split] = json.loads(summary.read_text(encoding="utf-8"))["clips"]
        else:
            clips[split] = sum(1 for _ in Stream(records, split).once())
    if "unlabelled" in clips and heldout:
        keys = Stream(records, "unlabelled").once().map(lambda _, example: video_key(example) % 100)
        places = np.fromiter(keys.as_numpy_iterator(), int)
        fit = {str(percent): int((places >= percent).sum()) for percent in heldout}
    return {"clips": clips, "fit": fit}


def _run(run_dir: pathlib.Path, plan: Plan, steps: Steps) -> dict[str, str]:
    """Runs what is left to do, and writes the results after each job; gives the failures."""
    why_not: dict[str, str] = {}
    failed: dict[str, str] = {}
    ready: list[Job] = []
    for job in steps.jobs():
        lacking = "" if job.done else steps.lacking(job)
        if job.not_run:
            why_not[job.row] = job.not_run
        elif lacking:
            failed[job.title] = (
                f"no file {lacking}: make one by {steps.search_command(job.row)} and copy its "
                f"{BEST_LOSS} there, or name another by tables.searches")
            why_not[job.row] = f"failed: no file {pathlib.Path(lacking).name} of its search"
            print(f"{job.title}: {failed[job.title]}", flush=True)
        elif not job.done:
            ready.append(job)
    write_results(run_dir, plan, why_not)
    for count, (index, outcome) in enumerate(
            run_jobs(ready, WORKERS.value, RAY_ADDRESS.value), start=1):
        job = ready[index]
        if isinstance(outcome, Exception):
            failed[job.title] = str(getattr(outcome, "message", outcome))
            # The table is for everybody: it names no folder of this machine.
            reason = str(getattr(outcome, "reason", outcome)).replace(str(run_dir), "...")
            why_not[job.row] = f"failed: {' '.join(reason.split())}"
            said = f"failed: {failed[job.title]}"
        else:
            said = f"{outcome:.0f} s"
        found = write_results(run_dir, plan, why_not)
        scores = next(row.scores for row in found.rows if row.name == job.row)
        shown = ", ".join(f"{title} {scored(scores[x])}" for x, title in tables.MAIN.items()
                          if x in scores)
        print(f"[{count}/{len(ready)}] {job.title}: {said}" + (f" ({shown})" if shown else ""),
              flush=True)
    return failed


def write_results(run_dir: pathlib.Path, plan: Plan, why_not: dict[str, str]) -> tables.Tables:
    """Writes what there is so far: the tables, the JSON and the figures."""
    results = pathlib.Path(RESULTS.value)
    found = tables.read_tables(run_dir, plan, why_not)
    notes = scale(run_dir)
    files.write_atomic(results / f"{NAME.value}.md", tables.as_markdown(found, notes))
    stored = json.dumps(
        {"commit": provenance.commit(),
         "config": provenance.config_hash(
             (run_dir / configuration.CONFIG).read_text(encoding="utf-8"))}
        | tables.as_json(found, notes), indent=1)
    # For everybody: it names no folder of this machine.
    files.write_atomic(results / f"{NAME.value}.json", stored.replace(f"{run_dir}/", "") + "\n")
    for name, drawn in tables_figures.draw(found).items():
        files.write_atomic(results / f"{name}.svg", drawn)
    return found


def scale(run_dir: pathlib.Path) -> list[str]:
    """What is compared, and how far that is from the paper's scale."""
    if not configuration.GIN_FILE.value:
        return []
    ask = gin.query_parameter
    clips = json.loads((run_dir / tables.DATA).read_text(encoding="utf-8"))["clips"]
    folds: dict[str, list[int]] = {}
    for split, count in clips.items():
        folds.setdefault(split.rstrip("0123456789"), []).append(count)
    listed = ", ".join(
        f"{counts[0]} {split}" if len(counts) == 1 else
        f"{sum(counts) / len(counts):g} {split} in each of {len(counts)} folds"
        for split, counts in folds.items())
    return [
        f"Clips of {ask('ClipSpec.frames')} frames of {ask('ClipSpec.size')} x "
        f"{ask('ClipSpec.size')} pixels, {ask('ClipSpec.fps'):g} a second ({listed}); networks of "
        f"depth {ask('video_encoder.depth')} and {ask('video_encoder.width'):g} times the width; "
        f"{ask('pretrain.steps')} steps of {ask('pretrain.batch_size')} clips. The paper's are "
        "ResNet-50s trained for 100 epochs on two million videos of 32 frames of 224 x 224 pixels: "
        "its figures are of another scale and other videos, and only orders may be compared."]


def _absolute(path: str) -> str:
    """A file as every program finds it: one of the project's keeps its name."""
    found = pathlib.Path(path)
    return str(found.resolve()) if path and found.is_file() else path


if __name__ == "__main__":
    cli.run(main)
