import unicodedata

import pytest

from elo_tf.data.splits.official_lists import Listed
from elo_tf.data.splits.video_folder import FOLDER, SPELLING, SUFFIX, VideoFolder


def folder(tmp_path, *names):
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return VideoFolder(tmp_path)


def listed(path, stem=None, label="wave", case_matters=False):
    return Listed(path, "train", label, stem=stem, case_matters=case_matters)


def test_the_file_that_is_listed_comes_first(tmp_path):
    videos = folder(tmp_path, "wave/a.avi", "wave/A.avi", "wave/a.mp4", "other/a.avi")
    assert videos.find(listed("wave/a.avi", "a")) == ("wave/a.avi", "")
    assert videos.find(listed("./wave//A.avi", "a")) == ("wave/A.avi", "")
    assert videos.count == 4 and len(videos.first()) == 2


def test_other_suffix_spelling_and_folder(tmp_path):
    decomposed = unicodedata.normalize("NFD", "wave/über é.avi")
    videos = folder(tmp_path, "wave/one.mp4", "Wave/two.AVI", decomposed, "x/y/four.avi",
                    "wave/Mr. Five.webm", "wave/.six.avi", "wave/seven.txt")
    assert videos.find(listed("wave/one.avi")) == ("wave/one.mp4", SUFFIX)
    assert videos.find(listed("wave/one")) == ("wave/one.mp4", "")
    assert videos.find(listed("wave/two.avi")) == ("Wave/two.AVI", SPELLING)
    composed = unicodedata.normalize("NFC", decomposed)
    assert composed != decomposed
    assert videos.find(listed(composed)) == (decomposed, SPELLING)
    assert videos.find(listed("wave/four.avi", "four")) == ("x/y/four.avi", FOLDER)
    assert videos.find(listed("wave/FOUR.avi", "FOUR")) == ("x/y/four.avi", FOLDER)
    assert videos.find(listed("wave/four.avi")) == (None, "")
    assert videos.find(listed("wave/Mr. Five.avi")) == ("wave/Mr. Five.webm", SUFFIX)
    for path in ("wave/six.avi", "wave/.six.avi", "wave/seven.txt", "wave/seven", "wave"):
        assert videos.find(listed(path)) == (None, "")


def test_names_that_differ_in_case_are_different_where_it_matters(tmp_path):
    videos = folder(tmp_path, "k/abC_000001_000011.mp4")
    for path, stem in (("abc_000001_000011", "abc_000001_000011"), ("K/abC_000001_000011", None)):
        assert videos.find(listed(path, stem, case_matters=True)) == (None, "")
    found = videos.find(listed("abC_000001_000011", "abC_000001_000011", case_matters=True))
    assert found == ("k/abC_000001_000011.mp4", "")


@pytest.mark.parametrize(("label", "expected"), [
    ("wave", "b/wave/v.mp4"), ("air drumming", "c/air_drumming/v.mp4"), ("run", "a/v.mp4")])
def test_of_several_the_one_below_its_class_is_taken(tmp_path, label, expected):
    videos = folder(tmp_path, "a/v.mp4", "b/wave/v.mp4", "c/air_drumming/v.mp4")
    assert videos.find(listed("v", "v", label))[0] == expected


def test_paths_that_lead_outside(tmp_path):
    videos = folder(tmp_path / "in", "a.mp4")
    folder(tmp_path, "b.mp4")
    assert videos.find(listed(f"{tmp_path}/in/a.mp4")) == ("a.mp4", "")
    assert videos.find(listed(f"{tmp_path}/b.mp4")) == (f"{tmp_path}/b.mp4", "")
    assert videos.find(listed("../b.mp4")) == ("../b.mp4", "")
    assert videos.find(listed("../c.mp4")) == (None, "")
    assert videos.find(listed(f"{tmp_path}/c.mp4")) == (None, "")
