"""Fine-tuning: what it learns, what it leaves alone, and that it goes on as if never stopped."""

import json
import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data import pipeline, schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import Stopped, UserError
from elo_tf.evaluation import heads
from elo_tf.evaluation.classifier import average_views
from elo_tf.evaluation.finetune import Finetune
from elo_tf.models.video_resnet import video_encoder
from elo_tf.training import encoder_files
from elo_tf.views.augmentation import Augmentation

CLIP = ClipSpec(frames=4, next_frames=2, size=16, crop=1.0)
STEPS, HEAD_STEPS = 30, 6


def make_set(folder, train, test):
    """Records of still pictures, each given as (colour, label): colour 0 is bluish, 1 reddish."""
    folder.mkdir()
    (folder / schema.LABELS_FILE).write_text("blue\nred\n")
    generator = np.random.Generator(np.random.PCG64(0))
    for split, pictures in (("train", train), ("test", test)):
        with tf.io.TFRecordWriter(str(folder / schema.shard_name(split, 0, 1))) as writer:
            for number, (colour, label) in enumerate(pictures):
                picture = generator.integers(0, 80, [16, 24, 3])
                picture[..., 0 if colour else 2] += 150
                example = tf.train.SequenceExample()
                context = example.context.feature
                context[schema.EXAMPLE_ID].bytes_list.value.append(f"{split}{number}".encode())
                if label is not None:
                    context[schema.LABEL_INDEX].int64_list.value.append(label)
                example.feature_lists.feature_list[schema.IMAGE_ENCODED].feature.add(
                    ).bytes_list.value.append(tf.io.encode_jpeg(picture.astype("u1")).numpy())
                writer.write(example.SerializeToString())
    return Records(str(folder))


# Half of each colour has the wrong name: the colour then tells nothing.
RIGHT = [(i % 2, i % 2) for i in range(24)]
SHUFFLED = [(i % 2, i // 2 % 2) for i in range(24)]


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("right") / "records", RIGHT, RIGHT)


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory):
    """Shuffled in training alone; the test clips have their colour's name."""
    return make_set(tmp_path_factory.mktemp("shuffled") / "records", SHUFFLED, RIGHT)


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory):
    """Two networks, `rgb.keras` and `rgb_untrained.keras`, and one that is not finite."""
    folder = tmp_path_factory.mktemp("encoder")
    for seed, name in enumerate((encoder_files.TRAINED, encoder_files.UNTRAINED, "nan.keras")):
        tf.keras.utils.set_random_seed(seed)
        network = video_encoder(3, depth=10, width=0.0625, name="rgb")
        if name == "nan.keras":
            network.set_weights([x * np.nan for x in network.get_weights()])
        encoder_files.save_encoder(network, folder, name)
    return folder


@pytest.fixture(scope="module")
def finetune():
    """One for most tests, so that its steps are compiled once."""
    return Finetune(steps=STEPS, head_warmup_steps=HEAD_STEPS, batch_size=8, learning_rate=1e-2,
                    head_learning_rate=3e-2,
                    checkpoint_every=10, log_every=5, statistics_steps=3,
                    make_augmentation=lambda: Augmentation(flip=0.5, brightness=0.05))


def weights(finetune):
    return [*finetune.classifier.encoder.get_weights(), *finetune.classifier.head.get_weights()]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Folder of the classifier that the undisturbed call keeps."""
    return tmp_path_factory.mktemp("heads") / "finetune"


@pytest.fixture(scope="module")
def undisturbed(finetune, encoder_dir, right, kept, tmp_path_factory):
    """The accuracy and the weights of a plain call."""
    found = finetune(encoder_dir, encoder_files.TRAINED, CLIP, right, "train", "test", seed=1,
                     windows=1, crops=2, folder=tmp_path_factory.mktemp("undisturbed"), keep=kept)
    return found, weights(finetune)


@pytest.fixture
def accuracy(finetune, undisturbed, encoder_dir, tmp_path):
    """A function of records: the accuracy of a further call, in a folder of its own."""
    def run(records, *, folder="run", seed=1, file=encoder_files.TRAINED, labelled=None):
        return finetune(encoder_dir, file, CLIP, records, "train", "test", seed=seed, windows=1,
                        crops=2, folder=tmp_path / folder, labelled=labelled)
    return run


def same(ours, theirs):
    return all(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True))


def test_what_can_be_learned_is_and_what_cannot_stays_at_chance(accuracy, undisturbed, shuffled):
    assert undisturbed[0] == 1.0
    assert 0.25 <= accuracy(shuffled, folder="shuffled") <= 0.75


def test_only_the_labelled_clips_are_used(accuracy, shuffled):
    right_named = [f"train{i}" for i, (colour, label) in enumerate(SHUFFLED) if colour == label]
    wrong_named = [f"train{i}" for i, (colour, label) in enumerate(SHUFFLED) if colour != label]
    assert accuracy(shuffled, folder="right", labelled=right_named) == 1.0
    assert accuracy(shuffled, folder="wrong", labelled=wrong_named) == 0.0


def test_further_networks_seeds_and_labels_compile_nothing(accuracy, undisturbed, finetune, right):
    accuracy(right, folder="seed", seed=0)
    assert not same(weights(finetune), undisturbed[1])
    accuracy(right, folder="other", file=encoder_files.UNTRAINED, labelled=["train0", "train1"])
    accuracy(right, folder="again")
    assert same(weights(finetune), undisturbed[1])
    assert finetune.classifier.traces == 2  # the head's step, and the whole network's


def test_the_network_is_kept_with_its_layer(undisturbed, kept, encoder_dir):
    head = heads.load_head(kept, encoder_dir)
    network = encoder_files.load_encoder(head.network)
    assert same([*network.get_weights(), head.kernel, head.bias], undisturbed[1])
    assert {type(x) for x in network.layers} == {
        type(x) for x in encoder_files.load_encoder(encoder_dir).layers}
    assert (head.facts.kind, head.facts.classes) == ("finetune", ["blue", "red"])
    assert head.facts.training_clips == [12, 12] and head.facts.test_clips == 24
    assert (head.facts.test_accuracy, head.facts.chance) == (1.0, 0.5)


@pytest.mark.parametrize("stop_at", [HEAD_STEPS - 2, HEAD_STEPS + 7])
def test_a_stopped_training_ends_as_if_never_stopped(
        accuracy, undisturbed, finetune, right, tmp_path, monkeypatch, stop_at):
    expected, unstopped = undisturbed
    network, done = finetune.classifier, []

    def counted(step):
        def run(batches):
            done.append(step)
            if len(done) == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(batches)
        return run

    for name in ("head_step", "full_step"):
        monkeypatch.setattr(network, name, counted(getattr(network, name)))
    with pytest.raises(Stopped, match=f"after step {stop_at}, which is saved"):
        accuracy(right)
    assert "accuracy" not in json.loads((tmp_path / "run" / "finetune.json").read_text())
    assert accuracy(right) == expected
    assert len(done) == STEPS and same(weights(finetune), unstopped)
    # A finished one is not computed again, and leaves no checkpoint.
    assert accuracy(right) == expected and len(done) == STEPS
    assert [x.name for x in (tmp_path / "run").iterdir()] == ["finetune.json"]
    with pytest.raises(UserError, match=r"another fine-tuning \(seed differ\)"):
        accuracy(right, seed=2)


def test_the_head_alone_is_trained_first(encoder_dir, right, tmp_path):
    alone = Finetune(steps=4, head_warmup_steps=4, batch_size=8)
    alone(encoder_dir, encoder_files.TRAINED, CLIP, right, "train", "test", seed=1, windows=1,
          crops=1, folder=tmp_path)
    saved = encoder_files.load_encoder(encoder_dir).get_weights()
    assert same(alone.classifier.encoder.get_weights(), saved)
    trained = alone.classifier.head.get_weights()
    alone.classifier.reset(encoder_files.load_encoder(encoder_dir), seed=1)
    assert not any(map(np.array_equal, trained, alone.classifier.head.get_weights()))


def test_the_probabilities_of_a_videos_views_are_averaged(undisturbed, finetune, right):
    network, views = finetune.classifier, 2 * 3
    rows = list(pipeline.testing_clips(right, "test", CLIP, batch_size=9, windows=2, crops=3,
                                       modalities=("rgb",)))
    found, labels = network.predict(rows, views)
    frames = (np.concatenate([x["rgb"] for x in rows]) / 255.0 - 0.45) / 0.225
    embedding = network.encoder(frames.astype("f"), training=False)["embedding"].numpy()
    kernel, bias = network.head.get_weights()
    shares = np.exp(embedding @ kernel + bias)
    shares /= shares.sum(axis=1, keepdims=True)
    by_hand = [np.mean([shares[views * i + j] for j in range(views)], axis=0) for i in range(24)]
    np.testing.assert_allclose(found, by_hand, atol=1e-5)
    assert np.ptp(shares[:views], axis=0).max() > 1e-6  # the crops differ
    assert labels.tolist() == [label for _, label in RIGHT]
    np.testing.assert_allclose(average_views(np.array([[0.2, 0.8], [0.6, 0.4]]), 2), [[0.4, 0.6]])


def test_a_training_that_diverges_is_said_and_not_saved(accuracy, right, tmp_path):
    with pytest.raises(UserError, match="diverged: the loss is nan at step 1; lower"):
        accuracy(right, file="nan.keras")
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


def test_what_cannot_be_used_is_told_before_training(accuracy, right, shuffled, tmp_path):
    with pytest.raises(UserError, match="has none of the 2 clips whose labels"):
        accuracy(right, labelled=["test0", "train99"])
    with pytest.raises(UserError, match="has none of the 0 clips"):
        accuracy(right, labelled=[])
    part = make_set(tmp_path / "part", [(0, 0), (1, None)], [(0, 0)])
    with pytest.raises(UserError, match="1 of 2 records of split 'train' in .* have no label"):
        accuracy(part)
    renamed = make_set(tmp_path / "renamed", [(0, 0)], [(0, 0)])
    (tmp_path / "renamed" / schema.LABELS_FILE).write_text("red\nblue\n")
    with pytest.raises(UserError, match="no label map in common; give each the same labels.txt"):
        accuracy(MixedRecords((right, renamed)))


@pytest.mark.parametrize(("setting", "value"), [
    ("steps", 0), ("head_warmup_steps", 1001), ("layer_decay", 0.0), ("dropout", 1.0),
    ("learning_rate", -1.0), ("label_smoothing", 1.0)])
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(UserError, match=f"Finetune.{setting} is {value}; it must be"):
        Finetune(**{setting: value})
