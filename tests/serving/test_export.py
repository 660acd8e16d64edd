"""The exported encoder, used as a stranger would: in a process without this project."""

import dataclasses
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.errors import UserError
from elo_tf.evaluation import heads
from elo_tf.models.video_resnet import video_encoder
from elo_tf.pretraining import precision_policy
from elo_tf.serving import export
from elo_tf.training import encoder_files

FRAMES, SIZE, MEAN, SCALE = 4, 7, [0.4, 0.45, 0.5], [0.2, 0.25, 0.3]
CLASSES = ["walk", "jump high", "c\u0153ur"]
CLIP = ClipSpec(frames=FRAMES, size=SIZE, crop=0.875)

# The stranger's program: answers every request of requests.npz, notes what else was asked.
STRANGER = """
    import json, sys
    import numpy as np
    import tensorflow as tf
    import tensorflow_hub as hub

    model_dir, folder = sys.argv[1:]
    model = tf.saved_model.load(model_dir)
    answers, notes = {}, {"modules": sorted(x for x in sys.modules if x.startswith("elo_tf"))}
    with np.load(folder + "/requests.npz", allow_pickle=False) as requests:
        for name in requests.files:
            signature = name.split("-")[0]
            answer = model.signatures[signature](frames=tf.constant(requests[name]))
            answers[name] = answer[
                "probabilities" if signature == "classify" else "embedding"].numpy()
            if signature == "classify":
                notes["labels"] = [[x.decode() for x in row] for row in answer["labels"].numpy()]
        raw = requests["embed-8x26x30"]
    answers["hub"] = hub.KerasLayer(model_dir)(tf.constant(raw)).numpy()
    answers["hub-signature"] = hub.KerasLayer(
        model_dir, signature="embed", output_key="embedding")(tf.constant(raw)).numpy()
    answers["hub-classify"] = hub.KerasLayer(
        model_dir, signature="classify", output_key="probabilities")(tf.constant(raw)).numpy()
    jpegs = json.load(open(folder + "/jpegs.json"))
    jpegs = [[bytes.fromhex(x) for x in clip] for clip in jpegs]
    answers["jpeg"] = model.signatures["embed_jpeg"](frames=tf.constant(jpegs))["embedding"].numpy()
    answers["classify_jpeg"] = model.signatures["classify_jpeg"](
        frames=tf.constant(jpegs))["probabilities"].numpy()
    one = jpegs[0][0]
    for name, signature, frames in (
            ("no frames", "embed", np.zeros([1, 0, 8, 8, 3], np.uint8)),
            ("no pixels", "classify", np.zeros([1, 2, 0, 8, 3], np.uint8)),
            ("no jpegs", "embed_jpeg", np.zeros([1, 0], object).astype("S")),
            ("text", "classify_jpeg", [[one, one], [one, b"no picture"]]),
            ("png", "embed_jpeg", [[tf.io.encode_png(np.zeros([4, 4, 3], np.uint8)).numpy()]]),
            ("nothing", "embed_jpeg", [[b""]]),
            ("half", "embed_jpeg", [[one[:len(one) // 2]]])):
        try:
            model.signatures[signature](frames=tf.constant(frames))
            notes["bad " + name] = "no error"
        except tf.errors.InvalidArgumentError as error:
            notes["bad " + name] = str(error)
    from tensorflow_serving.apis import prediction_log_pb2
    notes["warmup"] = []
    for record in tf.data.TFRecordDataset(model_dir + "/assets.extra/tf_serving_warmup_requests"):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        answer = model.signatures[request.model_spec.signature_name](
            frames=tf.constant(tf.make_ndarray(request.inputs["frames"])))
        notes["warmup"].append([request.model_spec.name, request.model_spec.signature_name,
                                {name: list(x.shape) for name, x in answer.items()}])
    notes["shapes"] = {
        name: [{key: [x.dtype.name, list(x.shape)] for key, x in
                {**signature.structured_outputs,
                 **signature.structured_input_signature[1]}.items()}]
        for name, signature in model.signatures.items()}
    np.savez(folder + "/answers.npz", **answers)
    json.dump(notes, open(folder + "/notes.json", "w"))
"""


def small_encoder(seed: int = 3) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(seed)
    inputs = tf.keras.Input([None, None, None, 3])
    block = tf.keras.layers.Conv3D(6, 3, strides=(1, 2, 2), padding="same")(inputs)
    block = tf.keras.layers.BatchNormalization()(block)
    block = tf.keras.layers.ReLU()(block)
    pooled = tf.keras.layers.GlobalAveragePooling3D()(block)
    embedding = tf.keras.layers.Dense(5)(pooled)
    return tf.keras.Model(inputs, {"block1": block, "embedding": embedding})


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("run") / "encoder"
    folder.mkdir()
    small_encoder().save(folder / "rgb.keras")
    (folder / "clip.json").write_text(json.dumps({
        **dataclasses.asdict(CLIP), "mean": MEAN, "scale": SCALE,
        "commit": "abc123", "config": "f00d"}))
    return folder


def save_classifier(folder: pathlib.Path, encoder_dir: pathlib.Path, kind: str = "linear",
                    network: tf.keras.Model | None = None, width: int = 5) -> pathlib.Path:
    """A classifier as an evaluation keeps it, with drawn weights."""
    draw = np.random.Generator(np.random.PCG64(2))
    heads.save_head(folder, draw.normal(0, 3, [width, 3]), draw.normal(size=3), heads.HeadFacts(
        kind=kind, encoder=heads.digest(encoder_dir / "rgb.keras"), classes=CLASSES,
        training_clips=[4, 5, 6], train_split="train", test_split="test", test_clips=12,
        test_accuracy=0.75, chance=0.5, windows=2, crops=1, seed=0,
        recipe={"layer": "drawn", "C": 0.1}, of=[]), network=network)
    return folder


@pytest.fixture(scope="module")
def head(encoder_dir) -> heads.Head:
    """A classifier of the encoder, kept in the folder `linear` beside it."""
    return heads.load_head(save_classifier(encoder_dir.parent / "linear", encoder_dir), encoder_dir)


def probabilities(embedding: np.ndarray, head: heads.Head) -> np.ndarray:
    odds = np.exp(embedding.astype(np.float64) @ head.kernel + head.bias)
    return odds / odds.sum(axis=1, keepdims=True)


def resize_matrix(length: int, size: int) -> np.ndarray:
    """Bilinear interpolation with the triangle widened when it shrinks, as a [size, length]."""
    ratio = length / size
    width = max(ratio, 1.0)
    centres = (np.arange(size) + 0.5) * ratio
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(length) + 0.5 - centres[:, None]) / width)
    return weights / weights.sum(axis=1, keepdims=True)


def resized(clips: np.ndarray) -> np.ndarray:
    """Frames picked, cropped and resized as the export and its clip.json promise, in NumPy."""
    total = clips.shape[1]
    if total > FRAMES:
        picked = [int((i + 0.5) * total / FRAMES) for i in range(FRAMES)]
    else:
        picked = [i % total for i in range(FRAMES)]
    clips = clips[:, picked].astype(np.float64)
    height, width = clips.shape[2:4]
    side = max(round(0.875 * min(height, width)), 1)
    top, left = (height - side) // 2, (width - side) // 2
    clips = clips[:, :, top:top + side, left:left + side]
    matrix = resize_matrix(side, SIZE)
    return np.einsum("yh,bthwc,xw->btyxc", matrix, clips, matrix)


def noise(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Random clips none of whose resized pixels lies halfway, where float32 may round otherwise."""
    while True:
        clips = generator.integers(0, 256, shape, np.uint8)
        if np.abs(np.mod(resized(clips), 1) - 0.5).min() > 1e-4:
            return clips


def jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "JPEG", quality=92)
    return file.getvalue()


def clean_environment() -> dict[str, str]:
    return {key: x for key, x in os.environ.items() if not key.startswith("PYTHON")}


@pytest.fixture(scope="module")
def exchange(encoder_dir, head, tmp_path_factory):
    """The export, the requests sent, and what the stranger's process answered."""
    model_dir = export.export_encoder(encoder_dir, encoder_dir.parent / "export",
                                      head_dir=encoder_dir.parent / "linear")
    folder = tmp_path_factory.mktemp("exchange")
    generator = np.random.Generator(np.random.PCG64(1))
    requests = {
        f"{signature}-{t}x{h}x{w}": noise(generator, 2, t, h, w, 3)
        for signature, t, h, w in (
            ("embed", 8, 26, 30), ("embed", 4, 8, 8), ("embed", 1, 33, 17), ("embed", 3, 6, 9),
            ("serving_default", 8, 26, 30), ("embed", 5, 64, 49), ("embed", 11, 1, 1))}
    requests["serving_default-8x26x30"] = requests["classify-8x26x30"] = requests["embed-8x26x30"]
    # Clips of one batch may differ in size.
    images = [generator.integers(0, 256, [h, w, 3], np.uint8) for h, w in ((24, 40), (31, 18))]
    images = [np.asarray(PIL.Image.fromarray(x).resize((64, 49))) for x in images]
    images[1] = images[1][:, 8:48]
    jpegs = [[jpeg(np.roll(x, t, axis=1)) for t in range(6)] for x in images]
    for i, clip in enumerate(jpegs):
        pixels = [tf.io.decode_jpeg(x, channels=3, dct_method="INTEGER_ACCURATE") for x in clip]
        requests[f"embed-jpeg{i}"] = np.stack(pixels)[np.newaxis]
    np.savez(folder / "requests.npz", **requests)
    (folder / "jpegs.json").write_text(json.dumps([[x.hex() for x in clip] for clip in jpegs]))
    subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(STRANGER), model_dir, str(folder)],
        cwd=folder, env=clean_environment(), check=True, timeout=300)
    with np.load(folder / "answers.npz") as answers:
        return (model_dir, requests, dict(answers), json.loads((folder / "notes.json").read_text()),
                folder)


def test_equals_the_keras_model_on_numpy_preprocessing(encoder_dir, exchange):
    _, requests, answers, notes, _ = exchange
    assert notes["modules"] == []
    encoder = tf.keras.models.load_model(encoder_dir / "rgb.keras")
    for name, frames in requests.items():
        if not name.startswith(("embed-", "serving")) or name.startswith("embed-jpeg"):
            continue
        pixels = np.round(resized(frames)) / 255
        expected = encoder(((pixels - MEAN) / SCALE).astype(np.float32), training=False)
        expected = expected["embedding"].numpy()
        np.testing.assert_allclose(answers[name], expected, atol=1e-5, err_msg=name)
    assert np.ptp(answers["embed-8x26x30"]) > 0.01


def test_classes_are_the_affine_map_on_the_embedding(exchange, head):
    _, _, answers, notes, _ = exchange
    expected = probabilities(answers["embed-8x26x30"], head)
    np.testing.assert_allclose(answers["classify-8x26x30"], expected, atol=1e-5)
    np.testing.assert_allclose(answers["hub-classify"], expected, atol=1e-5)
    np.testing.assert_allclose(answers["classify_jpeg"], probabilities(answers["jpeg"], head),
                               atol=1e-5)
    assert np.ptp(expected, axis=1).min() > 0.05
    assert notes["labels"] == [CLASSES, CLASSES]
    labels = pathlib.Path(exchange[0]) / "assets" / "labels.txt"
    assert labels.read_text(encoding="utf-8").splitlines() == CLASSES


def test_hub_layer_gives_the_same(exchange):
    answers = exchange[2]
    np.testing.assert_allclose(answers["hub"], answers["embed-8x26x30"], atol=1e-6)
    np.testing.assert_allclose(answers["hub-signature"], answers["embed-8x26x30"], atol=1e-6)


def test_jpeg_equals_raw_of_the_same_pixels(exchange):
    answers = exchange[2]
    raw = np.concatenate([answers["embed-jpeg0"], answers["embed-jpeg1"]])
    np.testing.assert_allclose(answers["jpeg"], raw, atol=1e-6)


@pytest.mark.parametrize(("name", "message"), [
    ("no frames", r"a clip needs at least one frame of at least one pixel; the shape is.*\[1 0 8"),
    ("no pixels", "a clip needs at least one frame of at least one pixel; the shape is"),
    ("no jpegs", "a clip needs at least one frame; the shape is"),
    ("text", r"every string must be a JPEG file; the first that is not.*\[1 1\]"),
    ("png", r"every string must be a JPEG file; the first that is not.*\[0 0\]"),
    ("nothing", "every string must be a JPEG file"), ("half", "Invalid JPEG data")])
def test_what_cannot_be_embedded_is_a_clear_error(exchange, name, message):
    assert re.search(message, exchange[3][f"bad {name}"], re.DOTALL)


def test_signatures_say_their_shapes(exchange):
    raw, jpeg = (["uint8", [None, None, None, None, 3]], ["string", [None, None]])
    embedding = {"embedding": ["float32", [None, 5]]}
    classes = {"probabilities": ["float32", [None, 3]], "labels": ["string", [None, 3]]}
    assert exchange[3]["shapes"] == {
        "serving_default": [embedding | {"frames": raw}], "embed": [embedding | {"frames": raw}],
        "embed_jpeg": [embedding | {"frames": jpeg}], "classify": [classes | {"frames": raw}],
        "classify_jpeg": [classes | {"frames": jpeg}]}


def test_warmup_requests_run_for_every_signature(exchange):
    embedding, classes = {"embedding": [1, 5]}, {"probabilities": [1, 3], "labels": [1, 3]}
    assert exchange[3]["warmup"] == [
        ["export", "serving_default", embedding], ["export", "embed", embedding],
        ["export", "embed_jpeg", embedding], ["export", "classify", classes],
        ["export", "classify_jpeg", classes]]


def test_saved_model_cli_shows_and_runs_it(exchange, head):
    model_dir, requests, answers, _, folder = exchange
    program = pathlib.Path(sys.executable).with_name("saved_model_cli")
    np.save(folder / "frames.npy", requests["embed-4x8x8"])
    processes = [
        subprocess.Popen([program, *arguments], cwd=folder, env=clean_environment(), text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for arguments in (
            ["show", "--dir", model_dir, "--all"],
            ["run", "--dir", model_dir, "--tag_set", "serve", "--signature_def", "classify",
             "--inputs", "frames=frames.npy", "--outdir", "out"])]
    shown, ran = (x.communicate(timeout=300)[0] for x in processes)
    for name in ("serving_default", "embed", "embed_jpeg", "classify", "classify_jpeg"):
        assert f"signature_def['{name}']" in shown, shown
    for shape in ("(-1, -1, -1, -1, 3)", "(-1, -1)", "(-1, 5)", "(-1, 3)"):
        assert f"shape: {shape}" in shown, shown
    assert processes[1].returncode == 0, ran
    np.testing.assert_allclose(np.load(folder / "out" / "probabilities.npy"),
                               probabilities(answers["embed-4x8x8"], head), atol=1e-5)
    assert all(f"b'{name}'" in ran for name in CLASSES[:2]), ran


def test_provenance_travels(exchange):
    record = json.loads(
        (pathlib.Path(exchange[0]) / "assets.extra" / "provenance.json").read_text())
    assert record["trained_by_commit"] == "abc123"
    assert record["config"] == "f00d"
    assert record["embedding_size"] == 5
    assert record["clip"] == {**dataclasses.asdict(CLIP), "mean": MEAN, "scale": SCALE}
    assert record["signatures"] == ["classify", "classify_jpeg", "embed", "embed_jpeg",
                                    "serving_default"]
    assert record["head"]["classes"] == 3 and record["head"]["test_accuracy"] == 0.75


def test_a_fine_tuned_head_brings_its_network(encoder_dir, tmp_path):
    network = small_encoder(seed=9)
    folder = save_classifier(tmp_path / "finetune", encoder_dir, "finetune", network)
    path = pathlib.Path(export.export_encoder(encoder_dir, tmp_path / "elo", head_dir=folder))
    model = tf.saved_model.load(path)
    frames = noise(np.random.Generator(np.random.PCG64(4)), 2, FRAMES, SIZE + 1, SIZE + 1, 3)
    pixels = ((np.round(resized(frames)) / 255 - MEAN) / SCALE).astype(np.float32)
    expected, other = (x(pixels, training=False)["embedding"].numpy()
                       for x in (network, small_encoder()))
    found = model.signatures["embed"](frames=tf.constant(frames))["embedding"].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected - other).max() > 0.01
    head = heads.load_head(folder, encoder_dir)
    np.testing.assert_allclose(
        model.signatures["classify"](frames=tf.constant(frames))["probabilities"],
        probabilities(expected, head), atol=1e-5)
    card = (path / "model_card.md").read_text()
    assert "**Both are of the fine-tuned network**" in card
    assert json.loads((path / "assets.extra" / "provenance.json").read_text())[
        "head"]["kind"] == "finetune"


def test_what_was_trained_in_half_precision_answers_in_float32(tiny_clip, tmp_path):
    clips = np.random.default_rng(1).integers(0, 256, [2, 4, 16, 16, 3], np.uint8)
    inputs = ((clips / 255 - 0.45) / 0.225).astype(np.float32)
    with precision_policy("mixed_bfloat16"):
        tf.keras.utils.set_random_seed(5)
        encoder = video_encoder(3, depth=10, width=0.0625, name="rgb")
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(tf.cast(
                encoder(inputs, training=True)["embedding"], tf.float32) - 1.0))
        optimizer = tf.keras.optimizers.legacy.SGD(0.1)
        optimizer.apply_gradients(zip(tape.gradient(loss, encoder.trainable_variables),
                                      encoder.trainable_variables, strict=True))
        encoder_files.save_encoder(encoder, tmp_path / "encoder")
        clip = dataclasses.replace(tiny_clip, crop=1.0)
        encoder_files.save_clip(clip, tmp_path / "encoder", "")
        path = export.export_encoder(tmp_path / "encoder", tmp_path / "elo", warmup=False)
        half = encoder(inputs, training=False)["embedding"].numpy().astype(np.float32)
    whole = encoder_files.load_encoder(tmp_path / "encoder")(inputs, training=False)["embedding"]
    found = tf.saved_model.load(path).signatures["embed"](frames=tf.constant(clips))["embedding"]
    assert found.dtype == whole.dtype == tf.float32
    np.testing.assert_allclose(found, whole, atol=1e-5 * np.abs(whole).max())
    assert np.abs(half - whole).max() > 1e-4 * np.abs(whole).max()


def test_a_classifier_of_another_encoder_is_refused(encoder_dir, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    small_encoder(seed=8).save(other / "rgb.keras")
    (other / "clip.json").write_bytes((encoder_dir / "clip.json").read_bytes())
    folder = save_classifier(tmp_path / "linear", other)
    with pytest.raises(UserError, match="linear/head.json is of another encoder"):
        export.export_encoder(encoder_dir, tmp_path / "elo", head_dir=folder)
    wide = save_classifier(tmp_path / "wide", encoder_dir, width=7)
    with pytest.raises(UserError, match="an embedding of 7 numbers, and the network gives 5"):
        export.export_encoder(encoder_dir, tmp_path / "elo", head_dir=wide)
    with pytest.raises(UserError, match="no classifier .*none/head.json"):
        export.export_encoder(encoder_dir, tmp_path / "elo", head_dir=tmp_path / "none")
    assert not (tmp_path / "elo").exists()


def test_versions_count_up_and_are_never_overwritten(encoder_dir, tmp_path):
    def exported(**options):
        return os.path.basename(export.export_encoder(
            encoder_dir, tmp_path, warmup=False, **options))

    assert exported(version=7) == "7"
    before = sorted((tmp_path / "7").rglob("*"))
    assert exported() == "8"
    with pytest.raises(UserError, match="7 exists"):
        exported(version=7)
    assert sorted((tmp_path / "7").rglob("*")) == before
    # Nothing half-written stays beside the versions.
    assert sorted(os.listdir(tmp_path)) == ["7", "8"]


def test_damaged_or_missing_files_are_user_errors(tmp_path):
    encoder_dir = tmp_path / "encoder"
    encoder_dir.mkdir()
    with pytest.raises(UserError, match="clip.json"):
        export.export_encoder(encoder_dir, tmp_path / "export")
    (encoder_dir / "clip.json").write_text('{"frames": 4}')
    with pytest.raises(UserError, match="clip.json .*next_frames"):
        export.export_encoder(encoder_dir, tmp_path / "export")
    (encoder_dir / "clip.json").write_text(json.dumps(dataclasses.asdict(CLIP)))
    with pytest.raises(UserError, match="clip.json has no 'mean'"):
        export.export_encoder(encoder_dir, tmp_path / "export")
    (encoder_dir / "clip.json").write_text(
        json.dumps({**dataclasses.asdict(CLIP), "mean": 0.5, "scale": 0.5}))
    with pytest.raises(UserError, match="no encoder .*rgb.keras"):
        export.export_encoder(encoder_dir, tmp_path / "export")
    (encoder_dir / "rgb.keras").write_bytes(b"not a model")
    with pytest.raises(UserError, match="rgb.keras cannot be loaded"):
        export.export_encoder(encoder_dir, tmp_path / "export")
    plain = tf.keras.Sequential([tf.keras.Input([2]), tf.keras.layers.Dense(1)])
    plain.save(encoder_dir / "rgb.keras")
    with pytest.raises(UserError, match="no output named 'embedding'"):
        export.export_encoder(encoder_dir, tmp_path / "export")
    assert not (tmp_path / "export").exists()
