"""A whole evaluation of small networks: averages over splits, what is kept, guards, one frame."""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from sklearn import linear_model, neighbors, pipeline, preprocessing

from elo_tf.data import schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError
from elo_tf.evaluation import evaluate as evaluation
from elo_tf.evaluation import feature_store, heads, protocols
from elo_tf.evaluation.feature_store import FeatureStore, labelled_features
from elo_tf.evaluation.label_curve import LabelCurve
from elo_tf.evaluation.leakage import check_pair
from elo_tf.evaluation.linear import choose_regulariser
from elo_tf.evaluation.record_index import read_index
from elo_tf.features import FeatureExtractor
from elo_tf.training import encoder_files

CLIP = ClipSpec(frames=2, next_frames=1, fps=2.0, size=16, crop=1.0)
PAIRS = (("train1", "test1"), ("train2", "test2"))
NEIGHBOURS = (protocols.NeighboursProtocol(k=3), protocols.RetrievalProtocol(ranks=(1, 3)))


def make_encoder(seed):
    """A network that sees motion: one convolution over time and space."""
    frames = tf.keras.Input([CLIP.frames, CLIP.size, CLIP.size, 3])
    convolved = tf.keras.layers.Conv3D(
        8, (2, 3, 3), activation="relu",
        kernel_initializer=tf.keras.initializers.GlorotNormal(seed))(frames)
    pooled = tf.keras.layers.GlobalAveragePooling3D()(convolved)
    return tf.keras.Model(frames, {"embedding": pooled})


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    for seed, name in enumerate((encoder_files.TRAINED, encoder_files.UNTRAINED)):
        encoder_files.save_encoder(make_encoder(seed), folder, name)
    encoder_files.save_clip(CLIP, folder, "")
    return folder


@pytest.fixture(scope="module")
def extractor():
    """One whose features are the mean colours."""
    frames = tf.keras.Input([CLIP.frames, CLIP.size, CLIP.size, 3])
    pooled = tf.keras.layers.GlobalAveragePooling3D()(frames)
    return FeatureExtractor(tf.keras.Model(frames, {"embedding": pooled}), CLIP)


def write_split(folder, split, labels, *, prefix=None, frames=1, seed=0, video=None,
                noise=10):
    """Records of colours that go with the label, more or less; and ids by split and number."""
    folder.mkdir(exist_ok=True)
    (folder / schema.LABELS_FILE).write_text("".join(f"class {x}\n" for x in range(4)))
    generator = np.random.default_rng(seed)
    with tf.io.TFRecordWriter(str(folder / schema.shard_name(split, 0, 1))) as writer:
        for number, label in enumerate(labels):
            example = tf.train.SequenceExample()
            for _ in range(frames):
                colour = 60 + 40 * label + generator.integers(-noise, noise, (1, 1, 3))
                picture = np.broadcast_to(colour, (16, 16, 3)).astype(np.uint8)
                example.feature_lists.feature_list[schema.IMAGE_ENCODED].feature.add(
                    ).bytes_list.value.append(tf.io.encode_jpeg(picture).numpy())
            context = example.context.feature
            context[schema.LABEL_INDEX].int64_list.value.append(label)
            context[schema.IMAGE_FRAME_RATE].float_list.value.append(2.0)
            name = f"{prefix or split}/{number}.mp4".encode()
            context[schema.EXAMPLE_ID].bytes_list.value.append(name)
            context[schema.MEDIA_ID].bytes_list.value.append(video or name)
            writer.write(example.SerializeToString(deterministic=True))
    return Records(str(folder))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Two pairs of splits of three classes."""
    folder = tmp_path_factory.mktemp("records")
    for seed, (split, count) in enumerate((("train1", 18), ("test1", 9), ("train2", 15),
                                           ("test2", 12))):
        write_split(folder, split, np.arange(count) % 3, frames=4, seed=seed, noise=60)
    return Records(str(folder))


@pytest.fixture(scope="module")
def kept(encoder_dir, records, tmp_path_factory):
    """The features of both networks; the first evaluation extracts them."""
    folder = tmp_path_factory.mktemp("kept")
    evaluation.evaluate(str(folder), str(encoder_dir), records=records, splits=PAIRS,
                        protocols=(), batch_size=4)
    return folder / evaluation.FEATURES


@pytest.fixture
def run_dir(kept, tmp_path):
    """The folder of a run that was killed after extracting."""
    shutil.copytree(kept, tmp_path / "run" / evaluation.FEATURES)
    return tmp_path / "run"


def features_of(extractor, records):
    return labelled_features(extractor, records, "test", CLIP, 4, 2, 3, "test")


def test_views_of_a_video_are_one_row(extractor, tmp_path):
    features = features_of(extractor, write_split(tmp_path / "a", "test", [0, 3, 1]))
    assert features.labels.tolist() == [0, 3, 1] and features.embedding.shape == (3, 3)
    assert np.argsort(features.embedding.mean(axis=1)).tolist() == [0, 2, 1]


def test_a_split_without_a_record_is_named(extractor, tmp_path):
    with pytest.raises(UserError, match="no record of split 'test' in .*/none can be read"):
        features_of(extractor, write_split(tmp_path / "none", "test", []))


def test_sources_without_a_common_label_map_are_not_called_unlabelled(extractor, tmp_path):
    one, other = (write_split(tmp_path / name, "test", [0, 1]) for name in "ab")
    (tmp_path / "b" / schema.LABELS_FILE).write_text("b\na\n")
    with pytest.raises(UserError, match="have no label map in common"):
        features_of(extractor, MixedRecords((one, other)))
    same = write_split(tmp_path / "c", "test", [1])
    assert features_of(extractor, MixedRecords((one, same))).labels.tolist() == [0, 1, 1]


def test_a_static_clip_is_its_middle_frame_repeated(encoder_dir):
    encoder = encoder_files.load_encoder(encoder_dir)
    clips = np.random.default_rng(0).integers(0, 255, (3, 2, 16, 16, 3), dtype=np.uint8)
    still = np.repeat(clips[:, 1:2], 2, axis=1)
    moving = FeatureExtractor(encoder, CLIP)
    batch = {"id": tf.constant(["a", "b", "c"]), "label": tf.constant([0, 1, 2])}
    found = FeatureExtractor(encoder, CLIP, static=True)([{"rgb": tf.constant(clips), **batch}])
    expected = moving([{"rgb": tf.constant(still), **batch}]).embedding
    np.testing.assert_allclose(found.embedding, expected, rtol=1e-5, atol=1e-6)
    others = moving([{"rgb": tf.constant(clips), **batch}]).embedding
    assert np.abs(others - expected).max() > 1e-3


def test_pairs_of_splits_are_averaged_and_a_second_run_computes_nothing(
        encoder_dir, records, run_dir, monkeypatch):
    settings = {
        "records": records, "splits": PAIRS, "seeds": (0, 1),
        "protocols": (protocols.KMeansProtocol(), *NEIGHBOURS), "method": "elo",
        "label_curve": LabelCurve(counts=(3, 9, 9),
                                  linear=protocols.LinearProtocol(solver="ridge"))}

    def never(*arguments, **settings):
        raise AssertionError("what was computed before is computed again")

    monkeypatch.setattr(feature_store, "FeatureExtractor", never)
    result = evaluation.evaluate(str(run_dir), str(encoder_dir), **settings)
    rows = {(x["network"], x["protocol"]): x for x in result["rows"]}
    assert list(rows)[:7] == [("trained", x) for x in (
        "kmeans", "kmeans_majority", "kmeans_nmi", "kmeans_ari", "knn", "retrieval@1",
        "retrieval@3")]
    # By hand, from what was stored: the nearest neighbour has the class as often as R@1 says.
    for network, file in evaluation.NETWORKS.items():
        found, kmeans = [], []
        for pair in PAIRS:
            train, test = (stored(run_dir, network, name) for name in pair)
            cosine = neighbors.KNeighborsClassifier(1, metric="cosine", algorithm="brute")
            cosine.fit(train["embedding"], train["labels"])
            found.append(cosine.score(test["embedding"], test["labels"]))
            kmeans.append([protocols.KMeansProtocol()(None, None, test["embedding"],
                                                      test["labels"], seed).values["kmeans"]
                           for seed in (0, 1)])
            encoder = encoder_files.load_encoder(encoder_dir, file)
            assert train["parameters"] == encoder.count_params()
        row = rows[network, "retrieval@1"]
        assert row["values"] == [pytest.approx(np.mean(found))] and row["n"] == 1
        assert (row["std"], row["interval"]) == (0, 0)
        row = rows[network, "kmeans"]
        assert row["values"] == pytest.approx(np.mean(kmeans, axis=0)) and row["n"] == 2
        assert row["mean"] == pytest.approx(np.mean(kmeans))
    assert (result["split"], result["train_clips"], result["test_clips"]) == (
        "test1, test2", 16, 10)
    assert [x["test_clips"] for x in result["splits"]] == [9, 12]
    assert result["chance"] == pytest.approx(1 / 3) and result["classes"] == [
        "class 0", "class 1", "class 2"]
    assert [(x["network"], x["protocol"], x["clips"], x["n"]) for x in result["curves"]] == [
        ("trained", "linear", [3, 9], 2), ("untrained", "linear", [3, 9], 2)]
    assert json.loads((run_dir / evaluation.RESULT).read_text()) == result
    table = (run_dir / evaluation.TABLE).read_text()
    row = rows["trained", "kmeans"]
    assert f"| k-means | {100 * row['mean']:.1f} ± {100 * row['interval']:.1f} |" in table
    assert "| 43.4 |" in table and "What differs in scale" in table
    curve = result["curves"][1]
    point = f"| 3 | {100 * curve['mean'][0]:.1f} ± {100 * curve['interval'][0]:.1f} |"
    assert "## Labels: 1-layer, untrained network" in table and f"\n{point}\n| 9 |" in table

    monkeypatch.setattr(protocols, "kmeans_scores", never)
    monkeypatch.setattr(protocols, "knn_accuracy", never)
    monkeypatch.setattr(protocols, "linear_accuracy", never)
    again = evaluation.evaluate(str(run_dir), str(encoder_dir), **settings)
    assert again | {"commit": ""} == result | {"commit": ""}
    # A run that had come half way scores only what is missing.
    path = run_dir / evaluation.PARTIAL
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([x for x in entries if "KMeans" in str(x["of"])
                                or "Linear" in str(x["of"]) or "Retrieval" in str(x["of"])]))
    with pytest.raises(AssertionError, match="computed again"):
        evaluation.evaluate(str(run_dir), str(encoder_dir), **settings)
    monkeypatch.setattr(protocols, "knn_accuracy", lambda *arguments, **settings: 0.125)
    again = evaluation.evaluate(str(run_dir), str(encoder_dir), **settings)
    values = {x["protocol"]: x["values"] for x in again["rows"] if x["network"] == "trained"}
    assert values["knn"] == [0.125] and values["kmeans"] == rows["trained", "kmeans"]["values"]


def stored(folder, network, split):
    path, = (folder / evaluation.FEATURES).glob(f"{network}-{split}-*.npz")
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


def test_features_are_extracted_again_for_other_content(encoder_dir, records, run_dir):
    def store(encoder_dir=encoder_dir, **settings):
        return FeatureStore(run_dir / evaluation.FEATURES, encoder_dir, records, **{
            "batch_size": 9, "windows": 2, "crops": 1, "static": False} | settings)

    trained, untrained = encoder_files.TRAINED, encoder_files.UNTRAINED
    keys = [store(**settings)._key(file, split) for settings, file, split in (
        ({}, trained, "test1"), ({"static": True}, trained, "test1"),
        ({"windows": 1}, trained, "test1"), ({"crops": 3}, trained, "test1"),
        ({}, untrained, "test1"), ({}, trained, "test2"), ({"batch_size": 1}, trained, "test1"))]
    assert len(set(keys)) == 6 and keys[0] == keys[-1]
    first = stored(run_dir, "trained", "test1")
    assert first["key"] == keys[0]
    other = stored(run_dir, "untrained", "test1")
    assert not np.allclose(first["embedding"], other["embedding"])
    path, = (run_dir / evaluation.FEATURES).glob("trained-test1-*.npz")
    path.write_bytes(path.read_bytes()[:100])  # damaged: made again, the same
    again = store()("trained", trained, "test1")
    np.testing.assert_allclose(again.features.embedding, first["embedding"], rtol=1e-5)
    assert again.features.ids == [f"test1/{number}.mp4" for number in range(9)]
    assert stored(run_dir, "trained", "test1")["ids"].tolist() == again.features.ids
    with pytest.raises(UserError, match="no encoder .*none/rgb.keras"):
        store()._key("none/rgb.keras", "test1")


def test_one_frame_is_evaluated_as_a_still_clip(encoder_dir, tmp_path):
    for seed, split in enumerate(("train", "test")):
        write_split(tmp_path / "images", split, np.arange(12) % 2 * 3, seed=seed)
    result = evaluation.evaluate(
        str(tmp_path / "run"), str(encoder_dir), records=Records(str(tmp_path / "images")),
        networks=("trained",), protocols=NEIGHBOURS, seeds=(0,), windows=1)
    rows = {row["protocol"]: row["mean"] for row in result["rows"]}
    assert rows["retrieval@1"] == 1 and rows["knn"] == 1
    # The same as static clips: there is nothing that moves.
    still = evaluation.evaluate(
        str(tmp_path / "static"), str(encoder_dir), records=Records(str(tmp_path / "images")),
        networks=("trained",), protocols=NEIGHBOURS, seeds=(0,), windows=1, static=True)
    assert still["static"] and still["rows"] == result["rows"]
    moving, static = (stored(tmp_path / name, "trained", "test") for name in ("run", "static"))
    np.testing.assert_allclose(moving["embedding"], static["embedding"], rtol=1e-5)


@dataclasses.dataclass
class CountedFinetune:
    """Stands for fine-tuning, which has its own tests: returns what it was asked for."""

    calls: list

    def __call__(self, encoder_dir, file, clip, records, train_split, test_split, *, seed,
                 windows, crops, folder, labelled=None, keep=None):
        self.calls.append((file, train_split, test_split, seed, folder, labelled, keep))
        return 0.1 * seed + (0.5 if test_split == "test2" else 0.25)


def test_fine_tuning_is_called_for_each_network_pair_and_seed(encoder_dir, records, run_dir):
    calls = []
    settings = {"records": records, "splits": PAIRS,
                "networks": ("trained",), "protocols": (), "seeds": (1, 2),
                "finetune": CountedFinetune(calls),
                "label_curve": LabelCurve(counts=(3, 6), linear=None,
                                          finetune=CountedFinetune(calls))}
    result = evaluation.evaluate(str(run_dir), str(encoder_dir), **settings)
    row, = result["rows"]
    assert row["protocol"] == "finetune" and row["values"] == pytest.approx([0.475, 0.575])
    assert len(calls) == 4 + 8 and len({call[4] for call in calls}) == 12
    # One network is kept: that of the first seed and pair, trained with all labels.
    kept = [call for call in calls if call[6] is not None]
    assert [(*call[1:4], call[5], call[6]) for call in kept] == [
        ("train1", "test1", 1, None, run_dir / "heads" / "finetune")]
    labelled = {call[1:4]: [] for call in calls}
    for call in calls:
        labelled[call[1:4]].append(call[5])
    for whole, few, more in labelled.values():
        assert whole is None and few < more and (len(few), len(more)) == (3, 6)
    curve, = result["curves"]
    assert curve["protocol"] == "finetune" and curve["mean"] == pytest.approx([0.525, 0.525])
    evaluation.evaluate(str(run_dir), str(encoder_dir), **settings)
    assert len(calls) == 12


def test_the_linear_classifier_is_kept_folded_and_tested(
        encoder_dir, records, run_dir, monkeypatch):
    linear = protocols.LinearProtocol(C=(0.01, 1.0), validation_fraction=0.4)
    settings = {
        "records": records, "splits": PAIRS, "seeds": (3, 4),
        "protocols": (linear, protocols.LinearProtocol(solver="ridge", name="ridge"))}
    result = evaluation.evaluate(str(run_dir), str(encoder_dir), **settings)
    assert [path.name for path in (run_dir / "heads").iterdir()] == ["linear"]
    folder = run_dir / "heads" / "linear"
    head = heads.load_head(folder, encoder_dir)
    # By hand: of all training clips of the first pair, with the C that does best on a part.
    train, test = (stored(run_dir, "trained", name) for name in PAIRS[0])
    C, _ = choose_regulariser(train["embedding"], train["labels"], linear.C, fraction=0.4, seed=3)
    expected = pipeline.make_pipeline(
        preprocessing.StandardScaler(), linear_model.LogisticRegression(C=C, max_iter=1000))
    expected.fit(train["embedding"].astype(float), train["labels"])
    logits = test["embedding"] @ head.kernel + head.bias
    np.testing.assert_allclose(tf.nn.softmax(logits), expected.predict_proba(test["embedding"]),
                               atol=1e-4)
    facts = head.facts
    assert facts.test_accuracy == np.mean(logits.argmax(axis=1) == test["labels"])
    assert (facts.kind, facts.recipe["C"], head.network) == ("linear", C, None)
    assert (facts.classes, facts.training_clips) == (["class 0", "class 1", "class 2"], [6, 6, 6])
    assert (facts.test_clips, facts.chance) == (9, pytest.approx(1 / 3))
    file = encoder_dir / encoder_files.TRAINED
    assert facts.encoder == hashlib.sha256(file.read_bytes()).hexdigest()
    assert result["encoders"]["trained"] == facts.encoder

    # It is not trained again; removed, it is.
    before = (folder / "head.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(protocols, "fit_linear", None)
        evaluation.evaluate(str(run_dir), str(encoder_dir), **settings)
    shutil.rmtree(folder)
    evaluation.evaluate(str(run_dir), str(encoder_dir), **settings)
    assert json.loads((folder / "head.json").read_text()) | {"commit": ""} == (
        json.loads(before) | {"commit": ""})
    shutil.rmtree(run_dir / "heads")
    for other in ({"keep_heads": False}, {"networks": ("untrained",)}):
        evaluation.evaluate(str(run_dir), str(encoder_dir), **settings | other)
        assert not (run_dir / "heads").exists()


def test_a_kept_classifier_that_does_not_fit_is_refused(encoder_dir, tmp_path):
    facts = heads.HeadFacts(
        kind="linear", encoder=heads.digest(encoder_dir / encoder_files.TRAINED),
        classes=["a", "b"], training_clips=[1, 1], train_split="train", test_split="test",
        test_clips=2, test_accuracy=0.5, chance=0.5, windows=1, crops=1, seed=0, recipe={}, of=[1])
    folder = tmp_path / "linear"
    with pytest.raises(UserError, match="no classifier .*linear/head.json; --head is a folder"):
        heads.load_head(folder, encoder_dir)
    heads.save_head(folder, np.ones([8, 2]), np.zeros(2), facts)
    assert heads.load_head(folder, encoder_dir).kernel.tolist() == np.ones([8, 2]).tolist()
    assert heads.is_kept(folder, [1]) and not heads.is_kept(folder, [2])
    other = tmp_path / "other"
    encoder_files.save_encoder(make_encoder(7), other)
    with pytest.raises(UserError, match=r"is of another encoder .* than .*other/rgb.keras"):
        heads.load_head(folder, other)
    with np.load(folder / "head.npz") as content:
        np.savez(folder / "head.npz", **dict(content) | {"bias": np.ones(2, "f")})
    with pytest.raises(UserError, match="head.npz is not the file that was written with it"):
        heads.load_head(folder, encoder_dir)
    heads.save_head(folder, np.ones([8, 3]), np.zeros(3), facts)
    with pytest.raises(UserError, match="damaged .*and there are 2 classes"):
        heads.load_head(folder, encoder_dir)
    (folder / "head.json").write_text("{")
    with pytest.raises(UserError, match="head.json is damaged"):
        heads.load_head(folder, encoder_dir)


def test_splits_that_share_clips_are_refused(encoder_dir, tmp_path):
    for split in ("train", "test"):
        write_split(tmp_path / "r", split, [0, 1, 0, 1], prefix="same")
    with pytest.raises(UserError, match="'train' and 'test' have 4 clips in common, such as "
                                        "same/0.mp4, same/1.mp4"):
        evaluation.evaluate(str(tmp_path / "run"), str(encoder_dir),
                            records=Records(str(tmp_path / "r")))


def test_what_pretraining_saw_of_the_test_split_is_said(encoder_dir, records, run_dir, tmp_path):
    folder = tmp_path / "encoder"
    folder.mkdir()
    for path in encoder_dir.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    settings = {"records": records, "splits": (("train1", "test1"),), "networks": ("trained",),
                "protocols": NEIGHBOURS, "seeds": (0,)}

    def warnings():
        found = evaluation.evaluate(str(run_dir), str(folder), **settings)["warnings"]
        for warning in found:
            assert f"- {warning}" in (run_dir / evaluation.TABLE).read_text()
        return found

    assert "data.json is missing" in warnings()[0]
    for seen in (records, None):
        encoder_files.save_data(seen, "train1", folder)
        assert warnings() == []
    seen = write_split(tmp_path / "seen", "unlabelled", [0] * 5, prefix="test1")
    encoder_files.save_data(MixedRecords((records, seen)), "unlabelled", folder)
    first, second = warnings()
    assert "is not known" in first and "no records of split 'unlabelled'" in first
    assert "has 5 of the 9 clips of the test split 'test1', such as test1/0.mp4" in second


def test_clips_of_one_video_in_both_splits_are_said(tmp_path):
    for split in ("train", "test", "other"):
        write_split(tmp_path, split, [0, 1] * 3, video=b"film.mp4" if split != "other" else None)
    train, test, other = (read_index(Records(str(tmp_path)), x) for x in ("train", "test", "other"))
    said, = check_pair(train, test, ("train", "test"))
    assert said.startswith("1 videos, such as film.mp4, have clips both in split 'train' and in")
    assert check_pair(train, other, ("train", "other")) == []


@pytest.mark.parametrize(("settings", "message"), [
    ({"windows": 0}, "evaluate.windows is 0"),
    ({"splits": ("train", "test")}, "give pairs of names"),
    ({"networks": ("best",)}, "it must hold 'trained' or 'untrained'"),
    ({"seeds": ()}, "evaluate.seeds is"),
    ({"method": "eloo"}, "'eloo'; it must be '' or one of"),
    ({"static": True, "finetune": CountedFinetune([])}, "no static clips"),
    ({"splits": (("train1", "test1"),), "seeds": (0,), "networks": ("untrained",),
      "protocols": (protocols.FewShotProtocol(), protocols.FewShotProtocol(shots=(1,)))},
     "two rows of evaluate.protocols are called 'few_shot@1'"),
])
def test_wrong_settings_are_named(encoder_dir, records, run_dir, settings, message):
    with pytest.raises(UserError, match=message):
        evaluation.evaluate(str(run_dir), str(encoder_dir), **{"records": records} | settings)
