import hashlib

import pytest

from elo_tf.data.splits import plain_lists
from elo_tf.errors import UserError


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def touch(root, *names):
    for name in names:
        write(root / name, "x")


@pytest.mark.parametrize(("line", "path", "label"), [
    ("a/b.mp4 3", "a/b.mp4", "3"), ("a b/c d.mp4 3", "a b/c d.mp4", "3"),
    ("a, b.mp4,3", "a, b.mp4", "3"), ("a.mp4, 3", "a.mp4", "3"), ("a.MKV\t3 ", "a.MKV", "3"),
    ("a.mp4 riding a bike", "a.mp4", "riding a bike"), ("a.mp4.avi 1", "a.mp4.avi", "1"),
    ("a.mp4", "a.mp4", None), ("my a.mp4", "my a.mp4", None), ("a.mp4 0 -1", "a.mp4", None),
    ("a.mp4, 0, -1", "a.mp4", None), ("a.mp4 -1", "a.mp4", None),
    ('"a, ""b"".mp4",wave', 'a, "b".mp4', "wave"), ("folder x 7", "folder x", "7"),
    ("/abs/é.webm 12", "/abs/é.webm", "12")])
def test_lines(tmp_path, line, path, label):
    source = write(tmp_path / "train.txt", f"first.mp4 1\r\n\r\n{line}\r\n")
    video = plain_lists.read_path_lists(source).videos[1]
    assert (video.path, video.label, video.split) == (path, label, "train")


def test_integers_keep_their_values_as_ids(tmp_path):
    write(tmp_path / "train.csv", "".join(f"{i}.mp4 {i}\n" for i in (0, 2, 10, 11)))
    write(tmp_path / "k_val_list.txt", "9.mp4 9\n")
    write(tmp_path / "classes.txt", "not a list")
    listing = plain_lists.read_path_lists(tmp_path)
    assert listing.names == [str(i) for i in range(12)]
    assert [(v.split, v.label) for v in listing.videos] == [
        ("train", "0"), ("train", "2"), ("train", "10"), ("train", "11"), ("val", "9")]
    assert listing.splits == ["train", "val"]
    assert "7 labels between 0 and 11 do not occur (such as 1)" in listing.notes[0]


@pytest.mark.parametrize("text", ["walk\nair drumming\nrun\n", "0 walk\n1 air drumming\n2 run\n",
                                  "0,walk\n1,air drumming\n2,run\n"])
def test_integers_take_names_in_the_order_of_their_file(tmp_path, text):
    source = write(tmp_path / "list.txt", "a.mp4 2\nb.mp4 0\nc.mp4\n")
    names = write(tmp_path / "names.txt", text)
    listing = plain_lists.read_path_lists(source, names)
    assert listing.names == ["walk", "air drumming", "run"]
    assert [v.label for v in listing.videos] == ["run", "walk", None]
    write(source, "a.mp4 2\nb.mp4 3\n")
    with pytest.raises(UserError, match="line 2: the label '3' is not in .*names.txt, which has 3"):
        plain_lists.read_path_lists(source, names)


def test_names_that_count_from_1(tmp_path):
    source = write(tmp_path / "list.txt", "a.mp4 2\nb.mp4 1\n")
    names = write(tmp_path / "classInd.txt", "1 walk\n2 run\n")
    listing = plain_lists.read_path_lists(source, names)
    assert listing.names == ["walk", "run"] and [v.label for v in listing.videos] == ["run", "walk"]
    # Names that begin with numbers of another order are names.
    write(names, "2 steps\n1 jump\n3 rolls\n")
    assert plain_lists.read_path_lists(source, names).names == ["2 steps", "1 jump", "3 rolls"]
    assert plain_lists.read_path_lists(source, names).videos[0].label == "3 rolls"
    write(names, "walk\nwalk\n")
    with pytest.raises(UserError, match="repeats a name"):
        plain_lists.read_path_lists(source, names)
    with pytest.raises(UserError, match="gone does not exist"):
        plain_lists.read_path_lists(source, tmp_path / "gone")


def test_names_in_the_list_are_sorted_unless_a_file_orders_them(tmp_path):
    source = write(tmp_path / "x.txt", "path,label\na.mp4,walk\nb.mp4,10\nc.mp4,bend\n")
    listing = plain_lists.read_path_lists(source)
    assert listing.names is None and listing.splits == ["x"]
    assert [v.label for v in listing.videos] == ["walk", "10", "bend"]
    names = write(tmp_path / "names", "walk\nbend\n10\n")
    assert plain_lists.read_path_lists(source, names).names == ["walk", "bend", "10"]
    write(names, "walk\nbend\n")
    with pytest.raises(UserError, match="line 3: the label '10' is not in"):
        plain_lists.read_path_lists(source, names)


def test_bad_lists(tmp_path):
    with pytest.raises(UserError, match="holds no list"):
        plain_lists.read_path_lists(tmp_path)
    for text, words in (("", "lists no videos"), ("a.mp4 200000\n", "the label 200000"),
                        ('a.mp4 1\n"",2\n', "line 2")):
        with pytest.raises(UserError, match=words):
            plain_lists.read_path_lists(write(tmp_path / "train.txt", text))
    write(tmp_path / "train.txt", "a.mp4 1\n")
    write(tmp_path / "train_2.txt", "b.mp4 1\n")
    with pytest.raises(UserError, match="split train: train.txt and train_2.txt"):
        plain_lists.read_path_lists(tmp_path)


def test_folders_of_splits(tmp_path):
    touch(tmp_path, "train/wave/a.mp4", "train/run/b.mp4", "validation/run/c.mp4",
          "test/deep/wave/d.mp4", "notes.txt")
    listing = plain_lists.read_class_folders(tmp_path)
    assert [(v.path, v.split, v.label) for v in listing.videos] == [
        ("test/deep/wave/d.mp4", "test", "wave"), ("train/run/b.mp4", "train", "run"),
        ("train/wave/a.mp4", "train", "wave"), ("validation/run/c.mp4", "val", "run")]
    assert listing.splits == ["train", "val", "test"]
    touch(tmp_path, "train/loose.mp4")
    with pytest.raises(UserError, match="train/loose.mp4 in .* lies in no folder of a class"):
        plain_lists.read_class_folders(tmp_path)


def test_a_share_of_each_class_is_for_testing(tmp_path):
    sizes = {"many": 40, "few": 3, "two": 2, "one": 1}
    touch(tmp_path, *(f"{name}/{i:02d}.mp4" for name, n in sizes.items() for i in range(n)))
    touch(tmp_path, "loose.mp4")
    listing = plain_lists.read_class_folders(tmp_path, test_percent=25, seed=3)
    test = {name: {v.path for v in listing.videos if v.label == name and v.split == "test"}
            for name in sizes}
    assert {name: len(paths) for name, paths in test.items()} == {
        "many": 10, "few": 1, "two": 1, "one": 0}
    ranked = sorted((f"many/{i:02d}.mp4" for i in range(40)),
                    key=lambda path: hashlib.sha256(f"3\n{path}".encode()).hexdigest())
    assert test["many"] == set(ranked[:10])
    assert len(listing.videos) == 46 and "1 videos lie in" in listing.notes[0]
    other = plain_lists.read_class_folders(tmp_path, test_percent=25, seed=4)
    assert {v.path for v in other.videos if v.split == "test" and v.label == "many"} != test["many"]
    assert plain_lists.read_class_folders(tmp_path, test_percent=0).splits == ["train"]
