"""Videos to embeddings, beside what the SavedModel gives for frames that PyAV decodes."""

import csv
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import av
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from av.video.reformatter import Interpolation

from elo_tf.data import conversion
from elo_tf.errors import UserError
from elo_tf.serving import embedding_store, embeddings, saved_model, video_windows
from tests.docs import reading
from tests.serving.conftest import CROP, FPS, FRAMES, SIZE, make_video

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SIDE = round(SIZE / CROP)
GOOD = ["a/long.mp4", "a/wide.mp4", "b/short.mp4", "b/small.mp4", "b/tall.mp4", "c.mp4"]
# Source frames, at 8 a second, of which clips of 4 frames at 4 a second begin; see `clip_of`.
# a/long: 43 frames are 21 at 4 a second, so that the last of three begins at 17, less a rest of 1.
STARTS = {"a/long.mp4": [0, 16, 32], "a/wide.mp4": [0, 16, 32], "b/short.mp4": [0],
          "b/small.mp4": [0, 8, 16], "b/tall.mp4": [0, 16, 32], "c.mp4": [0, 10, 20]}


def embed(exported, source, output, *, windows=3, per_window=False, workers=0, batch_size=4,
          **options):
    return embeddings.embed_folder(
        str(exported), str(source), str(output), clips=embeddings.Clips(windows, per_window),
        effort=embeddings.Effort(workers, batch_size, conversion.Limits(120.0, 2.0)), **options)


def read(output):
    return pd.read_parquet(output / "embeddings.parquet")


def matrix(output):
    return np.stack(read(output)["embedding"])


def decoded(path, side=SIDE):
    """All frames uint8 [T, h, w, 3], the shorter side `side` pixels."""
    with av.open(str(path)) as container:
        frames = []
        for frame in container.decode(video=0):
            scale = side / min(frame.width, frame.height)
            frames.append(frame.reformat(
                round(frame.width * scale), round(frame.height * scale), "rgb24",
                interpolation=Interpolation.AREA if scale < 1 else Interpolation.BILINEAR,
            ).to_ndarray())
    return np.stack(frames)


def clip_of(frames, start):
    """4 frames from `start` on, every second one; a video that ends before begins again."""
    shown = frames[start::2]
    return np.stack([shown[i % len(shown)] for i in range(FRAMES)])


@pytest.fixture(scope="module")
def expected(exported, videos):
    """For each video the embedding of each of its three clips, by the model alone."""
    model = tf.saved_model.load(str(exported / "1"))
    return {name: np.concatenate([
        model.signatures["embed"](frames=tf.constant(clip_of(decoded(videos / name), start)[None]))
        ["embedding"].numpy() for start in STARTS[name]]) for name in GOOD}


@pytest.fixture(scope="module")
def embedded(exported, videos, tmp_path_factory):
    """The folder, by two processes and batches of five, and the summary."""
    output = tmp_path_factory.mktemp("embedded") / "out"
    return output, embed(exported, videos, output, workers=2, batch_size=5, shard_videos=3,
                         array=True)


def test_embeddings_are_those_of_the_model(expected, videos, embedded):
    output, summary = embedded
    table = read(output)
    assert table["id"].tolist() == GOOD
    for row in table.to_dict("records"):
        name = row["id"]
        np.testing.assert_allclose(row["embedding"], expected[name].mean(0), atol=1e-5,
                                   err_msg=name)
        assert (row["clips"], row["status"]) == (len(STARTS[name]), "ok")
        assert row["path"] == str(videos / name) and row["bytes"] == os.path.getsize(row["path"])
        assert row["start"] == 0
    assert np.ptp(matrix(output), axis=0).min() > 0.01
    assert dict(zip(table["id"], table["end"], strict=True))["a/wide.mp4"] == 5.0
    assert (summary["embedded"], summary["rejected"], summary["clips"], summary["new"]) == (
        6, 2, 16, 8)
    # Batches of five clips, from videos of three, in shards of three videos.
    assert len(list((output / "embeddings.parquet").iterdir())) == 3


def test_bad_files_are_reported(embedded):
    with open(embedded[0] / "rejects.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["reason"]) for row in rows] == [
        ("a/text.mp4", "undecodable"), ("b/empty.mp4", "empty_file")]
    assert all(row["detail"] for row in rows)


def test_array_has_the_rows_of_the_table(embedded):
    output = embedded[0]
    array, ids = np.load(output / "embeddings.npy"), pd.read_csv(output / "ids.csv")
    assert array.dtype == np.float32 and ids["id"].tolist() == GOOD
    np.testing.assert_array_equal(array, matrix(output))


def test_the_page_says_how_to_read_it(embedded, tmp_path, monkeypatch):
    [snippet] = [x for x in reading.blocks(ROOT / "docs" / "find.md") if x.language == "python"]
    (tmp_path / "embeddings").symlink_to(embedded[0])
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(snippet.text, snippet.place, "exec"), names)
    np.testing.assert_array_equal(names["features"], matrix(embedded[0]))
    assert names["table"]["folder"].tolist() == ["a", "a", "b", "b", "b", ""]


def test_workers_and_batches_do_not_matter(exported, videos, embedded, tmp_path):
    embed(exported, videos, tmp_path, batch_size=1)
    assert read(tmp_path)["id"].tolist() == GOOD
    np.testing.assert_allclose(matrix(tmp_path), matrix(embedded[0]), atol=1e-5)


def test_each_clip_a_row_of_its_own(exported, videos, expected, tmp_path):
    (tmp_path / "list.csv").write_text(
        "video_path,start,end\na/long.mp4,,\na/wide.mp4,2,\nb/tall.mp4,0,1\n")
    summary = embed(exported, tmp_path / "list.csv", tmp_path / "out", per_window=True,
                    video_root=str(videos))
    table = read(tmp_path / "out")
    assert table["id"].tolist() == [
        "a/long.mp4/0-1", "a/long.mp4/2-3", "a/long.mp4/4-5", "a/wide.mp4:2-/2-3",
        "a/wide.mp4:2-/3-4", "a/wide.mp4:2-/4-5", "b/tall.mp4:0-1/0-1"]
    assert table["video"].tolist()[3:] == ["a/wide.mp4:2-"] * 3 + ["b/tall.mp4:0-1"]
    np.testing.assert_allclose(matrix(tmp_path / "out")[:3], expected["a/long.mp4"], atol=1e-5)
    np.testing.assert_allclose(matrix(tmp_path / "out")[[3, 5]], expected["a/wide.mp4"][1:],
                               atol=1e-5)
    np.testing.assert_allclose(matrix(tmp_path / "out")[6], expected["b/tall.mp4"][0], atol=1e-5)
    assert (summary["rows"], summary["embedded"]) == (7, 3)


def test_new_and_changed_videos_only(exported, videos, expected, tmp_path):
    source, output = tmp_path / "videos", tmp_path / "out"
    shutil.copytree(videos, source)
    (source / "a" / "wide.mp4").unlink()
    assert embed(exported, source, output)["new"] == 7
    shard = output / "embeddings.parquet" / "part-00000.parquet"
    before = os.stat(shard)
    assert embed(exported, source, output)["new"] == 0
    assert os.stat(shard).st_mtime_ns == before.st_mtime_ns
    shutil.copy(videos / "a" / "wide.mp4", source / "a" / "wide.mp4")   # new, and in between
    shutil.copy(videos / "b" / "tall.mp4", source / "c.mp4")            # changed
    shutil.copy(videos / "c.mp4", source / "b" / "empty.mp4")           # mended
    assert embed(exported, source, output)["new"] == 3
    table = read(output)
    assert table["id"].tolist() == sorted([*GOOD, "b/empty.mp4"])
    found = dict(zip(table["id"], table["embedding"], strict=True))
    for name, like in (("a/wide.mp4", "a/wide.mp4"), ("c.mp4", "b/tall.mp4"),
                       ("b/empty.mp4", "c.mp4"), ("a/long.mp4", "a/long.mp4")):
        np.testing.assert_allclose(found[name], expected[like].mean(0), atol=1e-5, err_msg=name)
    rejects = (output / "rejects.csv").read_text()
    assert "empty" not in rejects and "a/text.mp4" in rejects


def test_another_model_or_other_settings_are_refused(exported, videos, embedded, tmp_path):
    output = embedded[0]
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    with pytest.raises(UserError, match="windows: 3 there, 5 asked for"):
        embed(exported, videos, output, windows=5)
    with pytest.raises(UserError, match="per_window: False there, True asked for"):
        embed(exported, videos, output, per_window=True)
    with pytest.raises(UserError, match="input: .* there, .*/b asked for"):
        embed(exported, videos / "b", output)
    other = tmp_path / "other"
    shutil.copytree(exported, other)
    variables = other / "1" / "variables" / "variables.data-00000-of-00001"
    content = bytearray(variables.read_bytes())
    content[-1] ^= 1
    variables.write_bytes(content)
    with pytest.raises(UserError, match="fingerprint: .* there, .* asked for"):
        embed(other, videos, output)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    # The same model elsewhere is the same model.
    moved = tmp_path / "moved"
    shutil.copytree(exported, moved)
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    assert embed(moved, videos, copy)["new"] == 0
    settings = json.loads((copy / "summary.json").read_text())["settings"]
    assert settings["model"] == str(moved / "1")


def test_one_process_at_a_time(exported, videos, tmp_path):
    (tmp_path / "out").mkdir()
    with open(tmp_path / "out" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process writes"):
            embed(exported, videos, tmp_path / "out")


def test_nothing_usable_and_names_that_are_no_text(exported, videos, tmp_path):
    source = tmp_path / "bad"
    source.mkdir()
    (source / "text.mp4").write_text("text")
    shutil.copy(videos / "c.mp4", os.fsencode(source) + b"/\xff.mp4")
    with pytest.raises(UserError, match="none of the 2 videos in .*bad can be used"):
        embed(exported, source, tmp_path / "out")
    content = (tmp_path / "out" / "rejects.csv").read_bytes()
    assert b"\xff.mp4,bad_name," in content and b"text.mp4,undecodable," in content
    # They are not tried again, and a good one beside them is embedded.
    shutil.copy(videos / "c.mp4", source / "c.mp4")
    assert embed(exported, source, tmp_path / "out")["new"] == 1


def test_folders_that_are_none(exported, videos, tmp_path):
    for path, words in ((tmp_path / "no", "is no folder"), (tmp_path, "holds no exported encoder")):
        with pytest.raises(UserError, match=words):
            saved_model.open_model(path)
    (tmp_path / "3").mkdir()
    shutil.copy(exported / "1" / "saved_model.pb", tmp_path / "3")
    with pytest.raises(UserError, match="provenance.json"):
        saved_model.open_model(tmp_path)
    assert saved_model.open_model(exported).folder == saved_model.open_model(exported / "1").folder
    output = tmp_path / "out"
    (output / "embeddings.parquet").mkdir(parents=True)
    (output / "embeddings.parquet" / "part-00000.parquet").touch()
    with pytest.raises(UserError, match="summary.json, which says how it was made, is not"):
        embed(exported, videos, output)


def test_real_hostile_files(exported, shared_videos, tmp_path):
    summary = embed(exported, shared_videos / "hostile", tmp_path, windows=2, workers=2)
    assert summary["rejected_by_reason"] == {"undecodable": 2, "empty_file": 1}
    table = read(tmp_path).set_index("id")
    assert len(table) == 13 and np.isfinite(matrix(tmp_path)).all()
    assert set(table.index[table["status"] == "damaged"]) == {
        "bitflips_200.mp4", "truncated_faststart.mp4"}
    # What is missing of a truncated file is not counted: its last clip ends where the file does.
    with av.open(str(shared_videos / "hostile" / "truncated_faststart.mp4")) as container:
        try:
            for frame in container.decode(video=0):
                last = frame.time
        except av.FFmpegError:
            pass
    assert last - 0.5 < table.loc["truncated_faststart.mp4", "end"] < last + 0.5


def windows_of(path, **options):
    wanted = {"start": None, "end": None, "windows": 3, "frames": FRAMES, "fps": FPS, "side": 32,
              "inner": 32} | options
    return [x for x in video_windows.read_windows(video_windows.Job(str(path), **wanted)) if x]


def test_clips_far_apart_are_found_by_seeking(tmp_path):
    make_video(tmp_path / "film.mp4", seed=3, frames=240, width=32, height=32, fps=8.0)  # 30 s
    frames = decoded(tmp_path / "film.mp4", side=32)
    found = windows_of(tmp_path / "film.mp4")
    assert [(x.start, x.end) for x in found] == [(0, 1), (14.5, 15.5), (29, 30)]
    for window in found:
        np.testing.assert_array_equal(window.frames, clip_of(frames, int(window.start * 8)))


def test_a_file_that_ends_early_gives_what_it_has(tmp_path):
    make_video(tmp_path / "whole.mp4", seed=4, frames=80, width=32, height=32)
    with av.open(str(tmp_path / "whole.mp4")) as source, av.open(
            str(tmp_path / "whole.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    content = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "half.mkv").write_bytes(content[:len(content) * 6 // 10])
    frames = decoded(tmp_path / "whole.mp4", side=32)
    found = windows_of(tmp_path / "half.mkv", windows=2)
    assert len(found) == 2 and found[0].start == 0
    # Of 10 s there are about 6: the last clip is near their end, and whole.
    assert 4 < found[1].start < 6 and found[1].end - found[1].start == 1
    for window in found:
        np.testing.assert_array_equal(window.frames, clip_of(frames, round(window.start * 8)))


def test_a_killed_run_goes_on(exported, tmp_path):
    source, output = tmp_path / "videos", tmp_path / "out"
    for i in range(24):
        make_video(source / f"{i:02d}.mp4", seed=i, frames=16, width=32, height=32)
    (source / "bad.mp4").write_text("bad")
    flags = [f"--model_dir={exported}", f"--input={source}", f"--output={output}",
             "--shard_videos=2", "--batch_size=2", "--workers=1"]
    command = [sys.executable, "-m", "elo_tf.bin.embed", *flags]
    shards = output / "embeddings.parquet"
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(shards.glob("part-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in shards.glob("part-*")}
    assert 0 < len(before) < 12
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "24 embedded, 1 rejected"
    assert f"rejected as undecodable: 1 (see {output}/rejects.csv)" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert read(output)["id"].tolist() == [f"{i:02d}.mp4" for i in range(24)]
    embed(exported, source, tmp_path / "whole", windows=2)
    np.testing.assert_allclose(matrix(output), matrix(tmp_path / "whole"), atol=1e-5)


def test_mistakes_are_one_line(exported, videos, tmp_path):
    for flags, words in (
            ([f"--model_dir={tmp_path}", f"--input={videos}"], "holds no exported encoder"),
            ([f"--model_dir={exported}", f"--input={tmp_path}/none"], "does not exist"),
            ([f"--model_dir={exported}", f"--input={videos}", "--windows=0"], "windows")):
        done = subprocess.run(
            [sys.executable, "-m", "elo_tf.bin.embed", f"--output={tmp_path}/out", *flags],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 2 and words in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_leftovers_and_rows_that_are_there_twice_are_mended(exported, embedded, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(embedded[0], output)
    shards = output / "embeddings.parquet"
    shutil.copy(shards / "part-00000.parquet", shards / "part-00007.parquet")
    (shards / ".part-00008.123.tmp.parquet").touch()
    twice = embedding_store.read_embeddings(output)
    assert [row["id"] for row in twice.rows] == GOOD
    np.testing.assert_array_equal(twice.features, matrix(embedded[0]))
    settings = json.loads((output / "summary.json").read_text())["settings"]
    embed(exported, settings["input"], output)
    assert read(output)["id"].tolist() == GOOD
    assert not list(shards.glob(".*"))
    np.testing.assert_array_equal(matrix(output), twice.features)
