"""The tool itself, on records that the converter makes, and on broken ones."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from elo_tf.data import records, schema
from elo_tf.data.media import write as media_write

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def run(tool, *flags):
    return subprocess.run([sys.executable, "-m", f"tools.{tool}", *map(str, flags)], cwd=ROOT,
                          capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four clips of two classes in two shards, one of them with sound, by the converter."""
    videos = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for index in range(4):
        target = videos / ["run", "walk"][index % 2] / f"{index}.mp4"
        target.parent.mkdir(exist_ok=True)
        start = rng.integers(0, 256, (48, 64, 3), np.uint8)
        frames = np.stack([np.roll(start, 2 * t, axis=1) for t in range(20)])
        sound = 0.3 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000).astype(np.float32)
        media_write.write_video(target, frames, 10, *([sound] if index == 3 else []))
    output = tmp_path_factory.mktemp("records")
    done = run("convert_videos", f"--input={videos}", f"--output={output}", "--split=train",
               "--labels=folders", "--shards=2", "--fps=10", "--min_side=48", "--workers=0")
    assert done.returncode == 0, done.stderr
    return output


def column(text):
    """The figures of the first split by their names."""
    rows = [line.rsplit("  ", 1) for line in text.splitlines() if "  " in line.strip()]
    return {name.strip(): value.strip() for name, value in rows}


def test_what_the_converter_makes_is_right(folder, tmp_path):
    sheet, report = tmp_path / "sheet.png", tmp_path / "report.json"
    done = run("inspect_records", f"--records={folder}", f"--sheet={sheet}", f"--json={report}",
               "--clips=3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    figures = column(done.stdout)
    assert (figures["shards"], figures["clips"], figures["classes"]) == ("2", "4", "2")
    assert figures["frames, least / median / most"] == "20 / 20 / 20"
    assert figures["size, width x height"] == "64 x 48"
    assert (figures["with sound"], figures["with optical flow"], figures["with label"]) == (
        "25.0%", "100.0%", "100.0%")
    assert float(figures["loudness, dB, 5 / 50 / 95%"].split(" / ")[1]) == pytest.approx(
        20 * np.log10(0.3 / np.sqrt(2)), abs=1.0)
    # The frames move by two pixels to the right.
    assert float(figures["flow, px, 50 / 95 / 99 / 100%"].split(" / ")[0]) == pytest.approx(
        2.0, abs=0.2)
    assert (figures["errors"], figures["warnings"]) == ("0", "0")
    assert done.stdout.splitlines()[-2:] == ["no errors", f"{sheet} shows 3 clips"]
    written = json.loads(report.read_text())
    assert written["problems"] == []
    assert written["splits"]["train"]["clips"] == 4
    with PIL.Image.open(sheet) as image:
        assert image.format == "PNG"
        assert image.width == 2000


def test_a_wrong_record_is_named_and_the_exit_code_is_1(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = tmp_path / "train-00000-of-00002.tfrecord"
    first, *others = list(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator())
    example = tf.train.SequenceExample.FromString(first)
    features = example.feature_lists.feature_list[schema.IMAGE_ENCODED].feature
    features[0].bytes_list.value.extend(x.bytes_list.value[0] for x in features[1:])
    del features[1:]
    records.write_shard(shard, [example.SerializeToString(), *others])
    last = tmp_path / "train-00001-of-00002.tfrecord"
    last.write_bytes(last.read_bytes()[:-5])
    sheet = tmp_path / "sheet.png"
    done = run("inspect_records", f"--records={tmp_path}", f"--sheet={sheet}", "--clips=9")
    assert done.returncode == 1
    identity = example.context.feature[schema.EXAMPLE_ID].bytes_list.value[0].decode()
    assert (f"error (frames): train-00000-of-00002.tfrecord record 0 (id {identity!r}): "
            "all 20 pictures of image/encoded lie in one Feature") in done.stdout
    assert "error (framing): train-00001-of-00002.tfrecord record" in done.stdout
    assert "is cut off" in done.stdout
    assert "2 errors" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    # What is left without errors is drawn.
    assert sheet.exists()
    assert f"shows {4 - 2} clips" in done.stdout


def test_errors_of_the_user_are_one_line(tmp_path):
    for flags, words in ((("--records=/no/such/folder",), "does not exist"),
                         ((f"--records={tmp_path}",), "holds no record shards"),
                         ((f"--records={tmp_path}", "--sheet=sheet.jpg"), "is a PNG")):
        done = run("inspect_records", *flags)
        assert done.returncode == 2
        assert words in done.stderr
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1
