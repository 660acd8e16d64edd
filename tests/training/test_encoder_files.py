"""The folder that a training leaves: what is loaded from it is what was trained."""

import hashlib
import json

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError
from elo_tf.models.video_resnet import video_encoder
from elo_tf.pretraining import precision_policy
from elo_tf.training import encoder_files


@pytest.fixture(scope="module")
def encoder(two_replicas):
    """An encoder of two devices, whose statistics have moved."""
    with two_replicas.scope():
        network = video_encoder(3, depth=10, width=0.0625, name="rgb")
    for i, variable in enumerate(network.non_trainable_variables):
        variable.assign(tf.random.stateless_uniform(variable.shape, [i, 1], 0.5, 1.5))
    return network


def test_what_is_loaded_equals_what_was_saved(encoder, tmp_path):
    encoder_files.save_encoder(encoder, tmp_path)
    loaded = encoder_files.load_encoder(tmp_path)
    for mine, saved in zip(loaded.get_weights(), encoder.get_weights(), strict=True):
        assert np.array_equal(mine, saved)
    clips = np.random.default_rng(0).normal(size=(2, 4, 16, 16, 3)).astype("f")
    mine, saved = loaded(clips, training=False), encoder(clips, training=False)
    assert set(mine) == {"block1", "block2", "block3", "block4", "embedding"}
    for site in mine:
        np.testing.assert_allclose(mine[site], saved[site], atol=1e-5)


def test_what_is_saved_needs_one_device(encoder, tmp_path):
    encoder_files.save_encoder(encoder, tmp_path)
    layers = [x for x in encoder_files.load_encoder(tmp_path).layers
              if isinstance(x, tf.keras.layers.BatchNormalization)]
    assert layers and not any(getattr(layer, "synchronized", False) for layer in layers)
    assert {type(layer) for layer in layers} == {tf.keras.layers.BatchNormalization}


def test_what_was_trained_in_half_precision_is_saved_in_whole(tmp_path):
    with precision_policy("mixed_bfloat16"):
        network = video_encoder(3, depth=10, width=0.0625, name="rgb")
    clips = np.random.default_rng(1).normal(size=(2, 4, 16, 16, 3)).astype("f")
    encoder_files.save_encoder(network, tmp_path)
    loaded = encoder_files.load_encoder(tmp_path)
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    half, whole = (x(clips, training=False)["embedding"].numpy() for x in (network, loaded))
    assert (half != whole).any()
    np.testing.assert_allclose(half, whole, atol=0.02 * np.abs(whole).max())


def test_the_same_weights_are_saved_as_the_same_bytes(encoder, tmp_path):
    files = []
    for name in ("a.keras", "b.keras"):
        encoder_files.save_encoder(encoder, tmp_path, name)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_the_clip_comes_back(tiny_clip, tmp_path):
    encoder_files.save_clip(tiny_clip, tmp_path, "a = 1")
    assert encoder_files.load_clip(tmp_path) == tiny_clip
    content = json.loads((tmp_path / "clip.json").read_text())
    assert (content["mean"], content["scale"]) == (0.45, 0.225)
    assert content["config"] == hashlib.sha256(b"a = 1").hexdigest()
    assert content["commit"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"frames": "many"}'])
def test_what_cannot_be_read_is_named(tmp_path, content):
    with pytest.raises(UserError, match="cannot read .*clip.json"):
        encoder_files.load_clip(tmp_path)
    (tmp_path / "clip.json").write_text(content)
    with pytest.raises(UserError, match="cannot read .*clip.json"):
        encoder_files.load_clip(tmp_path)


def test_an_encoder_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(UserError, match="no encoder .*rgb.keras"):
        encoder_files.load_encoder(tmp_path)
    (tmp_path / "rgb.keras").write_bytes(b"not a model")
    with pytest.raises(UserError, match="rgb.keras cannot be loaded as a Keras model"):
        encoder_files.load_encoder(tmp_path)


def test_the_records_trained_on_are_named(tmp_path, monkeypatch):
    assert encoder_files.load_data(tmp_path) is None
    monkeypatch.chdir(tmp_path)
    encoder_files.save_data(MixedRecords((Records("one"), Records("/two"))), "train", tmp_path)
    assert encoder_files.load_data(tmp_path) == [
        (str(tmp_path / "one"), "train"), ("/two", "train")]
    encoder_files.save_data(None, "train", tmp_path)
    assert encoder_files.load_data(tmp_path) == []
    (tmp_path / encoder_files.DATA).write_text('[{"split": "train"}]')
    with pytest.raises(UserError, match=r"cannot read .*data\.json"):
        encoder_files.load_data(tmp_path)
