import errno
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from elo_tf.data import manifest, media
from elo_tf.data.media import container
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


def test_a_caption_is_kept(tmp_path):
    path = write_csv(tmp_path, "video_path,start,end,label,caption\n"
                     'a.mp4,,,x," two dogs, one ""ball""\nand a 🐕 "\nb.mp4,,,,\n')
    first, second = manifest.read_manifest(path).entries
    assert first.caption == 'two dogs, one "ball"\nand a 🐕' and first.label == "x"
    assert second.caption is None and second.label is None


def test_the_paths_of_a_csv_are_relative_to_the_root_that_is_named(tmp_path):
    root = tmp_path / "videos"
    root.mkdir()
    path = write_csv(tmp_path, f"video_path,start\na/x.mp4,\n./b.mp4,2\n../c.mp4,\n"
                     f"{root}/d.mp4,\n../videos/e.mp4,\n..f.mp4,\n")
    entries = manifest.read_manifest(path, video_root=root).entries
    assert {entry.id: entry.path for entry in entries} == {
        "a/x.mp4": f"{root}/a/x.mp4", "b.mp4:2-": f"{root}/b.mp4", "../c.mp4": f"{tmp_path}/c.mp4",
        "d.mp4": f"{root}/d.mp4", "e.mp4": f"{root}/e.mp4", "..f.mp4": f"{root}/..f.mp4"}
    assert [entry.path for entry in manifest.read_manifest(path).entries
            if entry.id == "a/x.mp4"] == [f"{tmp_path}/a/x.mp4"]
    with pytest.raises(UserError, match="none is not a folder"):
        manifest.read_manifest(path, video_root=tmp_path / "none")
    with pytest.raises(UserError, match="leave it out"):
        manifest.read_manifest(root, video_root=root)


def test_images_are_listed_instead_of_videos(tmp_path):
    touch(tmp_path, "n01/b.JPEG", "n01/a.png", "n02/c.jpg", "n02/d.webp", "clip.mp4")
    found = manifest.read_manifest(tmp_path, "folders", images=True)
    assert [(entry.id, entry.label) for entry in found.entries] == [
        ("n01/a.png", "n01"), ("n01/b.JPEG", "n01"), ("n02/c.jpg", "n02"), ("n02/d.webp", "n02")]
    assert found.ignored == {".mp4": 1}
    assert [entry.id for entry in manifest.read_manifest(tmp_path).entries] == ["clip.mp4"]
    touch(tmp_path / "empty", "x.mp4")
    with pytest.raises(UserError, match=r"no image files \(found 1 \.mp4\).*\.jpg"):
        manifest.read_manifest(tmp_path / "empty", images=True)
    listed = write_csv(tmp_path, "video_path,start,label\nn01/b.JPEG,,x\nn02/c.jpg,1,y\n")
    with pytest.raises(UserError, match="line 3: an image has no start"):
        manifest.read_manifest(listed, images=True)


def test_what_is_no_file_is_listed_and_fails_when_it_is_opened(tmp_path):
    touch(tmp_path, "a.mp4")
    os.symlink("self.mp4", tmp_path / "self.mp4")
    os.symlink("gone.mp4", tmp_path / "broken.mp4")
    os.symlink("gone.txt", tmp_path / "broken.txt")
    os.mkfifo(tmp_path / "pipe.mp4")
    found = manifest.read_manifest(tmp_path)
    assert [entry.id for entry in found.entries] == [
        "a.mp4", "broken.mp4", "pipe.mp4", "self.mp4"]
    assert found.ignored == {".txt": 1}
    reasons = {}
    for entry in found.entries[1:]:
        with pytest.raises(media.MediaError) as error:
            container.check_file(entry.path)
        reasons[entry.id] = error.value.reason
    assert reasons == {"broken.mp4": "missing_file", "pipe.mp4": "not_a_file",
                       "self.mp4": "unreadable"}
    assert list(manifest.walk_files(str(tmp_path))) == ["a.mp4"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "a.mp4", "secret/b.mp4")
    real = os.scandir

    def refusing(path):  # The rights of a folder do not bind an administrator.
        if os.path.basename(os.path.normpath(path)) == "secret":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(UserError, match=rf"the folder {tmp_path}/secret/? cannot be read "
                                        r"\(Permission denied\); make it readable"):
        manifest.read_manifest(tmp_path)


def test_a_long_csv_is_listed_in_seconds_without_touching_a_file(tmp_path, monkeypatch):
    rows = [f"class {i % 700}/video_{i:06d}.mp4,{i % 50},{i % 50 + 10},class {i % 700}"
            for i in range(200_000)]
    path = write_csv(tmp_path, "video_path,start,end,label\n" + "\n".join(rows) + "\n")
    calls = []
    real = os.stat

    def counted(*arguments, **keywords):
        calls.append(arguments)
        return real(*arguments, **keywords)

    monkeypatch.setattr(os, "stat", counted)
    start = time.process_time()
    found = manifest.read_manifest(path, video_root=tmp_path)
    seconds = time.process_time() - start
    assert len(found.entries) == 200_000 and len(found.labels) == 700
    assert found.entries[0].id == "class 0/video_000000.mp4:0-10"
    assert len(calls) < 20
    assert seconds < 30  # About 2 s; a loaded machine is allowed much more.


def test_the_label_map_is_sorted_and_shared(tmp_path):
    first = manifest.label_map(tmp_path, ["walk", "bend", "wave", "bend"])
    assert first == {"bend": 0, "walk": 1, "wave": 2}
    manifest.write_labels(tmp_path, first)
    assert (tmp_path / "labels.txt").read_text() == "bend\nwalk\nwave\n"
    assert manifest.label_map(tmp_path, ["wave"]) == first
    manifest.write_labels(tmp_path, {"other": 0})
    assert manifest.read_labels(tmp_path) == ["bend", "walk", "wave"]
    assert manifest.label_map(tmp_path, []) == {}
    with pytest.raises(UserError, match=r"1 of the split's 2 labels.*labels\.txt: 'run'"):
        manifest.label_map(tmp_path, ["walk", "run"])
    for text in ("a\na\n", "a\n\nb\n", ""):
        (tmp_path / "labels.txt").write_text(text)
        with pytest.raises(UserError, match="repeated"):
            manifest.label_map(tmp_path, ["a"])
    with pytest.raises(UserError, match="line end"):
        manifest.label_map(tmp_path / "new", ["a\nb"])


def test_a_given_label_map_rules_over_the_sorted_order(tmp_path):
    given = tmp_path / "names.txt"
    given.write_bytes("\ufeffwalk\r\nbend\r\njump \u00e9\r\n".encode())
    indices = manifest.label_map(tmp_path / "records", ["bend"], given)
    assert indices == {"walk": 0, "bend": 1, "jump \u00e9": 2}
    assert manifest.label_map(tmp_path / "records", [], given) == {}
    with pytest.raises(UserError, match=r"2 of the split's 3 labels.*names\.txt: 'run', 'sit'"):
        manifest.label_map(tmp_path / "records", ["sit", "run", "bend"], given)
    with pytest.raises(UserError, match="gone.txt does not exist"):
        manifest.label_map(tmp_path / "records", ["bend"], tmp_path / "gone.txt")
    manifest.write_labels(tmp_path / "records", indices)
    assert manifest.label_map(tmp_path / "records", ["walk"], given) == indices
    given.write_text("walk\njump \u00e9\nbend\n")
    with pytest.raises(UserError, match="label 1 is 'bend' in the first and 'jump \u00e9'"):
        manifest.label_map(tmp_path / "records", ["walk"], given)
    given.write_text("walk\nbend\n")
    with pytest.raises(UserError, match=r"\(3 labels\).*label 2 is 'jump \u00e9' in the first and "
                                        "missing"):
        manifest.label_map(tmp_path / "records", ["walk"], given)


def test_a_label_map_beside_the_csv_is_found(tmp_path):
    path = write_csv(tmp_path, "video_path,label\na.mp4,x\n")
    assert manifest.read_manifest(path).label_file is None
    (tmp_path / "labels.txt").write_text("y\nx\n")
    found = manifest.read_manifest(path)
    assert found.label_file == tmp_path / "labels.txt"
    assert manifest.label_map(tmp_path / "new", found.labels, found.label_file) == {"y": 0, "x": 1}
    touch(tmp_path, "videos/a.mp4")
    assert manifest.read_manifest(tmp_path / "videos").label_file is None


def test_label_ids_do_not_depend_on_the_process(tmp_path):
    path = write_csv(tmp_path, "video_path,label\n"
                     + "".join(f"{i}.mp4,class {i * 37 % 101}\n" for i in range(101)))
    program = ("import json, sys; from elo_tf.data import manifest; "
               f"found = manifest.read_manifest({str(path)!r}); "
               f"print(json.dumps(manifest.label_map({str(tmp_path / 'x')!r}, found.labels)))")
    shown = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                            check=True, env={**os.environ, "PYTHONHASHSEED": seed},
                            cwd=pathlib.Path(manifest.__file__).parents[2]).stdout
             for seed in ("1", "2")]
    assert shown[0] == shown[1]
    assert json.loads(shown[0]) == {
        name: i for i, name in enumerate(sorted(f"class {i}" for i in range(101)))}
