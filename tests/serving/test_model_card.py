"""The model card says what the files of a run say, and no more."""

import dataclasses
import hashlib
import json

import pytest
import tensorflow as tf

from elo_tf.data import schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.record_set import Records
from elo_tf.errors import UserError
from elo_tf.evaluation.heads import Head, HeadFacts
from elo_tf.evaluation.statistics import summary
from elo_tf.serving.model_card import model_card, read_evaluation
from elo_tf.training import encoder_files

CLIP = ClipSpec(frames=8, fps=6.0, size=32, crop=0.875)
CONFIG = """
# Parameters for pretrain:
pretrain.initial = ''
pretrain.loss_weights = \\
    {'rgb/reverse': 0.25, 'rgb/predict': 1.0}
pretrain.steps = 1200
pretrain.batch_size = 16
pretrain.seed = 7
PretrainingModel.make_video_encoder = @video_encoder
video_encoder.depth = 50
Records.heldout_percent = 30
"""
LOSSES = {"weights": {"rgb/reverse": 0.25, "rgb/predict": 1.0},
          "before": {"rgb/reverse": 1.0, "rgb/predict": 0.9},
          "after": {"rgb/reverse": 1.125, "rgb/predict": 0.5}}


@pytest.fixture
def run_dir(tmp_path):
    """The folder of a training on 3 clips, with an encoder that is not looked into."""
    records = tmp_path / "records"
    records.mkdir()
    with tf.io.TFRecordWriter(str(records / schema.shard_name("unlabelled", 0, 1))) as writer:
        for number in range(3):
            example = tf.train.SequenceExample()
            example.context.feature[schema.EXAMPLE_ID].bytes_list.value.append(b"%d" % number)
            writer.write(example.SerializeToString())
    (records / "unlabelled.json").write_text(json.dumps(
        {"clips": 3, "seconds": 5400.0, "with_audio": 2, "with_flow": 3, "labelled": 0}))
    folder = tmp_path / "pretrain"
    encoder = folder / "encoder"
    encoder_files.save_clip(CLIP, encoder, CONFIG)
    encoder_files.save_data(Records(str(records)), "unlabelled", encoder)
    (encoder / "rgb.keras").write_bytes(b"a network")
    (folder / "config.gin").write_text(CONFIG)
    (folder / "operative_config.gin").write_text("make_optimizer.name = 'lars'\n")
    (folder / "heldout.json").write_text(json.dumps(LOSSES))
    return folder


def facts(**changes):
    return dataclasses.replace(HeadFacts(
        kind="linear", encoder="", classes=["walk", "run"], training_clips=[40, 30],
        train_split="train", test_split="test", test_clips=20, test_accuracy=0.85, chance=0.6,
        windows=2, crops=3, seed=5, recipe={"layer": "logistic regression", "C": 0.1}, of=[]),
        **changes)


def card(run_dir, **arguments):
    return model_card("elo, version 3", run_dir / "encoder",
                      **{"clip": CLIP, "embedding": 64, "parameters": 123_456} | arguments)


def evaluation(path, sha256):
    def row(network, protocol, *values):
        return {"network": network, "protocol": protocol, **summary(values)}

    path.write_text(json.dumps({
        "splits": [{"train": "train", "test": "test", "train_clips": 70, "test_clips": 20}],
        "classes": ["walk", "run"], "chance": 0.6, "windows": 2, "crops": 3, "static": False,
        "seeds": [0, 1, 2], "method": "elo", "paper": {"linear": 0.645}, "curves": [],
        "scale": {"frames": 8, "size": 32, "fps": 6.0, "parameters": 123_456, "embedding": 64},
        "encoders": {"trained": sha256}, "warnings": ["the test clips were seen"],
        "rows": [row("trained", "linear", 0.8, 0.81, 0.82),
                 row("untrained", "linear", 0.6, 0.61, 0.59),
                 row("trained", "kmeans", 0.5, 0.9, 0.7),
                 row("untrained", "kmeans", 0.5, 0.6, 0.7),
                 row("trained", "knn", 0.9), row("untrained", "knn", 0.1)]}))
    return path


def test_a_whole_run_is_told(run_dir, tmp_path):
    encoder = run_dir / "encoder"
    path = evaluation(tmp_path / "evaluation.json", hashlib.sha256(b"a network").hexdigest())
    head = Head(None, None, facts(), "c0ffee", network=None)
    text = card(run_dir, head=head, evaluation=read_evaluation(path, encoder))
    for said in (
            "# Model card: elo, version 3\n", "123,456 parameters", "an embedding of 64 numbers",
            "probabilities of 2 classes", "whose figures are not claimed",
            f"- Split `unlabelled` of `{tmp_path}/records`: 3 clips at the time of the export, "
            "1.5 h of video, 2 with a sound track, 3 with optical flow, 0 labelled; fingerprint `",
            "about 30%.", "- Labels: 70 clips of split `train` trained the classifier.",
            "| steps | 1200 |", "| seed | 7 |", "| optimiser | lars |", "| its depth | 50 |",
            "| its width | not known |", "| weights taken from | nothing |",
            "So 19,200 clips were drawn in all.",
            "None of these losses reads labels.\nHow the weights were found, and whether labels "
            "guided that, is not known",
            "| `rgb/predict` | 1.000 | 0.900 | 0.500 |\n| `rgb/reverse` | 0.250 | 1.000 | 1.125 |",
            "These did not fall: `rgb/reverse`.", "logistic regression, C = 0.1.",
            "Trained on 70 clips of split `train`, seed 5. On the 20 clips of split `test` it "
            "named 85.0% rightly, 6 views of each averaged; always naming their most frequent "
            "class gets 60.0%.", "walk (40), run (30).",
            "a network of 123,456 parameters and 64 features that sees 8 frames of 32 x 32",
            "chance is 60.0", "| 1-layer | 81.0 ± 2.5 | 60.0 ± 2.5 |",
            "better by 1-layer; not better by k-means.", "- Warning: the test clips were seen.",
            "tested with 6 views of a video", "always sum to 1", "about 1.33 s",
            hashlib.sha256(b"a network").hexdigest(), hashlib.sha256(CONFIG.encode()).hexdigest(),
            "- Classifier: trained by commit `c0ffee`"):
        assert said in text, said
    for absent in ("64.5", "fine-tuned", "does no better", "Whether labels made the weights"):
        assert absent not in text, absent  # among them the paper's figure
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles == [
        "Input and output", "Data", "Training", "The losses and their weights", "Classifier",
        "Evaluation", "Intended use", "Limits", "Origin"]


def test_what_files_lack_is_not_known(run_dir, tmp_path):
    (run_dir / "config.gin").write_text(CONFIG + "# of another run\n")
    text = card(run_dir)
    assert "Steps, seed and all settings: not known." in text and "| steps" not in text
    assert "## The losses and their weights\n\nNot known.\n" in text
    assert "Not known: no evaluation was given at the export.\n" in text
    assert "## Classifier" not in text and "`classify`" not in text
    assert "Share of the videos held out, on which losses are measured and nothing is trained: " \
        "not known." in text
    (tmp_path / "records" / "unlabelled.json").write_text(json.dumps({"clips": 4, "seconds": 9.0}))
    assert "3 clips at the time of the export; fingerprint" in card(run_dir)  # it is of others
    (tmp_path / "records").rename(tmp_path / "elsewhere")
    assert "how many clips it had is not known" in card(run_dir)
    (run_dir / "encoder" / "data.json").unlink()
    text = card(run_dir)
    assert "How the encoder was made is not known." in text and "pre-trained with" not in text
    assert "Clips that the encoder was trained on: not known" in text


def test_labels_that_were_read_are_said(run_dir):
    named = json.dumps(LOSSES).replace("rgb/reverse", "rgb/classify")
    (run_dir / "heldout.json").write_text(named)
    text = card(run_dir)
    assert "**The labels of the videos were read**, by the loss rgb/classify." in text
    assert "None of these losses" not in text
    config = CONFIG.replace("initial = ''", "initial = 'other_run'").replace(
        "\\\n    {'rgb/reverse': 0.25, 'rgb/predict': 1.0}", "@equal_weights()")
    (run_dir / "config.gin").write_text(config)
    encoder_files.save_clip(CLIP, run_dir / "encoder", config)
    text = card(run_dir)
    assert "Whether labels made the weights that it started from is not known." in text
    assert "not searched but given by `@equal_weights()`." in text


def test_an_untrained_encoder_is_not_called_trained(run_dir):
    encoder_files.save_data(None, "unlabelled", run_dir / "encoder")
    text = card(run_dir)
    assert "The encoder was not trained on records" in text and "pre-trained with" not in text
    assert "None. Seed of the weights: not known" in text
    assert "The losses" not in text and "- It is not pre-trained on videos here" in text


def test_a_classifier_that_is_no_better_than_chance_is_said_to_be(run_dir, tmp_path):
    poor = facts(kind="finetune", test_accuracy=0.6, training_clips=[40, 0],
                 recipe={"steps": 30, "method": "adam"})
    text = card(run_dir, head=Head(None, None, poor, "c0ffee", network=tmp_path))
    assert "**It does no better than that.**" in text and "steps 30, method adam." in text
    assert "A class without any is never to be believed." in text
    assert "**Both are of the fine-tuned network**" in text
    assert "but for the test of the classifier, above." in text


def test_an_evaluation_of_another_encoder_is_refused(run_dir, tmp_path):
    encoder = run_dir / "encoder"
    path = evaluation(tmp_path / "evaluation.json", "abcdef0123456789")
    with pytest.raises(UserError, match="evaluation.json is of another encoder .SHA-256 abcdef"):
        read_evaluation(path, encoder)
    content = json.loads(path.read_text())
    del content["encoders"]
    path.write_text(json.dumps(content))
    found = read_evaluation(tmp_path, encoder)  # by its folder
    assert "Whether this evaluation is of this encoder is not known" in card(
        run_dir, evaluation=found)
    for broken in ("", "[]", "{}"):
        path.write_text(broken)
        with pytest.raises(UserError, match="cannot read .*evaluation.json"):
            read_evaluation(path, encoder)
