"""Folds hold whole groups out, and their CSV files are what the conversion reads."""

import csv
import pathlib
import subprocess
import sys

import pytest

from elo_tf.data import manifest
from elo_tf.data.splits import folds
from elo_tf.data.splits.folds import Video
from elo_tf.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]


def videos(**sizes):
    """As many videos of each group, of two classes in turn."""
    return [Video(f"{group}/{i}.mp4", "ab"[i % 2], group)
            for group, size in sizes.items() for i in range(size)]


def test_a_group_is_tested_once_and_folds_are_even():
    listed = videos(p=7, q=4, r=3, s=2, t=2)
    # 7 | 4 + 2 | 3 + 2, by hand.
    assert folds.assign(listed, 3) == [["p"], ["q", "t"], ["r", "s"]]
    assert folds.assign(listed) == [["p"], ["q"], ["r"], ["s"], ["t"]]
    assert folds.assign(listed[::-1], 3) == folds.assign(listed, 3)


@pytest.mark.parametrize(("count", "said"), [(1, "--folds=1"), (6, "there are 5 groups")])
def test_impossible_numbers_of_folds(count, said):
    with pytest.raises(UserError, match=said):
        folds.assign(videos(p=7, q=4, r=3, s=2, t=2), count)


def test_a_class_of_one_group_alone():
    listed = [*videos(p=4, q=4), Video("z.mp4", "z", "q")]
    with pytest.raises(UserError, match="class 'z' would be tested in fold 2 .groups q."):
        folds.assign(listed)


@pytest.mark.parametrize(("text", "said"), [
    ("path,label\n", "no column group"), ("path,label,group\n", "lists no videos"),
    ("path,label,group\na.mp4,,p\n", "line 2: label is empty"),
    ("path,label,group\na.mp4,x,p\na.mp4,y,q\n", "line 3: repeats a.mp4"),
])
def test_lists_that_are_refused(tmp_path, text, said):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        folds.read_list(tmp_path / "labels.csv")


def test_the_command_writes_what_the_conversion_reads(tmp_path):
    listed = videos(p=3, q=2, r=2)
    with open(tmp_path / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "person"))
        writer.writerows((x.path, x.label, x.group) for x in listed)
    done = subprocess.run(
        [sys.executable, "-m", "tools.make_folds", f"--input={tmp_path / 'labels.csv'}",
         f"--output={tmp_path / 'lists'}", "--by=person"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "--split=test3" in done.stdout and f"--video_root={tmp_path} " in done.stdout

    def read(split):
        return manifest.read_manifest(tmp_path / "lists" / f"{split}.csv")

    every = read("unlabelled")
    assert len(every.entries) == 7 and every.labels == []
    ids = {entry.id for entry in every.entries}
    for fold, group in enumerate("pqr", start=1):
        train, test = read(f"train{fold}"), read(f"test{fold}")
        assert {x.id for x in test.entries} == {x.path for x in listed if x.group == group}
        assert {x.id for x in train.entries} == ids - {x.id for x in test.entries}
        assert {x.id: x.label for x in (*train.entries, *test.entries)} == {
            x.path: x.label for x in listed}
        # The same number is the same class in every fold.
        assert manifest.read_labels(test.label_file) == ["a", "b"]
