"""From lists to CSV files: counts, label maps, missing videos, and what reads the files."""

import csv
import dataclasses
import os
import pathlib
import subprocess
import sys

import pytest

from elo_tf.data import manifest, splits
from elo_tf.errors import UserError

ROOT = pathlib.Path(splits.__file__).resolve().parents[3]
AWKWARD = """a, "b"'s [x](y)#1;&!.avi"""


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def make_hmdb51(folder, **lists):
    folder.mkdir(exist_ok=True)
    for name, text in lists.items():
        (folder / f"{name}_test_split1.txt").write_text(text)
    return str(folder)


@pytest.fixture
def small(tmp_path):
    """A small set of HMDB51's form, of which one video is missing, and how to import it."""
    lists = make_hmdb51(tmp_path / "lists", wave=f"{AWKWARD} 1 \nc.avi 2 \nd.avi 0 \n",
                        run="e.avi 1 \nf.avi 1 \ng.avi 2 \n")
    touch(tmp_path / "videos", f"wave/{AWKWARD}", "wave/c.avi", "wave/d.avi", "run/e.avi",
          "run/g.avi", "run/not listed.avi")
    return splits.Import("hmdb51", str(tmp_path / "videos"), str(tmp_path / "out"), lists,
                         allow_other_counts=True)


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_files_of_a_fold(small):
    done = splits.import_splits(small)
    out = pathlib.Path(small.output)
    assert {path.name for path in out.iterdir()} == {
        "labels.txt", *(f"hmdb51_fold1_{name}.csv" for name in
                        ("train", "test", "unused", "unlabelled", "missing"))}
    assert (out / "labels.txt").read_text() == "run\nwave\n"
    assert [(c.split, c.listed, c.official, c.found, c.missing, c.classes) for c in done.counts] \
        == [("train", 3, 3570, 2, 1, 2), ("test", 2, 1530, 2, 0, 2), ("unused", 1, 1666, 1, 0, 1)]
    assert rows(done.missing) == [{"video_path": "run/f.avi", "split": "train", "label": "run",
                                   "reason": "not found"}]
    found = manifest.read_manifest(done.counts[0].path, video_root=small.videos)
    assert [(e.id, e.label) for e in found.entries] == [
        ("run/e.avi", "run"), (f"wave/{AWKWARD}", "wave")]
    assert all(os.path.isfile(entry.path) for entry in found.entries)
    assert found.label_file == out / "labels.txt"
    unlabelled = manifest.read_manifest(done.unlabelled, video_root=small.videos)
    assert [(e.id, e.label) for e in unlabelled.entries] == [
        ("run/e.avi", None), (f"wave/{AWKWARD}", None)]
    unused = manifest.read_manifest(done.counts[2].path, video_root=small.videos)
    assert [(e.id, e.label) for e in unused.entries] == [("wave/d.avi", None)]
    lines = done.table().splitlines()
    assert lines[0].split() == ["split", "listed", "official", "found", "missing", "classes"]
    assert lines[1].split() == ["train", "3", "3570", "2", "1", "2"]
    assert len({len(line) for line in lines}) == 1


def test_a_second_import_writes_the_same_bytes_and_takes_away_what_is_empty(small):
    def contents():
        return {p.name: p.read_bytes() for p in pathlib.Path(small.output).iterdir()}

    splits.import_splits(small)
    first = contents()
    splits.import_splits(small)
    assert contents() == first
    (pathlib.Path(small.videos) / "wave" / "d.avi").unlink()
    assert splits.import_splits(small).counts[2].path is None
    assert set(first) - set(contents()) == {"hmdb51_fold1_unused.csv"}


def test_counts_that_are_not_official_are_an_error(small):
    with pytest.raises(UserError, match=r"hmdb51 fold 1: train lists 3 videos, officially 3570; "
                                        r"test lists 2 .*--allow_other_counts"):
        splits.import_splits(dataclasses.replace(small, allow_other_counts=False))
    assert not os.path.exists(small.output)


def test_no_video_at_all_is_an_error(small, tmp_path):
    touch(tmp_path / "wrong", "x/y.avi", "z.txt")
    with pytest.raises(UserError, match=r"none of the 6 listed videos is in .*wrong: the first "
                                        r"would be .*wrong/run/e\.avi, .* holds x/y\.avi; "):
        splits.import_splits(dataclasses.replace(small, videos=str(tmp_path / "wrong")))
    with pytest.raises(UserError, match="gone is not a folder"):
        splits.import_splits(dataclasses.replace(small, videos=str(tmp_path / "gone")))
    assert not os.path.exists(small.output)


def test_the_label_map_of_the_folder_must_fit(small):
    out = pathlib.Path(small.output)
    out.mkdir()
    (out / "labels.txt").write_text("wave\nzoom\nrun\n")
    splits.import_splits(small)
    assert (out / "labels.txt").read_text() == "wave\nzoom\nrun\n"
    (out / "labels.txt").write_text("wave\nzoom\n")
    with pytest.raises(UserError, match="labels.txt, of another import, lacks 1 of the 2 .*'run'"):
        splits.import_splits(small)


def test_videos_under_other_names_are_found_and_reported(small, tmp_path):
    lists = make_hmdb51(tmp_path / "more", wave="a.avi 1\nA.avi 1\nb.avi 1\nb.avi 1\nc.avi 2\n"
                        "d.avi 2\nb.avi 2\n")
    touch(tmp_path / "moved", "wave/A.avi", "deep/down/b.avi", "wave/c.mp4", "Wave/D.AVI")
    done = splits.import_splits(dataclasses.replace(small, splits=lists,
                                                    videos=str(tmp_path / "moved")))
    assert [row["video_path"] for row in rows(done.counts[0].path)] == [
        "deep/down/b.avi", "wave/A.avi"]
    assert [row["video_path"] for row in rows(done.counts[1].path)] == [
        "Wave/D.AVI", "deep/down/b.avi", "wave/c.mp4"]
    # wave/a.avi could only be wave/A.avi, which is listed itself; wave/b.avi is listed twice.
    assert [(row["video_path"], row["reason"]) for row in rows(done.missing)] == [
        ("wave/a.avi", "its file is that of wave/A.avi, labelled wave"),
        ("wave/b.avi", "its file is that of wave/b.avi, labelled wave")]
    assert done.counts[0].missing == 2 == done.counts[0].listed - done.counts[0].found
    text = "\n".join(done.notes)
    for note in ("2 videos were found in another folder, such as wave/b.avi as deep/down/b.avi",
                 "1 videos were found with another suffix, such as wave/c.avi as wave/c.mp4",
                 "1 videos were found with another case or Unicode form, such as wave/d.avi as",
                 "2 listed videos share their file", "1 videos are both in train and in test"):
        assert note in text, text


def test_kinetics(tmp_path):
    (tmp_path / "train.csv").write_text(
        "label,youtube_id,time_start,time_end,split,is_cc\n"
        "air drumming,aaaaaaaaaaa,7,17,train,0\nair drumming,AAAAAAAAAAA,7,17,train,0\n"
        "run,bbbbbbbbbbb,0,10,train,0\nrun,ccccccccccc,0,10,train,0\n")
    (tmp_path / "test.csv").write_text(
        "youtube_id,time_start,time_end,split\nddddddddddd,1,11,test\n")
    touch(tmp_path / "k400", "train/air_drumming/aaaaaaaaaaa_000007_000017.webm",
          "flat/bbbbbbbbbbb_000000_000010.mp4", "ddddddddddd_000001_000011.mkv")
    job = splits.Import("kinetics", str(tmp_path / "k400"), str(tmp_path / "out"), str(tmp_path),
                        name="k400")
    done = splits.import_splits(job)
    assert [(c.split, c.listed, c.official, c.found) for c in done.counts] == [
        ("train", 4, None, 2), ("test", 1, None, 1)]
    assert done.notes == [] and " - " in done.table()
    assert [(row["video_path"], row["label"]) for row in rows(tmp_path / "out/k400_train.csv")] == [
        ("flat/bbbbbbbbbbb_000000_000010.mp4", "run"),
        ("train/air_drumming/aaaaaaaaaaa_000007_000017.webm", "air drumming")]
    test = manifest.read_manifest(tmp_path / "out/k400_test.csv", video_root=job.videos)
    assert [(e.id, e.label) for e in test.entries] == [("ddddddddddd_000001_000011.mkv", None)]
    assert (tmp_path / "out" / "labels.txt").read_text() == "air drumming\nrun\n"
    assert [row["video_path"] for row in rows(done.missing)] == [
        "AAAAAAAAAAA_000007_000017", "ccccccccccc_000000_000010"]
    touch(tmp_path / "raw", "aaaaaaaaaaa.mp4")
    whole = splits.import_splits(dataclasses.replace(
        job, videos=str(tmp_path / "raw"), whole_videos=True, name="whole"))
    found = manifest.read_manifest(whole.counts[0].path, video_root=tmp_path / "raw").entries
    assert [(e.id, e.start, e.end) for e in found] == [("aaaaaaaaaaa.mp4:7-17", 7.0, 17.0)]


def test_a_list_of_integers_keeps_its_ids_in_the_label_map(tmp_path):
    (tmp_path / "train.txt").write_text("a b.mp4 2\nc.mp4 0\n d.mp4 10\n")
    touch(tmp_path / "videos", "a b.mp4", "c.mp4", "d.mp4")
    job = splits.Import("list", str(tmp_path / "videos"), str(tmp_path / "out"),
                        str(tmp_path / "train.txt"))
    done = splits.import_splits(job)
    found = manifest.read_manifest(done.counts[0].path, video_root=job.videos)
    indices = manifest.label_map(tmp_path / "records", found.labels, found.label_file)
    assert [(e.relative, indices[e.label]) for e in found.entries] == [
        ("a b.mp4", 2), ("c.mp4", 0), ("d.mp4", 10)]
    assert len(indices) == 11
    (tmp_path / "train.txt").write_text("c.mp4 0\na b.mp4 1\n")
    with pytest.raises(UserError, match=r"labels.txt \(11 labels\) and the lists \(2\) differ"):
        splits.import_splits(job)


def test_folders(tmp_path):
    touch(tmp_path / "v", *(f"{name}/{i}.mp4" for name in ("run", " wave") for i in range(5)))
    done = splits.import_splits(splits.Import("folders", str(tmp_path / "v"), str(tmp_path / "o")))
    assert [(c.split, c.found) for c in done.counts] == [("train", 8), ("test", 2)]
    entries = [e for c in done.counts
               for e in manifest.read_manifest(c.path, video_root=tmp_path / "v").entries]
    assert all(os.path.isfile(entry.path) for entry in entries) and len(entries) == 10


@pytest.mark.parametrize(("change", "words"), [
    ({"dataset": "folders"}, "--splits is not for"), ({"splits": None}, "--splits= does not exist"),
    ({"splits": "/none"}, "--splits=/none does not exist"), ({"name": "a/b"}, "--name='a/b'"),
    ({"dataset": "kinetics", "fold": 2}, "--fold is for --dataset=hmdb51 and ucf101"),
    ({"path_format": "x"}, "--path_format is for --dataset=kinetics"),
    ({"whole_videos": True}, "--whole_videos is for"),
    ({"class_names": "x"}, "--class_names is for --dataset=list"),
    ({"dataset": "imagenet"}, "--dataset=imagenet is not known")])
def test_settings_that_do_not_fit_are_refused(small, change, words):
    with pytest.raises(UserError, match=words):
        splits.import_splits(dataclasses.replace(small, **change))


@pytest.mark.parametrize("seed", ["0", "12345"])
def test_the_real_lists_give_the_same_files_in_every_process(shared_splits, tmp_path, seed):
    """51 classes with the ids of the sorted names, whatever the process hashes to."""
    folder = shared_splits / "hmdb51_splits"
    wanted, counts = {}, {"1": 0, "2": 0, "0": 0}
    for path in folder.glob("*_test_split2.txt"):
        label = path.name[:-len("_test_split2.txt")]
        touch(tmp_path / "v", *(f"{label}/{line.split()[0]}"
                                for line in path.read_text().splitlines() if line.split()))
        for line in path.read_text().splitlines():
            counts[line.split()[1]] += 1
            if line.split()[1] == "1":
                wanted[f"{label}/{line.split()[0]}"] = label
    program = ("from elo_tf.data import splits; print(splits.import_splits(splits.Import("
               f"'hmdb51', {str(tmp_path / 'v')!r}, {str(tmp_path / 'o')!r}, {str(folder)!r}, "
               "fold=2)).table())")
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                           cwd=ROOT, check=True, env={**os.environ, "PYTHONHASHSEED": seed}).stdout
    assert [line.split() for line in shown.splitlines()[1:]] == [
        [name, str(counts[flag]), str(counts[flag]), str(counts[flag]), "0", "51"]
        for name, flag in (("train", "1"), ("test", "2"), ("unused", "0"))]
    found = manifest.read_manifest(tmp_path / "o" / "hmdb51_fold2_train.csv")
    indices = manifest.label_map(tmp_path / "records", found.labels, found.label_file)
    assert indices == {label: i for i, label in enumerate(sorted(set(wanted.values())))}
    assert {entry.id: entry.label for entry in found.entries} == wanted
