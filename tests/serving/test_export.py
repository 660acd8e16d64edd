"""The exported encoder, used as a stranger would: in a process without this project."""

import dataclasses
import io
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.errors import UserError
from elo_tf.serving import export

FRAMES, SIZE, MEAN, SCALE = 4, 7, [0.4, 0.45, 0.5], [0.2, 0.25, 0.3]
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
            answers[name] = model.signatures[signature](
                frames=tf.constant(requests[name]))["embedding"].numpy()
        raw = requests["embed-8x26x30"]
    answers["hub"] = hub.KerasLayer(model_dir)(tf.constant(raw)).numpy()
    answers["hub-signature"] = hub.KerasLayer(
        model_dir, signature="embed", output_key="embedding")(tf.constant(raw)).numpy()
    jpegs = json.load(open(folder + "/jpegs.json"))
    answers["jpeg"] = model.signatures["embed_jpeg"](frames=tf.constant(
        [[bytes.fromhex(x) for x in clip] for clip in jpegs]))["embedding"].numpy()
    for name, signature, frames in (
            ("raw", "embed", np.zeros([1, 0, 8, 8, 3], np.uint8)),
            ("jpeg", "embed_jpeg", np.zeros([1, 0], object).astype("S"))):
        try:
            model.signatures[signature](frames=tf.constant(frames))
            notes["empty-" + name] = "no error"
        except tf.errors.InvalidArgumentError as error:
            notes["empty-" + name] = str(error)
    from tensorflow_serving.apis import prediction_log_pb2
    notes["warmup"] = []
    for record in tf.data.TFRecordDataset(model_dir + "/assets.extra/tf_serving_warmup_requests"):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        embedding = model.signatures[request.model_spec.signature_name](
            frames=tf.constant(tf.make_ndarray(request.inputs["frames"])))["embedding"]
        notes["warmup"].append([request.model_spec.name, request.model_spec.signature_name,
                                list(embedding.shape)])
    notes["shapes"] = {name: [str(x.structured_outputs["embedding"].dtype.name),
                              list(x.structured_outputs["embedding"].shape),
                              list(x.structured_input_signature[1]["frames"].shape)]
                       for name, x in model.signatures.items()}
    np.savez(folder + "/answers.npz", **answers)
    json.dump(notes, open(folder + "/notes.json", "w"))
"""


def small_encoder() -> tf.keras.Model:
    tf.keras.utils.set_random_seed(3)
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
def exchange(encoder_dir, tmp_path_factory):
    """The export, the requests sent, and what the stranger's process answered."""
    model_dir = export.export_encoder(encoder_dir, encoder_dir.parent / "export")
    folder = tmp_path_factory.mktemp("exchange")
    generator = np.random.Generator(np.random.PCG64(1))
    requests = {
        f"{signature}-{t}x{h}x{w}": noise(generator, 2, t, h, w, 3)
        for signature, t, h, w in (
            ("embed", 8, 26, 30), ("embed", 4, 8, 8), ("embed", 1, 33, 17), ("embed", 3, 6, 9),
            ("serving_default", 8, 26, 30), ("embed", 5, 64, 49), ("embed", 11, 1, 1))}
    requests["serving_default-8x26x30"] = requests["embed-8x26x30"]
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
        cwd=folder, env=clean_environment(), check=True, timeout=120)
    with np.load(folder / "answers.npz") as answers:
        return (model_dir, requests, dict(answers), json.loads((folder / "notes.json").read_text()),
                folder)


def test_equals_the_keras_model_on_numpy_preprocessing(encoder_dir, exchange):
    _, requests, answers, notes, _ = exchange
    assert notes["modules"] == []
    encoder = tf.keras.models.load_model(encoder_dir / "rgb.keras")
    for name, frames in requests.items():
        if name.startswith("embed-jpeg"):
            continue
        pixels = np.round(resized(frames)) / 255
        expected = encoder(((pixels - MEAN) / SCALE).astype(np.float32), training=False)
        expected = expected["embedding"].numpy()
        np.testing.assert_allclose(answers[name], expected, atol=1e-5, err_msg=name)
    assert np.ptp(answers["embed-8x26x30"]) > 0.01


def test_hub_layer_gives_the_same(exchange):
    answers = exchange[2]
    np.testing.assert_allclose(answers["hub"], answers["embed-8x26x30"], atol=1e-6)
    np.testing.assert_allclose(answers["hub-signature"], answers["embed-8x26x30"], atol=1e-6)


def test_jpeg_equals_raw_of_the_same_pixels(exchange):
    answers = exchange[2]
    raw = np.concatenate([answers["embed-jpeg0"], answers["embed-jpeg1"]])
    np.testing.assert_allclose(answers["jpeg"], raw, atol=1e-6)


def test_no_frames_is_a_clear_error(exchange):
    notes = exchange[3]
    assert "at least one frame" in notes["empty-raw"]
    assert "at least one frame" in notes["empty-jpeg"]


def test_signatures_say_their_shapes(exchange):
    raw = ["float32", [None, 5], [None, None, None, None, 3]]
    assert exchange[3]["shapes"] == {
        "serving_default": raw, "embed": raw, "embed_jpeg": ["float32", [None, 5], [None, None]]}


def test_warmup_requests_run(exchange):
    assert exchange[3]["warmup"] == [["export", "embed", [1, 5]], ["export", "embed_jpeg", [1, 5]]]


def test_saved_model_cli_runs_it(exchange):
    model_dir, requests, answers, _, folder = exchange
    program = pathlib.Path(sys.executable).with_name("saved_model_cli")
    np.save(folder / "frames.npy", requests["embed-4x8x8"])
    common = ["--dir", model_dir, "--tag_set", "serve", "--signature_def", "embed"]
    processes = [
        subprocess.Popen([program, *arguments], cwd=folder, env=clean_environment(), text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for arguments in (["show", *common],
                          ["run", *common, "--inputs", "frames=frames.npy", "--outdir", "out"])]
    shown, ran = (x.communicate(timeout=120)[0] for x in processes)
    assert "shape: (-1, -1, -1, -1, 3)" in shown, shown
    assert "shape: (-1, 5)" in shown, shown
    assert processes[1].returncode == 0, ran
    np.testing.assert_allclose(
        np.load(folder / "out" / "embedding.npy"), answers["embed-4x8x8"], atol=1e-6)


def test_provenance_travels(exchange):
    record = json.loads(
        (pathlib.Path(exchange[0]) / "assets.extra" / "provenance.json").read_text())
    assert record["trained_by_commit"] == "abc123"
    assert record["config"] == "f00d"
    assert record["embedding_size"] == 5
    assert record["clip"] == {**dataclasses.asdict(CLIP), "mean": MEAN, "scale": SCALE}


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
