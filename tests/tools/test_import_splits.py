"""The command line of import_splits, run as a user runs it, up to records of real clips."""

import pathlib
import shlex
import subprocess
import sys

from elo_tf.data import manifest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _run(*arguments):
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True,
                          text=True, timeout=300, check=False)


def _import(*arguments):
    return _run("tools.import_splits", *map(str, arguments))


def test_real_lists_and_real_clips(shared_splits, shared_videos, tmp_path):
    clips = {"wave": ["TrumanShow_wave_f_nm_np1_fr_med_26.avi",
                      "RATRACE_wave_f_nm_np1_fr_goo_37.avi",
                      "SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi"],
             "cartwheel": ["Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi"]}
    videos, out = tmp_path / "hmdb 51", tmp_path / "out"
    for label, names in clips.items():
        (videos / label).mkdir(parents=True)
        for name in names:
            found = next((shared_videos / "actions").glob(f"*{name}"))
            (videos / label / name).symlink_to(found)
    done = _import("--dataset=hmdb51", f"--splits={shared_splits / 'hmdb51_splits'}", "--fold=1",
                   f"--videos={videos}", f"--output={out}")
    assert done.returncode == 0, done.stderr
    table = [line.split() for line in done.stdout.splitlines()[:4]]
    assert table[1:] == [["train", "3570", "3570", "2", "3568", "51"],
                         ["test", "1530", "1530", "1", "1529", "51"],
                         ["unused", "1666", "1666", "1", "1665", "51"]]
    labels = (out / "labels.txt").read_text().splitlines()
    assert labels == sorted(labels) and len(labels) == 51
    found = manifest.read_manifest(out / "hmdb51_fold1_train.csv", video_root=videos)
    indices = manifest.label_map(tmp_path / "new", found.labels, found.label_file)
    assert [(e.id, indices[e.label]) for e in found.entries] == [
        (f"cartwheel/{clips['cartwheel'][0]}", labels.index("cartwheel")),
        (f"wave/{clips['wave'][1]}", labels.index("wave"))]
    missing = (out / "hmdb51_fold1_missing.csv").read_text().splitlines()
    assert len(missing) == 1 + 6766 - 4
    commands = [shlex.split(line) for line in done.stdout.splitlines() if "convert_videos" in line]
    assert [command[-2] for command in commands] == [
        "--split=unlabelled", "--split=train", "--split=test", "--split=unused"]
    assert all(command[:3] == ["python", "-m", "tools.convert_videos"] for command in commands)
    assert commands[1][3:5] == [f"--input={out / 'hmdb51_fold1_train.csv'}",
                                f"--video_root={videos}"]


def test_errors_are_one_line(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "wave_test_split1.txt").write_text("a.avi 1 \n")
    arguments = ("--dataset=hmdb51", f"--splits={tmp_path / 'lists'}", f"--videos={tmp_path}",
                 f"--output={tmp_path / 'out'}")
    done = _import(*arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and "3570" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = _import(*arguments, "--allow_other_counts")
    assert done.returncode == 2 and "none of the 1 listed videos" in done.stderr
    done = _import(*arguments[:2], "--videos=", "--output=x")
    assert done.returncode == 2 and "must not be empty" in done.stderr
    assert not (tmp_path / "out").exists()


def test_help_tells_of_each_data_set():
    shown = _import("--help").stdout
    for word in ("hmdb51", "ucf101", "kinetics", "SlowFast", "folders", "_unlabelled.csv",
                 "--fold", "--path_format", "--class_names", "allow_other_counts"):
        assert word in shown, word
