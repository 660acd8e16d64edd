"""The jobs of bin/tables, and a run of the real programs of some methods at the smallest size."""

import json
import pathlib
import subprocess
import sys
import time

import gin
import pytest

from elo_tf.bin import configuration, steps, tables_steps
from elo_tf.bin.steps import Step
from elo_tf.bin.tables_steps import Job, Steps, run_jobs
from elo_tf.errors import UserError
from elo_tf.reporting.tables import METHODS, Plan

ROOT = configuration.ROOT


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def contents(path):
    """Of a file that may vanish."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def jobs(tmp_path, weights="", **options):
    of = Steps(tmp_path, tmp_path / "records", Plan(**options), ("--gin_file=tables/mini.gin",),
               imagenet_weights=weights, bindings=("evaluate.splits = (('train1', 'test1'),)",))
    return of, list(of.jobs())


def test_a_job_for_every_method_and_seed(tmp_path):
    _, found = jobs(tmp_path, seeds=(1, 2))
    assert len(found) == 2 * (len(METHODS) + 4)
    assert {x.row for x in found[:26]} == set(METHODS)
    products = [step.product for job in found for step in job.steps]
    assert len(set(products)) == len(products) == 2 * 2 * 27
    by_title = {x.title: x for x in found}
    train, evaluate = by_title["Frame shuffle, seed 2"].steps
    # The scale's file after the method's own, so that it wins.
    files = [x for x in train.command if x.startswith("--gin_file")]
    assert files == ["--gin_file=papers/elo_cvpr2020/frame_shuffle.gin",
                     "--gin_file=tables/mini.gin"]
    assert train.command[0] == "elo_tf.bin.pretrain"
    assert "--gin_bindings=pretrain.seed = 2" in train.command
    assert f"--encoder={tmp_path}/pretrain/frame_shuffle-2/encoder" in evaluate.command
    assert "--gin_bindings=evaluate.label_curve = @LabelCurve()" in evaluate.command
    for step in (train, evaluate):
        assert "--gin_bindings=evaluate.splits = (('train1', 'test1'),)" in step.command
    assert not any("label_curve" in x for x in by_title["OPN, seed 1"].steps[1].command)
    assert by_title["Scratch, seed 1"].steps[0].command[0] == "elo_tf.bin.initial"
    assert by_title["ImageNet, seed 1"].not_run == "not run: no weights file given"
    # The searched loss last, so that nothing takes its place.
    files = [x for x in by_title["ELo, seed 1"].steps[0].command if x.startswith("--gin_file")]
    assert files[-1] == f"--gin_file={ROOT}/docs/results/mini/search/elo/best_loss.gin"
    few = by_title["ELo, seed 1, 5% of the unlabelled clips"]
    assert "--gin_bindings=Records.heldout_percent = 95" in few.steps[0].command
    assert "--gin_bindings=evaluate.protocols = (@LinearProtocol(),)" in few.steps[1].command
    assert any("random_weights.seed = 2" in x
               for x in by_title["Random loss, seed 2"].steps[0].command)


def test_imagenet_is_run_where_there_are_weights(tmp_path):
    _, (job,) = jobs(tmp_path, "/w/resnet.h5", rows=("imagenet",))
    assert "--gin_bindings=inflated_resnet50.weights = '/w/resnet.h5'" in job.steps[0].command
    assert not job.not_run and not job.done


def test_one_frame_alone_is_an_evaluation_more(tmp_path):
    _, (job,) = jobs(tmp_path, rows=("opn",), static=True)
    alone = job.steps[2]
    assert "--gin_bindings=evaluate.static = True" in alone.command
    assert "--gin_bindings=evaluate.finetune = None" in alone.command
    assert alone.product == tmp_path / "evaluate" / "opn-1-static" / "evaluation.json"
    assert f"--encoder={tmp_path}/pretrain/opn-1/encoder" in alone.command


def test_a_search_that_is_not_there_is_named(tmp_path):
    of, (job,) = jobs(tmp_path, rows=("elo_weak",), searches={"elo_weak": "no/best_loss.gin"})
    assert of.lacking(job) == "no/best_loss.gin"
    assert "Fitness.guide = 'weak'" in of.search_command("elo_weak")
    (tmp_path / "best_loss.gin").touch()
    of, (job,) = jobs(tmp_path, rows=("elo_weak",),
                      searches={"elo_weak": str(tmp_path / "best_loss.gin")})
    assert of.lacking(job) == ""


def made(tmp_path, name, clips):
    step = Step(f"make {name}", (
        "tools.make_videos", f"--output={tmp_path / name}", f"--clips=train:{clips}", "--size=16",
        "--seconds=0.5", "--fps=8", "--classes=2"), tmp_path / name / "train.csv")
    return Job("elo", name, (step,), tmp_path / "logs" / f"{name}.log")


@pytest.mark.parametrize("workers", ["2", pytest.param("ray", marks=pytest.mark.soak)])
def test_a_job_that_fails_stops_no_other(tmp_path, workers):
    work = [made(tmp_path, "bad", 0), made(tmp_path, "good", 2), made(tmp_path, "better", 2)]
    outcomes = dict(run_jobs(work, workers))
    assert isinstance(outcomes[0], UserError) and outcomes[1] > 0 and outcomes[2] > 0
    # Its reason is what the program said, which stands in the log with the command.
    assert "--clips" in outcomes[0].message and "ended with exit code 2" in outcomes[0].message
    log = work[0].log.read_text()
    assert "$ python -m tools.make_videos" in log and "error: " in log
    assert "--clips" in outcomes[0].reason and "exit code" not in outcomes[0].reason
    assert [x.done for x in work] == [False, True, True]


def test_no_worker_is_refused(tmp_path):
    with pytest.raises(UserError, match="--workers=0"):
        list(run_jobs([made(tmp_path, "good", 2)], "0"))


def test_stopping_ends_the_programs_and_begins_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "_stopping", type(steps._stopping)())
    slow = Step("make many", (
        "tools.make_videos", f"--output={tmp_path / 'many'}", "--clips=train:50000"),
        tmp_path / "many" / "train.csv")
    work = [made(tmp_path, "first", 1), Job("elo", "slow", (slow,), tmp_path / "slow.log"),
            made(tmp_path, "last", 1)]
    running = run_jobs(work, "1")
    assert next(running)[0] == 0
    running.close()
    assert not steps._running and not work[1].done and not work[2].done


def test_a_kill_leaves_no_program_behind(tmp_path):
    work = (
        "import pathlib\n"
        "from elo_tf.bin.steps import Step\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "Step('make many', ('tools.make_videos', f'--output={folder}/many', '--workers=1',"
        " '--clips=train:50000'), folder / 'many' / 'train.csv').run(folder / 'many.log')\n")
    process = subprocess.Popen([sys.executable, "-c", work], cwd=ROOT, stdout=subprocess.DEVNULL)

    def programs_at_work():
        return [int(x.parent.name) for x in pathlib.Path("/proc").glob("[0-9]*/cmdline")
                if f"--output={tmp_path}/many".encode() in contents(x)]

    wait_for(lambda: list(tmp_path.glob("many/train/*.mp4")))
    assert programs_at_work()
    process.kill()
    process.wait()
    wait_for(lambda: not programs_at_work())


def test_the_shipped_scales_make_plans():
    for name, seeds in (("mini", 1), ("real", 3), ("real_sound", 2), ("lips", 2)):
        gin.clear_config()
        configuration.parse(["papers/elo_cvpr2020/elo.gin", f"tables/{name}.gin"], [])
        plan = gin.get_configurable(Plan)()
        assert len(plan.seeds) == seeds and plan.static == (name != "mini")
        # Nothing of the paper's size is left.
        assert gin.query_parameter("PretrainingModel.precision") == "float32"
        assert gin.query_parameter("ClipSpec.frames") * gin.query_parameter("ClipSpec.size") <= 448
        assert gin.query_parameter("pretrain.steps") <= 800


@pytest.fixture(scope="module")
def run(workshop):
    """A finished run of some methods, and its command."""
    (workshop.root / "tables.gin").write_text(f"""
include 'tables/mini.gin'
include '{workshop.root}/tiny.gin'
tables.rows = ('scratch', 'imagenet', 'predict_4_frames', 'elo')
tables.searches = {{'elo': '{workshop.root}/missing.gin'}}
tables.curve_rows = ('scratch',)
tables.heldout = ()
pretrain.steps = 4
pretrain.keep_best = 0
evaluate.seeds = (0,)
evaluate.windows = 1
Finetune.steps = 4
Finetune.head_warmup_steps = 2
LabelCurve.finetune = None
""")
    command = [sys.executable, "-m", "elo_tf.bin.tables", f"--gin_file={workshop.root}/tables.gin",
               f"--data={workshop.root}/records", f"--run_dir={workshop.root}/tables",
               f"--results={workshop.root}/results", "--workers=2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500,
                          check=False)
    return workshop.root, command, done


def test_the_programs_of_some_methods(run):
    root, command, done = run
    # ELo's loss is missing; the others ran all the same.
    assert done.returncode == 1, done.stderr[-3000:]
    assert f"1 job failed: ELo, seed 1: no file {root}/missing.gin: make one by" in done.stdout
    stored = json.loads((root / "results" / "tables.json").read_text())
    rows = {row["name"]: row for row in stored["rows"]}
    assert rows["imagenet"]["why_not"] == "not run: no weights file given"
    assert rows["elo"]["why_not"] == "failed: no file missing.gin of its search"
    for name in ("scratch", "predict_4_frames"):
        scores = rows[name]["scores"]
        assert {"kmeans", "linear", "knn", "retrieval@1", "finetune"} <= set(scores), name
        evaluation = json.loads((root / "tables" / "evaluate" / f"{name}-1" / "evaluation.json")
                                .read_text())
        assert scores["linear"]["mean"] == next(
            x["mean"] for x in evaluation["rows"] if x["protocol"] == "linear")
    assert [x["name"] for x in stored["label_curves"]] == ["scratch"]
    # What is to be shown to others names no folder of this machine.
    for path in (root / "results").iterdir():
        assert str(root) not in path.read_text(), path
    assert (root / "results" / "figure_5.svg").exists()
    table = (root / "results" / "tables.md").read_text()
    assert "| ImageNet (not run: no weights file given) |" in table and "12 test" in table

    before = (root / "results" / "tables.json").read_bytes()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500,
                           check=False)
    assert again.returncode == 1 and "$ python -m" not in again.stdout
    assert (root / "results" / "tables.json").read_bytes() == before


def test_real_clips_with_groups_held_out(workshop, shared_videos, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    source = shared_videos / "weizmann"
    header, *lines = (source / "labels.csv").read_text().splitlines()
    kept = [x for x in lines if "subj01" in x or "subj02" in x][:8]
    (videos / "labels.csv").write_text("\n".join([header, *kept]) + "\n")
    for line in kept:
        path = videos / line.split(",")[0]
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(source / line.split(",")[0])
    (tmp_path / "real.gin").write_text(f"""
include 'tables/real.gin'
include '{workshop.root}/tiny.gin'
tables.rows = ('scratch',)
tables.seeds = (1,)
evaluate.finetune = None
evaluate.seeds = (0,)
""")
    done = subprocess.run(
        [sys.executable, "-m", "elo_tf.bin.tables", f"--gin_file={tmp_path}/real.gin",
         f"--videos={videos}", f"--run_dir={tmp_path}/run", f"--results={tmp_path}/results",
         "--name=weizmann"], cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    stored = json.loads((tmp_path / "results" / "weizmann.json").read_text())
    (evaluation,) = [x for name, x in stored["evaluations"].items() if name == "scratch-1"]
    assert [(x["train"], x["test"]) for x in evaluation["splits"]] == [
        ("train1", "test1"), ("train2", "test2")]
    assert stored["rows"][0]["static"].keys() >= {"kmeans", "linear"}
    assert tables_steps.fold_splits(2) == (("train1", "test1"), ("train2", "test2"))
