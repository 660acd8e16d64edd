"""What splits must have to be evaluated."""

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data import schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError
from elo_tf.evaluation.evaluate import labelled_features
from elo_tf.features import FeatureExtractor

CLIP = ClipSpec(frames=2, next_frames=1, size=16, crop=1.0)


@pytest.fixture(scope="module")
def extractor():
    """One whose features are the mean colours."""
    frames = tf.keras.Input([CLIP.frames, CLIP.size, CLIP.size, 3])
    pooled = tf.keras.layers.GlobalAveragePooling3D()(frames)
    return FeatureExtractor(tf.keras.Model(frames, {"embedding": pooled}), CLIP)


def make_set(folder, labels, names):
    """A split of still pictures with these labels, and a label map."""
    folder.mkdir()
    (folder / schema.LABELS_FILE).write_text("".join(f"{name}\n" for name in names))
    with tf.io.TFRecordWriter(str(folder / schema.shard_name("test", 0, 1))) as writer:
        for label in labels:
            example = tf.train.SequenceExample()
            picture = tf.io.encode_jpeg(np.full([16, 16, 3], 40 * label, np.uint8)).numpy()
            example.feature_lists.feature_list[schema.IMAGE_ENCODED].feature.add(
                ).bytes_list.value.append(picture)
            example.context.feature[schema.LABEL_INDEX].int64_list.value.append(label)
            writer.write(example.SerializeToString())
    return Records(str(folder))


def features_of(extractor, records):
    return labelled_features(extractor, records, "test", CLIP, 4, 2, 3, "test")


def test_views_of_a_video_are_one_row(extractor, tmp_path):
    features = features_of(extractor, make_set(tmp_path / "a", [0, 1, 2, 3, 1], "abcd"))
    assert features.labels.tolist() == [0, 1, 2, 3, 1] and features.embedding.shape == (5, 3)
    rank = np.argsort(np.argsort(features.embedding[:4, 0]))
    assert rank.tolist() == [0, 1, 2, 3]


def test_a_split_without_a_record_is_named(extractor, tmp_path):
    with pytest.raises(UserError, match="no record of split 'test' in .*/none can be read"):
        features_of(extractor, make_set(tmp_path / "none", [], "ab"))


def test_sources_without_a_common_label_map_are_not_called_unlabelled(extractor, tmp_path):
    one, other = make_set(tmp_path / "a", [0, 1], "ab"), make_set(tmp_path / "b", [0, 1], "ba")
    with pytest.raises(UserError, match="have no label map in common"):
        features_of(extractor, MixedRecords((one, other)))
    same = make_set(tmp_path / "c", [1], "ab")
    assert features_of(extractor, MixedRecords((one, same))).labels.tolist() == [0, 1, 1]
