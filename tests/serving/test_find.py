"""The nearest videos, beside scikit-learn's; queries of every kind; the program."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from elo_tf.data import conversion
from elo_tf.errors import UserError
from elo_tf.serving import embedding_store, embeddings, nearest
from elo_tf.serving.embedding_store import Embeddings
from tests.serving.conftest import make_video

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def stored(features, *, clips=1):
    """Rows named v00, v01 ..., as many of a video as said."""
    rows = [{"id": f"v{i // clips:02d}" + (f"/{i % clips}-{i % clips + 1}" if clips > 1 else ""),
             "video": f"v{i // clips:02d}", "path": f"/videos/v{i // clips:02d}", "bytes": 5,
             "start": float(i % clips), "end": i % clips + 1.0, "clips": 1, "status": "ok"}
            for i in range(len(features))]
    return Embeddings(rows, np.asarray(features, np.float32), {})


def no_files(paths):
    raise AssertionError(paths)


@pytest.fixture
def features():
    draw = np.random.Generator(np.random.PCG64(3))
    return draw.gamma(2.0, size=(60, 8)).astype(np.float32)


def test_neighbours_are_those_of_scikit_learn(features):
    collection = nearest.Collection(stored(features))
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    judge = NearestNeighbors(n_neighbors=60, metric="cosine", algorithm="brute").fit(centred)
    distances, order = judge.kneighbors(centred)
    for i in (0, 17, 59):
        [query] = collection.queries([f"v{i:02d}"], no_files)
        found = collection.nearest(query, 7)
        assert order[i, 0] == i
        assert [x.row["id"] for x in found.neighbours] == [f"v{j:02d}" for j in order[i, 1:8]]
        np.testing.assert_allclose([x.similarity for x in found.neighbours],
                                   1 - distances[i, 1:8], atol=1e-6)
        assert found.median == pytest.approx(np.median(1 - distances[i, 1:]), abs=1e-6)
    # Without centring, others would be nearest.
    plain = NearestNeighbors(n_neighbors=8, metric="cosine", algorithm="brute").fit(features)
    assert (plain.kneighbors(features)[1][:, 1:] != order[:, 1:8]).any()


def test_a_video_of_several_clips_is_their_mean_and_no_neighbour_of_itself(features):
    collection = nearest.Collection(stored(features, clips=3))
    [video, clip] = collection.queries(["v04", "v04/1-2"], no_files)
    np.testing.assert_allclose(video.feature, features[12:15].mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(clip.feature, features[13])
    assert (video.start, video.end, clip.start, clip.end) == (0.0, 3.0, 1.0, 2.0)
    for query in (video, clip):
        found = collection.nearest(query, 100)
        assert len(found.neighbours) == 57
        assert not any(x.row["video"] == "v04" for x in found.neighbours)


def test_equal_ones_come_in_order_and_the_mean_itself_is_like_nothing():
    features = np.array([[1, 0], [2, 1], [1, 0], [1, 0], [0, 3]])
    features = np.concatenate([features, 2 * features.mean(0)[None] - features]).astype(np.float32)
    collection = nearest.Collection(stored(features))
    [query] = collection.queries(["v00"], no_files)
    found = collection.nearest(query, 2).neighbours
    assert [x.row["id"] for x in found] == ["v02", "v03"]
    assert [x.similarity for x in found] == pytest.approx([1, 1])
    middle = nearest.Query("middle", "", 0.0, 1.0, features.mean(axis=0))
    assert {x.similarity for x in collection.nearest(middle, 3).neighbours} == {0.0}
    collapsed = nearest.Collection(stored(features[:1].repeat(9, axis=0) + 0.3))
    found = collapsed.nearest(collapsed.queries(["v00"], no_files)[0], 3)
    assert {x.similarity for x in found.neighbours} == {0.0}
    with pytest.raises(UserError, match="nothing but v00 itself"):
        alone = nearest.Collection(stored(features[:1]))
        alone.nearest(alone.queries(["v00"], no_files)[0], 3)


def test_random_queries_depend_on_the_seed_alone(features):
    collection = nearest.Collection(stored(features))

    def drawn(text, seed):
        return [x.id for x in collection.queries([text], no_files, seed=seed)]

    first = drawn("@random:8", 1)
    assert len(set(first)) == 8 and first == drawn("@random:8", 1) != drawn("@random:8", 2)
    assert len(set(drawn("@random:99", 1))) == 60
    for text in ("@random:0", "@random:x", "@random:"):
        with pytest.raises(UserError, match="give @random:8"):
            drawn(text, 1)
    with pytest.raises(UserError, match="neither a file nor an id .*near misses: v"):
        drawn("v0", 1)


@pytest.fixture(scope="module")
def folder(exported, videos, tmp_path_factory):
    """Embeddings of the videos."""
    output = tmp_path_factory.mktemp("embeddings") / "out"
    embeddings.embed_folder(
        str(exported), str(videos), str(output), clips=embeddings.Clips(2),
        effort=embeddings.Effort(0, 4, conversion.Limits()))
    return output


def test_a_file_is_embedded_as_the_collection_was(folder, videos, tmp_path):
    read = embedding_store.read_embeddings(folder)
    copy = tmp_path / "copy.mp4"
    shutil.copy(videos / "b" / "tall.mp4", copy)
    [query] = nearest.embed_files([str(copy)], read.settings, None)
    place = [row["id"] for row in read.rows].index("b/tall.mp4")
    np.testing.assert_allclose(query.feature, read.features[place], atol=1e-5)
    best = nearest.Collection(read).nearest(query, 1).neighbours[0]
    assert (best.row["id"], best.similarity) == ("b/tall.mp4", pytest.approx(1, abs=1e-5))
    # One of the collection is not embedded again.
    [known] = nearest.Collection(read).queries([str(videos / "b" / "tall.mp4")], no_files)
    assert known.id == "b/tall.mp4"
    np.testing.assert_array_equal(known.feature, read.features[place])
    # Unless it is another file by now.
    changed = [row | {"bytes": row["bytes"] + 1} for row in read.rows]
    collection = nearest.Collection(Embeddings(changed, read.features, read.settings))
    asked = []
    collection.queries([str(videos / "b" / "tall.mp4")], lambda x: asked.extend(x) or [query])
    assert asked == [str(videos / "b" / "tall.mp4")]
    with pytest.raises(UserError, match="text.mp4 cannot be used, undecodable"):
        nearest.embed_files([str(videos / "a" / "text.mp4")], read.settings, None)


def test_the_model_must_be_the_same(folder, exported, tmp_path):
    settings = embedding_store.read_embeddings(folder).settings
    assert nearest.open_same_model(settings, None).folder == exported / "1"
    assert nearest.open_same_model(settings, str(exported)).folder == exported / "1"
    gone = settings | {"model": str(tmp_path / "gone")}
    with pytest.raises(UserError, match="no longer at .*gone; give --model_dir"):
        nearest.open_same_model(gone, None)
    assert nearest.open_same_model(gone, str(exported)).folder == exported / "1"
    shutil.copytree(exported / "1", tmp_path / "2")
    with open(tmp_path / "2" / "saved_model.pb", "ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match="is not the one that made the embeddings"):
        nearest.open_same_model(settings, str(tmp_path))


def find(*flags):
    return subprocess.run([sys.executable, "-m", "elo_tf.bin.find", *map(str, flags)], cwd=ROOT,
                          capture_output=True, text=True, timeout=300, check=False)


def test_the_program(folder, videos, tmp_path):
    make_video(tmp_path / "new.mp4", seed=1, frames=40, width=58, height=32)  # that of a/wide.mp4
    done = find(f"--embeddings={folder}", f"--query={tmp_path}/new.mp4", "--query=b/small.mp4",
                "--query=@random:1", "--top=3", f"--html={tmp_path}/g.html")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 * 4 + 1 and lines[-1] == f"gallery: {tmp_path}/g.html"
    assert lines[0].startswith(f"query {tmp_path}/new.mp4 (")
    assert lines[1].split() == ["1", "1.000", "a/wide.mp4", str(videos / "a" / "wide.mp4")]
    assert lines[4].startswith("query b/small.mp4 (")
    ranks = [line.split()[:2] for line in lines[5:8]]
    assert [x[0] for x in ranks] == ["1", "2", "3"]
    assert sorted(ranks, key=lambda x: -float(x[1])) == ranks
    assert (tmp_path / "g.html").read_text().count("<section>") == 3


def test_mistakes_are_one_line(folder, tmp_path):
    for flags, words in (
            ((f"--embeddings={tmp_path}/no", "--query=x"), "is no folder"),
            ((f"--embeddings={tmp_path}", "--query=x"), "cannot read"),
            ((f"--embeddings={folder}", "--query=b/smal.mp4"), "near misses: b/small.mp4")):
        done = find(*flags)
        assert done.returncode == 2 and words in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    [shard] = (damaged / "embeddings.parquet").iterdir()
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot be read"):
        embedding_store.read_embeddings(damaged)
    shard.unlink()
    with pytest.raises(UserError, match="no embeddings yet"):
        embedding_store.read_embeddings(damaged)
    assert json.loads((damaged / "summary.json").read_text())["embedded"] == 6
