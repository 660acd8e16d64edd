"""The readers of official lists: on the real ones, and on small lists with every trap."""

import subprocess

import pytest

from elo_tf.data.splits import official_lists
from elo_tf.errors import UserError


def write(folder, **texts):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def grep(pattern, *paths):
    """Number of lines that match, counted by grep."""
    done = subprocess.run(["grep", "-hcP", pattern, *map(str, paths)], capture_output=True,
                          text=True, check=False)
    return sum(map(int, done.stdout.split()))


def count(listing, split):
    return sum(video.split == split for video in listing.videos)


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_the_real_lists_of_hmdb51(shared_splits, fold):
    folder = shared_splits / "hmdb51_splits"
    listing = official_lists.read_hmdb51(folder, fold)
    files = sorted(folder.glob(f"*_test_split{fold}.txt"))
    for flag, split, official in (("1", "train", 3570), ("2", "test", 1530), ("0", "unused", 1666)):
        assert count(listing, split) == grep(rf" {flag}\s*$", *files) == official
        assert listing.official[split] == official
    assert len({video.path for video in listing.videos}) == 6766 == grep(r"\S", *files)
    # The stray file names the classes.
    classes = {line.split()[-1] for line in
               (folder / "class_list.txt").read_text().splitlines() if line.strip()}
    assert {video.label for video in listing.videos} == classes and len(classes) == 51
    # The protocol takes 70 and 30 videos of each class.
    for label in classes:
        of_class = [video.split for video in listing.videos if video.label == label]
        assert (of_class.count("train"), of_class.count("test")) == (70, 30)
    assert all(video.path.startswith(f"{video.label}/") and video.path.endswith(".avi")
               for video in listing.videos)
    assert len({video.stem for video in listing.videos}) == 6766


@pytest.mark.parametrize(("fold", "train", "test"), [
    (1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)])
def test_the_real_lists_of_ucf101(shared_splits, fold, train, test):
    folder = shared_splits / "ucf101_splits"
    listing = official_lists.read_ucf101(folder, fold)
    assert count(listing, "train") == grep(r"\S", folder / f"trainlist0{fold}.txt") == train
    assert count(listing, "test") == grep(r"\S", folder / f"testlist0{fold}.txt") == test
    assert listing.official == {"train": train, "test": test}
    assert len({video.path for video in listing.videos}) == 13320
    index = dict(reversed(line.split()) for line in
                 (folder / "classInd.txt").read_text().splitlines() if line.strip())
    assert {video.label for video in listing.videos} == set(index) and len(index) == 101
    stand = next(v for v in listing.videos if v.path.endswith("v_HandStandPushups_g01_c01.avi"))
    assert stand.path == "HandstandPushups/v_HandStandPushups_g01_c01.avi"
    assert (stand.label, stand.stem) == ("HandstandPushups", "v_HandStandPushups_g01_c01")
    # Hammering comes before HammerThrow in classInd.txt, and after it in sorted order.
    official, ours = sorted(index, key=lambda name: int(index[name])), sorted(index)
    first = next(i for i in range(101) if official[i] != ours[i])
    assert len(listing.notes) == 1
    assert f"id {first} is {ours[first]}, which has the number {index[ours[first]]}" in \
        listing.notes[0]


def test_hmdb51_of_awkward_names(tmp_path):
    folder = write(
        tmp_path, test_test_split1="a b_[x](y)#1;'!.avi 1 \r\n\r\nc,d.avi 2\n",
        test_test_split2="e.avi 1", wave_test_split1=b"\xef\xbb\xbf\xc3\xbcber.avi 0 \n",
        class_list="1 test\n")
    listing = official_lists.read_hmdb51(folder, 1)
    assert [(v.path, v.split, v.label, v.stem) for v in listing.videos] == [
        ("test/a b_[x](y)#1;'!.avi", "train", "test", "a b_[x](y)#1;'!"),
        ("test/c,d.avi", "test", "test", "c,d"), ("wave/über.avi", "unused", "wave", "über")]


@pytest.mark.parametrize(("text", "words"), [
    ("a.avi 3 \n", ["line 1", "0, 1 or 2"]), ("a.avi 1\n\nb.avi\n", ["line 3", "b.avi"]),
    ("1\n", ["line 1"]), (b"\xff.avi 1\n", ["UTF-8"])])
def test_a_malformed_list_of_hmdb51_is_named(tmp_path, text, words):
    folder = write(tmp_path, wave_test_split1=text)
    with pytest.raises(UserError, match="wave_test_split1.txt") as error:
        official_lists.read_hmdb51(folder, 1)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_folders_without_lists(tmp_path):
    write(tmp_path, notes="x")
    for read in (official_lists.read_hmdb51, official_lists.read_ucf101):
        with pytest.raises(UserError, match=r"holds no .*it holds notes\.txt"):
            read(tmp_path, 1)
        with pytest.raises(UserError, match="is not a folder"):
            read(tmp_path / "notes.txt", 1)
    with pytest.raises(UserError, match="no list of Kinetics"):
        official_lists.read_kinetics(tmp_path)


def test_ucf101_spelling_and_numbers_follow_the_index(tmp_path):
    folder = write(tmp_path, classInd="1 Archery\r\n2 HandstandPushups\r\n",
                   trainlist01="HandStandPushups/v_a b.avi 2\r\nArchery/v_1.avi 1\r\n",
                   testlist01="archery/v_2.avi\r\n")
    listing = official_lists.read_ucf101(folder, 1)
    assert [(v.path, v.split, v.label) for v in listing.videos] == [
        ("HandStandPushups/v_a b.avi", "train", "HandstandPushups"),
        ("Archery/v_1.avi", "train", "Archery"), ("archery/v_2.avi", "test", "Archery")]
    assert listing.notes == []
    with pytest.raises(UserError, match="no trainlist02.txt"):
        official_lists.read_ucf101(folder, 2)
    write(tmp_path, trainlist01="Archery/v_1.avi 2\n")
    with pytest.raises(UserError, match="trainlist01.txt line 1: Archery has the number 2, "):
        official_lists.read_ucf101(folder, 1)
    write(tmp_path, trainlist01="Archery/v_1.avi 1\nDance/v_1.avi 1\n")
    with pytest.raises(UserError, match="line 2: the class 'Dance' is not in"):
        official_lists.read_ucf101(folder, 1)
    write(tmp_path, trainlist01="v_1.avi 1\n")
    with pytest.raises(UserError, match="is not <class>/<file>"):
        official_lists.read_ucf101(folder, 1)
    write(tmp_path, classInd="Archery\n")
    with pytest.raises(UserError, match="classInd.txt line 1"):
        official_lists.read_ucf101(folder, 1)


def test_kinetics_in_all_its_columns(tmp_path):
    (tmp_path / "train.csv").write_text(
        "label,youtube_id,time_start,time_end,split,is_cc\r\n"
        "\"air drumming\",_-AB-cd0123,7,17,train,0\r\n"
        "massaging person's head,aaaaaaaaaaa,0.0,10.0,train,1\r\n")
    (tmp_path / "k700_val.csv").write_text(
        "label,youtube_id,time_start,time_end,split\ntestifying,---QUuC4vJs,84,94,validate\n")
    (tmp_path / "kinetics_test.csv").write_text(
        "youtube_id,time_start,time_end,split\nbbbbbbbbbbb,100,110,test\n")
    (tmp_path / "mediapipe_train.csv").write_text("video,start,end,label\nccccccccccc,1,2,x\n")
    (tmp_path / "classes.csv").write_text("id,name\n0,x\n")
    listing = official_lists.read_kinetics(tmp_path)
    assert [(v.path, v.split, v.label, v.start) for v in listing.videos] == [
        ("---QUuC4vJs_000084_000094", "val", "testifying", None),
        ("bbbbbbbbbbb_000100_000110", "test", None, None),
        ("ccccccccccc_000001_000002", "train", "x", None),
        ("_-AB-cd0123_000007_000017", "train", "air drumming", None),
        ("aaaaaaaaaaa_000000_000010", "train", "massaging person's head", None)]
    assert listing.splits == ["train", "val", "test"] and listing.official == {}
    assert listing.notes == [
        "classes.csv has no columns youtube_id, time_start and time_end; it is not read"]
    formatted = official_lists.read_kinetics(
        tmp_path / "train.csv", "{split}/{label_}/{youtube_id}_{start}-{end:03d}.mp4")
    assert formatted.videos[0].path == "train/air_drumming/_-AB-cd0123_7-017.mp4"
    assert formatted.videos[0].stem is None
    unlabelled = official_lists.read_kinetics(
        tmp_path / "kinetics_test.csv", "{label}/{youtube_id}")
    assert unlabelled.videos[0].path == "bbbbbbbbbbb"
    whole = official_lists.read_kinetics(tmp_path / "k700_val.csv", whole_videos=True).videos[0]
    assert (whole.path, whole.start, whole.end) == ("---QUuC4vJs", 84.0, 94.0)


@pytest.mark.parametrize(("row", "path_format", "words"), [
    ("x,id,a,10,train", None, ["line 3", "'a'"]), ("x,id,0,10", None, ["line 3", "4 values for 5"]),
    ("x,id,nan,10,train", None, ["line 3", "'nan'"]),
    ("x,id,0,10,train", "{name}.mp4", ["path_format", "'name'", "youtube_id"]),
    ("x,id,0,10,train", "{label", ["path_format"]),
    ("x,id,0,10,train", "{start[0]}", ["path_format", "not subscriptable", "youtube_id"]),
    ("x,id,0,10,train", "{label.name}", ["path_format", "'name'"]),
    ('x,id,0,10,"' + 140_000 * "y", None, ["k.csv line", "field limit", "quotes"])])
def test_a_malformed_list_of_kinetics_is_named(tmp_path, row, path_format, words):
    path = tmp_path / "k.csv"
    path.write_text(f"label,youtube_id,time_start,time_end,split\n\n{row}\n")
    with pytest.raises(UserError) as error:
        official_lists.read_kinetics(path, path_format)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_split_names():
    for text, name in (("kinetics_val", "val"), ("validate", "val"), ("test", "test"),
                       ("hmdb51_train_split_1", "train"), ("Training", "train"),
                       ("my list (2)", "my_list_2")):
        assert official_lists.split_name(text) == name
    assert official_lists.without_suffix("a.b.AVI") == "a.b"
    assert official_lists.without_suffix("Mr. Bean") == "Mr. Bean"
