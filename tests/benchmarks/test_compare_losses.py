"""Losses beside each other, as a process of its own: its flags are those of other programs too."""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINDINGS = (
    "ClipSpec.frames = 4", "ClipSpec.next_frames = 2", "ClipSpec.size = 16", "ClipSpec.fps = 4.0",
    "ClipSpec.host_size = 0", "ClipSpec.other_gap = 0.2", "video_encoder.depth = 10",
    "video_encoder.width = 0.0625", "PretrainingModel.names = ('rgb/predict', 'rgb/shuffle')",
    "Proxy.steps = 4", "Proxy.looks = (2,)", "Proxy.batch_size = 4", "ZipfFitness.k = 2",
    "WeakFitness.k = 2", "LinearProtocol.max_iter = 50")


def program(module, *arguments):
    return subprocess.run([sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT,
                          capture_output=True, text=True, timeout=300, check=False)


def test_every_loss_is_trained_once_and_looked_at_as_often_as_asked(tmp_path):
    videos, records, output = tmp_path / "videos", tmp_path / "records", tmp_path / "out.jsonl"
    made = program("tools.make_videos", f"--output={videos}", "--clips=unlabelled:40,train:20",
                   "--classes=2", "--size=16", "--seconds=2", "--fps=4", "--workers=1")
    assert made.returncode == 0, made.stderr[-2000:]
    for split in ("unlabelled", "train"):
        made = program("tools.convert_videos", f"--input={videos / split}.csv",
                       f"--output={records}", f"--split={split}", "--fps=4", "--min_side=16",
                       "--workers=1")
        assert made.returncode == 0, made.stderr[-2000:]

    def compare(*losses):
        return program("benchmarks.compare_losses", f"--data={records}", f"--output={output}",
                       *(f"--losses={x}" for x in losses),
                       *(f"--gin_bindings={x}" for x in BINDINGS))

    done = compare("rgb/predict", "rgb/predict=0.5 rgb/shuffle")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(x) for x in output.read_text().splitlines()]
    assert [x["losses"] for x in lines] == [
        "untrained", "rgb/predict", "rgb/predict=0.5 rgb/shuffle"]
    assert [list(x["looks"]) for x in lines] == [["0"], ["2", "4"], ["2", "4"]]
    assert all(0 <= y["linear"] <= 1 and 0.5 <= y["kmeans"] <= 1
               for x in lines for y in x["looks"].values())
    assert list(lines[1]["raw"]) == ["rgb/predict"]

    before = output.read_bytes()
    wrong = compare("rgb/predict", "rgb/jump")
    assert wrong.returncode and "there is no loss 'rgb/jump'" in wrong.stderr
    assert output.read_bytes() == before


def test_a_weight_that_is_no_number_is_refused_at_once(tmp_path):
    done = program("benchmarks.compare_losses", "--losses=rgb/predict=much",
                   f"--output={tmp_path / 'out.jsonl'}", f"--data={tmp_path}")
    assert done.returncode and "'much' is not a number" in done.stderr
