"""What a user sees who got the configuration wrong: one line, no traceback, nothing lost."""

import pathlib
import subprocess
import sys

import gin
import pytest
from absl import flags
from absl.testing import flagsaver

from elo_tf import cli
from elo_tf.bin import configuration
from elo_tf.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]


def message(gin_files=(), bindings=()) -> str:
    """What `parse` says."""
    gin.clear_config()
    with pytest.raises(UserError) as caught:
        configuration.parse([str(x) for x in gin_files], list(bindings))
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(("binding", "expected"), [
    ("Proxi.steps = 3", "there is no 'Proxi'; did you mean Proxy?"),
    ("clipspec.frames = 3", "there is no 'clipspec'; did you mean ClipSpec?"),
    ("losses.LossSpac.floor = 1.0", "there is no 'losses.LossSpac'; did you mean LossSpace?"),
    ("Proxy.stepz = 3", "Proxy has no parameter 'stepz'; did you mean steps"),
    ("pretrain.weights = 3", "pretrain has no parameter 'weights'; did you mean loss_weights"),
    ("Proxy.records = @Recordz()", "there is no 'Recordz'; did you mean Records"),
    ("Xyzzy.plugh = 1", "there is no 'Xyzzy'"),
    ("pretrain.run_dir = 'x'", "pretrain.run_dir is set by the program"),
    ("steps = 30", "'steps = ...' names no owner, and nothing uses it as %steps; did you mean"),
    ("Proxy.steps", "not gin's syntax"),
    ("Proxy.steps = ", "not gin's syntax: Unable to parse value"),
    ("Proxy.steps = abc", "not gin's syntax: malformed node"),
    ("Proxy.steps = [3", "not gin's syntax"),
    ("Proxy.steps = %NOPE", "%NOPE is used but not defined"),
    ("Proxy.steps = 1e3", "Proxy.steps is 1000.0; it must be a whole number"),
    ("pretrain.steps = 'ten'", "pretrain.steps is 'ten'; it must be a whole number"),
    ("ClipSpec.fps = '8'", "ClipSpec.fps is '8'; it must be a number"),
    ("CMAES.population = 'x'", "CMAES.population is 'x'; it must be a whole number or None"),
    ("LossSpace.normalise = 'no'", "LossSpace.normalise is 'no'; it must be True or False"),
    ("ZipfFitness.normalisation = 'l3'", "is 'l3'; it must be one of 'none', "),
    ("pretrain.loss_weights = 0.5", "is 0.5; it must be a dictionary in braces"),
    ("audio_encoder.filters = 64", "audio_encoder.filters is 64; it must be a list in brackets"),
])
def test_a_wrong_binding_is_one_line(binding, expected):
    said = message(bindings=["ClipSpec.size = 32", binding])
    assert expected in said
    assert "Parameters for" not in said


def test_the_file_and_line_are_named(tmp_path):
    (tmp_path / "a.gin").write_text("# mine\n\nProxy.steps = 3\nProxi.steps = 3\n")
    assert message([tmp_path / "a.gin"]).startswith(f"{tmp_path}/a.gin, line 4: there is no")
    (tmp_path / "b.gin").write_text("\nProxy.steps = = 3\n")
    assert message([tmp_path / "b.gin"]).startswith(f"{tmp_path}/b.gin, line 2: not gin's syntax")
    (tmp_path / "c.gin").write_text("include 'there_is_no.gin'\n")
    assert message([tmp_path / "c.gin"]) == (
        f"{tmp_path}/c.gin, line 1: there is no file there_is_no.gin to include")
    (tmp_path / "d.gin").write_text(f"include '{tmp_path}/a.gin'\n")
    assert message([tmp_path / "d.gin"]).startswith(f"{tmp_path}/a.gin, line 4")
    (tmp_path / "e.gin").write_text("import there_is_no_module\n")
    assert "line 1: No module named 'there_is_no_module'" in message([tmp_path / "e.gin"])
    (tmp_path / "f.gin").write_text("Proxy.steps = (3,\n")
    assert message([tmp_path / "f.gin"]).startswith(f"{tmp_path}/f.gin: not gin's syntax: a bra")
    assert message([tmp_path / "g.gin"]).startswith(f"no gin file {tmp_path}/g.gin (looked here")
    assert message([tmp_path]).startswith(f"no gin file {tmp_path} (")


def test_later_files_and_bindings_win_and_includes_are_found(tmp_path):
    (tmp_path / "a.gin").write_text("include 'demo.gin'\nProxy.steps = %N\nN = 7\n")
    (tmp_path / "b.gin").write_text("ClipSpec.size = 48\n")
    configuration.parse([str(tmp_path / "a.gin"), str(tmp_path / "b.gin")],
                        ["ClipSpec.mel_bins = 16", "ClipSpec.fps = 5"])
    found = {name: gin.query_parameter(f"ClipSpec.{name}")
             for name in ("frames", "size", "mel_bins", "fps", "sample_rate")}
    assert found == {"frames": 8, "size": 48, "mel_bins": 16, "fps": 5, "sample_rate": 16000}
    with pytest.raises(RuntimeError, match="locked"):
        gin.parse_config("ClipSpec.size = 1")


@pytest.fixture
def start(tmp_path):
    """Calls `configuration.start` as a binary would."""
    if "data" not in flags.FLAGS:
        configuration.define_data_flag()

    def call(run_dir=tmp_path / "run", bindings=(), data=None, **options):
        gin.clear_config()
        # Another test of this process may have imported a tool, whose flag is required too.
        others = ["--output=unused"] if "output" in flags.FLAGS else []
        flags.FLAGS(["test", f"--run_dir={run_dir}", *others])
        with flagsaver.flagsaver(run_dir=str(run_dir), gin_bindings=list(bindings), data=data):
            return configuration.start(**options)

    with flagsaver.flagsaver():
        yield call


def test_a_run_of_another_configuration_is_refused_and_kept(start, tmp_path):
    run_dir = start(bindings=["pretrain.steps = 100", "ClipSpec.size = 32"])
    (run_dir / "losses.jsonl").write_text("precious")
    config = (run_dir / "config.gin").read_text()
    with pytest.raises(UserError) as caught:
        start(bindings=["pretrain.steps = 200", "ClipSpec.size = 32"])
    said = caught.value.message
    assert f"{run_dir} holds a run of another configuration; use another --run_dir" in said
    assert "- pretrain.steps = 100" in said and "+ pretrain.steps = 200" in said
    assert "size" not in said and "\n" not in said
    assert (run_dir / "config.gin").read_text() == config
    assert (run_dir / "losses.jsonl").read_text() == "precious"
    assert sorted(x.name for x in run_dir.iterdir()) == ["config.gin", "losses.jsonl"]
    # The same one is taken up again.
    assert start(bindings=["ClipSpec.size = 32", "pretrain.steps = 100"]) == run_dir


def test_the_flags_that_decide_the_result_are_configuration(start):
    run_dir = start(inputs={"encoder": "first/encoder"})
    (run_dir / "evaluation.json").write_text("{}")
    start(inputs={"encoder": "first/encoder"})
    with pytest.raises(UserError, match="- # --encoder=first/enc.*[+] # --encoder=second/encoder"):
        start(inputs={"encoder": "second/encoder"})
    start(run_dir.parent / "other", data="records")
    (run_dir.parent / "other" / "journal.jsonl").touch()
    with pytest.raises(UserError, match="- Records.directory = 'records'.*[+] Records.directory"):
        start(run_dir.parent / "other", data="recrods")


def test_a_run_that_never_began_does_not_claim_its_folder(start):
    run_dir = start(data="recrods")
    assert start(data="records") == run_dir
    assert "Records.directory = 'records'" in (run_dir / "config.gin").read_text()


def test_what_is_required_is_named(start, tmp_path):
    with pytest.raises(UserError, match="Records.directory is not set; give --data"):
        start(required=configuration.NEEDS_RECORDS)
    assert not (tmp_path / "run").exists()
    start(required=configuration.NEEDS_RECORDS, data="records")
    start(tmp_path / "scoped", bindings=["mine/Records.directory = 'x'"],
          required=configuration.NEEDS_RECORDS)


def test_a_folder_that_cannot_be_written_is_named(start, tmp_path):
    (tmp_path / "file").write_text("")
    for run_dir in (tmp_path / "file", tmp_path / "file" / "below", "/proc/there_is_no"):
        with pytest.raises(UserError, match=f"cannot write to --run_dir {run_dir}: "):
            start(run_dir)


def test_the_operative_configuration_of_a_finished_run_is_kept(start):
    run_dir = start()
    configuration.finish(run_dir)
    (run_dir / "operative_config.gin").write_text("as it was")
    configuration.finish(run_dir)
    assert (run_dir / "operative_config.gin").read_text() == "as it was"


@gin.configurable
def needs_a_value(value=gin.REQUIRED):
    return value


@gin.configurable
def fail_inside_gin(kind="user", path=None):
    if kind == "unset":
        needs_a_value()
    if kind == "user":
        raise UserError("the folder is empty; fill it")
    pathlib.Path(path).read_text()


@pytest.mark.parametrize(("kind", "expected"), [
    ("user", "error: the folder is empty; fill it\n"),
    ("unset", "error: needs_a_value.value is not set; set it, or what it is used for (such as "
     "pretrain.records = @MixedRecords())\n"),
    ("file", "error: No such file or directory: '/there/is/none'\n")])
def test_errors_that_pass_through_gin_are_one_line(monkeypatch, capsys, kind, expected):
    guarded = []
    monkeypatch.setattr(cli.app, "run", lambda main, **_: guarded.append(main))
    monkeypatch.setattr(cli.quiet, "configure_logging", lambda: None)
    cli.run(lambda argv: fail_inside_gin(kind, "/there/is/none"))
    assert guarded[0](["program"]) == 2
    assert capsys.readouterr().err == expected


def run(binary: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", f"elo_tf.bin.{binary}", *arguments], cwd=ROOT,
                          capture_output=True, text=True, timeout=120, check=False)


def test_a_missing_and_an_empty_folder_in_a_real_process(tmp_path):
    (tmp_path / "empty").mkdir()
    missing = run("search", f"--data={tmp_path}/nowhere", f"--run_dir={tmp_path}/run")
    assert missing.returncode == 2 and "Traceback" not in missing.stderr
    assert missing.stderr.splitlines()[-1] == (
        f"error: no folder {tmp_path}/nowhere; make one with tools/convert_videos")
    # The same run directory, with the mistake mended halfway.
    empty = run("search", f"--data={tmp_path}/empty", f"--run_dir={tmp_path}/run")
    assert empty.returncode == 2 and "Traceback" not in empty.stderr
    assert empty.stderr.splitlines()[-1] == (
        f"error: {tmp_path}/empty has no records of split 'unlabelled' (it has: no records at all)")
    assert [x.name for x in (tmp_path / "run").iterdir()] == ["config.gin"]


def test_a_bad_flag_value_in_a_real_process(tmp_path):
    bad = run("report", "--samples=many", f"--run_dir={tmp_path}/run")
    assert bad.returncode != 0 and "Traceback" not in bad.stderr
    assert "flag --samples=many" in bad.stderr
    assert not (tmp_path / "run").exists()
