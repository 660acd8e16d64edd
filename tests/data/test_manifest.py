import os

import pytest

from elo_tf.data import manifest
from elo_tf.errors import UserError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def write_csv(tmp_path, text, name="list.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_folder_is_searched_in_sorted_order(tmp_path):
    touch(tmp_path, "b.mp4", "a/z.AVI", "a/deep/c.WebM", "notes.txt", "x.wav", ".hidden.mp4",
          ".trash/d.mp4", "noext")
    os.symlink(tmp_path / "a", tmp_path / "linked")
    os.symlink(tmp_path, tmp_path / "a" / "loop")
    found = manifest.read_manifest(tmp_path)
    assert [entry.id for entry in found.entries] == ["a/deep/c.WebM", "a/z.AVI", "b.mp4"]
    assert found.ignored == {".txt": 1, ".wav": 1, ".mp4": 1, "no suffix": 1}
    assert found.labels == []


def test_labels_are_the_nearest_folders(tmp_path):
    touch(tmp_path, "walk/1.mp4", "sport/run/2.mp4", "3.mp4")
    found = manifest.read_manifest(tmp_path, "folders")
    assert {entry.id: entry.label for entry in found.entries} == {
        "walk/1.mp4": "walk", "sport/run/2.mp4": "run", "3.mp4": None}
    assert found.labels == ["run", "walk"]


def test_csv(tmp_path):
    path = write_csv(tmp_path, "\ufeffvideo_path,label,start,end,extra\n"
                     "b.mp4,wave,,,1\n\"a, 'b'.mp4\",run,1.5,3,2\n/abs/c.mp4,,,2.25,\n"
                     "b.mp4,wave,1234.5671,1234.5678,\n")
    entries = manifest.read_manifest(path).entries
    assert [(e.id, e.start, e.end, e.label) for e in entries] == [
        ("/abs/c.mp4:0-2.25", None, 2.25, None),
        ("a, 'b'.mp4:1.5-3", 1.5, 3.0, "run"),
        ("b.mp4", None, None, "wave"),
        ("b.mp4:1234.5671-1234.5678", 1234.5671, 1234.5678, "wave")]
    assert entries[1].path == str(tmp_path / "a, 'b'.mp4")
    assert entries[3].relative == "b.mp4"


@pytest.mark.parametrize(("text", "words"), [
    ("", ["line 1", "video_path"]),
    ("path,label\na.mp4,b\n", ["line 1", "video_path", "path, label"]),
    ("video_path\n", ["no videos"]),
    ("video_path,start,end\na.mp4,1,2\nb.mp4,x,2\n", ["line 3", "start", "'x'"]),
    ("video_path,start,end\na.mp4,-1,2\n", ["line 2", "start", "'-1'"]),
    ("video_path,start,end\na.mp4,nan,2\n", ["line 2", "'nan'"]),
    ("video_path,start,end\na.mp4,3,2\n", ["line 2", "end 2", "start 3"]),
    ("video_path,start,end\na.mp4,1,2,3\n", ["line 2", "more values"]),
    ("video_path,label\n,b\n", ["line 2", "empty"]),
    ("video_path,label\na.mp4,b\na.mp4,c\n", ["line 3", "a.mp4", "line 2"]),
    ("video_path,label\na.mp4,\"b\nc\"\n", ["label", "line end"]),
    ("video_path,label\na.mp4,\"b\"x\n", ["line 2"]),
    (b"video_path\n\xff\xfe.mp4\n", ["UTF-8"]),
])
def test_a_malformed_csv_names_its_line(tmp_path, text, words):
    path = write_csv(tmp_path, text)
    with pytest.raises(UserError) as error:
        manifest.read_manifest(path)
    assert str(path) in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_input_without_videos(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        manifest.read_manifest(tmp_path / "none")
    with pytest.raises(UserError, match="no video files"):
        manifest.read_manifest(tmp_path)
    touch(tmp_path, "a.wav")
    with pytest.raises(UserError, match=r"1 \.wav"):
        manifest.read_manifest(tmp_path)
    touch(tmp_path, "a.mp4")
    with pytest.raises(UserError, match="neither"):
        manifest.read_manifest(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="sub-folder"):
        manifest.read_manifest(tmp_path, "folders")
    with pytest.raises(UserError, match="column `label`"):
        manifest.read_manifest(write_csv(tmp_path, "video_path\na.mp4\n"), "folders")


def test_the_label_map_is_sorted_and_shared(tmp_path):
    first = manifest.label_map(tmp_path, ["walk", "bend", "wave", "bend"])
    assert first == {"bend": 0, "walk": 1, "wave": 2}
    manifest.write_labels(tmp_path, first)
    assert (tmp_path / "labels.txt").read_text() == "bend\nwalk\nwave\n"
    assert manifest.label_map(tmp_path, ["wave"]) == first
    manifest.write_labels(tmp_path, {"other": 0})
    assert manifest.read_labels(tmp_path) == ["bend", "walk", "wave"]
    with pytest.raises(UserError, match="'run'"):
        manifest.label_map(tmp_path, ["walk", "run"])
    (tmp_path / "labels.txt").write_text("a\na\n")
    with pytest.raises(UserError, match="repeated"):
        manifest.label_map(tmp_path, ["a"])
