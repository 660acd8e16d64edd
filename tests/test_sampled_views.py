"""Views that samplers cut out, and encoders that are entered midway, in the real train step."""

import functools
import types

import gin
import numpy as np
import pytest
import tensorflow as tf

from elo_tf.encoding import SITES, EncodedViews, calls, encode_modality, rest_of
from elo_tf.errors import UserError
from elo_tf.losses import LossSpace
from elo_tf.models.normalization import batch_norm
from elo_tf.pretraining import PretrainingModel
from elo_tf.tasks.avts import AVTS
from elo_tf.tasks.multisensory import Multisensory, at_frames
from elo_tf.tasks.ordering import Shuffle
from elo_tf.tasks.task import Task, TaskOutput
from elo_tf.views.clip_views import ClipViews
from elo_tf.views.samplers import Sample, example_seeds, uniform

SOME = {"has_flow": (True, False, True, True, False, True, True, False),
        "has_audio": (False, True, True, False, True, True, True, True),
        "has_other": (True, True, False, True, False, True, True, True)}
NONE = {**SOME, "has_flow": (False,) * 8}


class Frames:
    """Three drawn frames of a clip that has flow."""

    sources = (("rgb", "intact"), ("flow", "intact"))

    def __call__(self, sources, seeds):
        rgb, _ = sources
        chosen = tf.argsort(uniform(seeds, [rgb.shape[1]]))[:, :3]
        items = tf.gather(rgb, chosen, axis=1, batch_dims=1)[:, :, tf.newaxis]
        return Sample(items, {"chosen": chosen})


class Late(Task):
    """Is the first of the frames later than the last?"""

    family = "late"

    @classmethod
    def members(cls):
        return {"rgb/late": functools.partial(cls, "rgb")}

    @property
    def samplers(self):
        return {"frames": Frames()}

    @property
    def encodes(self):
        return (("rgb", "frames"),)

    def build_heads(self, shapes):
        self.classifier = tf.keras.layers.Dense(1)
        self.classifier.build((None, 3 * shapes.widths["rgb"]["embedding"]))

    def call(self, encoded):
        features = encoded.activation("rgb", "frames")
        logit = self.classifier(tf.reshape(features, [-1, 3 * features.shape[-1]]))[:, 0]
        chosen = encoded.truth("rgb", "frames")["chosen"]
        late = tf.cast(chosen[:, 0] > chosen[:, 2], tf.float32)
        loss = tf.nn.sigmoid_cross_entropy_with_logits(late, logit)
        return TaskOutput(loss, self.mask(encoded), tf.fill(tf.shape(loss), 0.6931472))


FAMILIES = (Shuffle, Late, AVTS, Multisensory)
NAMES = ("rgb/shuffle", "rgb/late", "rgb/sync", "rgb/multisensory")


def small_encoder(channels, name, audio=False, norm=True):
    """Four convolutions, of which the later ones keep a few frames."""
    convolution = tf.keras.layers.Conv2D if audio else tf.keras.layers.Conv3D
    inputs = tf.keras.Input((None, channels, 1) if audio else (None, None, None, channels))
    x, outputs = inputs, {}
    for block, width in enumerate((4, 6, 6, 8), start=1):
        x = convolution(width, 3, 2 if block < 3 else 1, padding="same", name=f"conv{block}")(x)
        x = batch_norm(f"norm{block}")(x) if norm else x
        x = outputs[f"block{block}"] = tf.nn.softplus(x)
    outputs["embedding"] = tf.reduce_mean(x, list(range(1, x.shape.rank - 1)))
    return tf.keras.Model(inputs, outputs, name=name)


def make_model(clip, names=NAMES, norm=False, families=FAMILIES, **options):
    return PretrainingModel(
        clip, LossSpace(families), names=names,
        make_video_encoder=functools.partial(small_encoder, norm=norm),
        make_audio_encoder=functools.partial(small_encoder, audio=True, norm=norm), **options)


@pytest.fixture(scope="module")
def step_of(tiny_clip, make_tiny_batch, two_replicas):
    """One step of SGD from the same variables: the report, and what has changed by name."""
    def run(*, devices=1, weights=None, batch=SOME, **options):
        strategy = two_replicas if devices == 2 else tf.distribute.MirroredStrategy(["CPU:0"])
        with strategy.scope():
            model = make_model(tiny_clip, **options)
            model.set_weights_by_name(
                {name: 0.0 for name in model.names} | (weights or dict.fromkeys(model.names, 0.7)))
            model.compile(optimizer=tf.keras.optimizers.legacy.SGD(0.1))
        before = {f"{i} {v.name}": v.numpy() for i, v in enumerate(model.trainable_variables)}
        data = {k: tf.constant(v) for k, v in make_tiny_batch(21, **batch).items()}
        data = strategy.experimental_distribute_dataset(
            tf.data.Dataset.from_tensors(data).unbatch().batch(8))
        step = tf.function(lambda batch: strategy.run(model.train_step, args=(batch,)))
        report = {k: strategy.experimental_local_results(v)[0].numpy()
                  for k, v in step(next(iter(data))).items()}
        changes = {f"{i} {v.name}": v.numpy() - before[f"{i} {v.name}"]
                   for i, v in enumerate(model.trainable_variables)}
        return types.SimpleNamespace(model=model, report=report, changes=changes)

    return run


def assert_same(one, other, tolerance=2e-4):
    for key in ("losses", "counts", "gradient_norms"):
        np.testing.assert_allclose(other.report[key], one.report[key], rtol=tolerance, atol=1e-6)
    for name, change in one.changes.items():
        np.testing.assert_allclose(other.changes[name], change, rtol=0, err_msg=name,
                                   atol=tolerance * np.abs(change).max() + 1e-7)


@pytest.fixture(scope="module")
def one(step_of):
    return step_of()


def test_all_tasks_count_and_pull(one):
    has = {k: np.array(v) for k, v in SOME.items()}
    shifted = has["has_audio"] & has["has_other"]
    assert one.report["counts"].tolist() == [8, has["has_flow"].sum(), has["has_audio"].sum(),
                                             shifted.sum()]
    assert (one.report["gradient_norms"] > 1e-5).all()
    assert one.model.modalities == ("rgb", "flow", "audio") and one.model.needs_other
    for name, change in one.changes.items():
        assert np.abs(change).max() > 0, name


def test_two_devices_are_one(one, step_of):
    assert_same(one, step_of(devices=2))


def test_a_device_where_no_clip_counts(step_of):
    batch = {**SOME, "has_flow": (True,) * 4 + (False,) * 4}
    assert_same(step_of(batch=batch), step_of(batch=batch, devices=2))


def test_recomputing_units_changes_nothing(one, step_of):
    assert_same(one, step_of(recompute="units"))


def test_views_in_turn_change_nothing_but_cannot_enter_midway(step_of, tiny_clip):
    names = NAMES[:3]
    assert_same(step_of(names=names), step_of(names=names, recompute="views"))
    with pytest.raises(UserError, match="recompute is 'views', but a task of .*rgb/multisensory"):
        make_model(tiny_clip, recompute="views")


@pytest.fixture(scope="module")
def searched(tiny_clip):
    """A model of a whole space, its step and its initial variables."""
    model = make_model(tiny_clip, names=None, norm=True, families=FAMILIES[:3])
    model.compile(optimizer=tf.keras.optimizers.legacy.SGD(0.1))
    return model, tf.function(model.train_step), model.get_weights()


@pytest.mark.parametrize("active", (NAMES[:1], NAMES[1:2]))
def test_a_space_skips_sampled_views_of_weight_zero(active, searched, tiny_clip, make_tiny_batch):
    whole, step, initial = searched
    assert whole.skips
    whole.set_weights(initial)
    whole.set_weights_by_name(dict.fromkeys(whole.names, 0.0) | dict.fromkeys(active, 0.5))
    pruned = make_model(tiny_clip, names=active, norm=True)
    pruned.set_weights_by_name(dict.fromkeys(active, 0.5))
    pruned.compile(optimizer=tf.keras.optimizers.legacy.SGD(0.1))
    pruned.encoders["rgb"].set_weights(whole.encoders["rgb"].get_weights())
    for task in pruned.tasks:
        task.set_weights(whole.tasks[whole.names.index(task.name)].get_weights())
    batch = {k: tf.constant(v) for k, v in make_tiny_batch(5, **SOME).items()}
    reports = step(batch), tf.function(pruned.train_step)(batch)
    for i, name in enumerate(active):
        place = whole.names.index(name)
        assert reports[0]["counts"][place] == reports[1]["counts"][i] > 0
        np.testing.assert_allclose(reports[0]["losses"][place], reports[1]["losses"][i], rtol=1e-4)
    for ours, theirs in zip(whole.encoders["rgb"].variables, pruned.encoders["rgb"].variables,
                            strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_space_with_a_task_that_enters_midway_skips_nothing(tiny_clip):
    assert not make_model(tiny_clip, names=None).skips


@pytest.mark.parametrize("present", (SOME, NONE), ids=("some", "none"))
def test_an_item_is_encoded_as_a_clip_of_its_own(present, one, tiny_clip, make_tiny_batch):
    batch = {k: tf.constant(v) for k, v in make_tiny_batch(8, **present).items()}
    views = ClipViews(batch, tiny_clip, 3, samplers={"frames": Frames()})
    items = views.view("rgb", "frames").numpy()
    chosen = views.truth("rgb", "frames")["chosen"].numpy()
    rgb = views.view("rgb", "intact").numpy()
    for i, own in enumerate(chosen):
        assert len(set(own.tolist())) == 3
        np.testing.assert_array_equal(items[i, :, 0], rgb[i, own])
    assert calls(views, "rgb", ["intact", "frames", "shuffled"]) == [["intact", "shuffled"],
                                                                     ["frames"]]
    encoder = one.model.encoders["rgb"]
    found = encode_modality(encoder, views, "rgb", ["frames"], True, {("frames", "block2")})
    has = np.array(present["has_flow"])
    for site in SITES:
        value = found["frames", site].numpy()
        expected = np.zeros_like(value)
        for i in np.flatnonzero(has):
            for k in range(3):
                whole = encoder(items[i, k][np.newaxis], training=True)[site].numpy()[0]
                expected[i, k] = whole.reshape(-1, whole.shape[-1]).mean(0)
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)
    whole = found["frames", "block2/map"].numpy()
    assert whole.shape[:2] == (8, 3) and not whole[~has].any()
    np.testing.assert_allclose(whole.mean((2, 3, 4)), found["frames", "block2"], rtol=1e-4,
                               atol=1e-6)


def test_draws_depend_on_the_example_alone(tiny_clip, make_tiny_batch):
    batch = {k: tf.constant(v) for k, v in make_tiny_batch(8).items()}

    def chosen(rows, seed=3):
        part = {k: tf.gather(v, rows) for k, v in batch.items()}
        views = ClipViews(part, tiny_clip, seed, samplers={"frames": Frames()})
        return views.truth("rgb", "frames")["chosen"].numpy()

    whole = chosen(list(range(8)))
    np.testing.assert_array_equal(chosen([5, 2]), whole[[5, 2]])
    assert (chosen(list(range(8)), seed=4) != whole).any()


def test_the_seeds_are_folds_and_draws_are_uniform():
    index, key = tf.range(4000, dtype=tf.int64), tf.range(4000, dtype=tf.int64) * 7 + 1
    seeds = tf.function(example_seeds)(5, index, key, 9)
    fold = tf.random.experimental.stateless_fold_in
    own = fold(fold(tf.constant([5, 9]), index[17]), key[17])
    np.testing.assert_array_equal(seeds[17], own)
    draw = tf.function(uniform)
    draws = [draw(seeds, [2], number).numpy() for number in (0, 1)]
    for values in draws:
        # Four deviations of a mean of 4000, and of a share of a tenth.
        np.testing.assert_allclose(values.mean(0), 0.5, atol=4 * 0.2887 / 4000**0.5)
        np.testing.assert_allclose((values < 0.1).mean(0), 0.1, atol=4 * 0.3 / 4000**0.5)
    assert abs(np.corrcoef(draws[0][:, 0], draws[1][:, 0])[0, 1]) < 4 / 4000**0.5


def test_the_rest_of_an_encoder_goes_on_where_a_map_was_taken(one, tiny_clip, make_tiny_batch):
    batch = {k: tf.constant(v) for k, v in make_tiny_batch(8).items()}
    views = ClipViews(batch, tiny_clip, 3)
    encoder = one.model.encoders["rgb"]
    found = encode_modality(encoder, views, "rgb", ["intact"], True, {("intact", "block2")})
    encoded = EncodedViews(views, {"rgb": found}, lambda m, site: rest_of(encoder, site))
    np.testing.assert_allclose(
        encoded.after("rgb", "block2", encoded.map("rgb", "intact", "block2")),
        encoded.activation("rgb", "intact"), rtol=1e-5)


@pytest.mark.parametrize("length, frames", ((8, 4), (3, 4), (7, 3), (5, 5), (1, 2)))
def test_sound_is_brought_to_the_frames_by_averages(length, frames):
    sound = np.random.Generator(np.random.PCG64(1)).normal(size=(2, length, 3)).astype(np.float32)
    brought = at_frames(tf.constant(sound), frames).numpy()
    for i in range(frames):
        first, last = i * length / frames, (i + 1) * length / frames
        touched = [j for j in range(length) if j + 1 > first + 1e-9 and j < last - 1e-9]
        touched = [j for j in touched if j >= int(first)]
        np.testing.assert_allclose(brought[:, i], sound[:, touched].mean(1), rtol=1e-5)


def dense(layer, x):
    kernel, *bias = (w.numpy().astype(np.float64) for w in layer.weights)
    return x @ kernel + (bias[0] if bias else 0.0)


@pytest.fixture(scope="module")
def measured(one, tiny_clip, make_tiny_batch):
    """What the model's tasks see and say of a batch, in NumPy."""
    model = one.model
    data = make_tiny_batch(31, **SOME)
    encoded = model.encode(ClipViews({k: tf.constant(v) for k, v in data.items()}, tiny_clip, 1,
                                     samplers={"frames": Frames()}), training=True)
    return types.SimpleNamespace(
        data=data, encoded=encoded, has=np.array(SOME["has_audio"]),
        shifted=np.array(SOME["has_audio"]) & np.array(SOME["has_other"]),
        tasks=dict(zip(model.names, model.tasks, strict=True)), model=model)


@pytest.mark.parametrize("hard_from, hard_share, hard", (
    (0, 1.0, (1, 1, 1, 1, 1, 1, 1, 1)), (0, 0.25, (0, 0, 0, 1, 0, 0, 0, 1)),
    (3104, 0.5, (0, 0, 0, 0, 0, 1, 0, 1)), (10**6, 1.0, (0,) * 8)))
def test_avts(hard_from, hard_share, hard, measured):
    task, encoded = measured.tasks["rgb/sync"], measured.encoded
    assert measured.data["index"][0] == 3100
    task._hard_from, task._hard_share = hard_from, hard_share
    picture = dense(task.picture, encoded.activation("rgb", "intact").numpy())
    sounds = {view: dense(task.sound, encoded.activation("audio", view).numpy())
              for view in ("intact", "other_time")}
    output, right = task(encoded), task.accuracy(encoded).numpy()
    np.testing.assert_array_equal(output.mask, measured.has)
    for i in np.flatnonzero(measured.has):
        other = next(j % 8 for j in range(i + 1, i + 8) if measured.has[j % 8])
        negative = sounds["intact"][other]
        if hard[i] and measured.shifted[i]:
            negative = sounds["other_time"][i]
        near = np.linalg.norm(picture[i] - sounds["intact"][i])
        far = np.linalg.norm(picture[i] - negative)
        expected = 0.5 * (near**2 + max(0.99 - far, 0) ** 2)
        np.testing.assert_allclose(output.loss[i], expected, rtol=1e-3, atol=1e-5)
        assert right[i] == (near < far)
    np.testing.assert_allclose(output.trivial, 0.5 * 0.99**2)


def test_multisensory(measured):
    task, encoded = measured.tasks["rgb/multisensory"], measured.encoded
    encoder = measured.model.encoders["rgb"]
    picture = encoded.map("rgb", "intact", "block2").numpy()
    logits = []
    for view in ("intact", "other_time"):
        sound = encoded.map("audio", view, "block2").numpy().mean(2)
        frames, length = picture.shape[1], sound.shape[1]
        assert length == 4 * frames  # 4 log-mel frames a frame, of which both keep every fourth
        sound = sound.reshape(len(sound), frames, 4, -1).mean(2)
        fused = picture + dense(task.projection, sound)[:, :, None, None]
        x = fused.astype(np.float32)
        for layer in ("conv3", "conv4"):
            x = np.log1p(np.exp(encoder.get_layer(layer)(x).numpy()))
        logits.append(dense(task.classifier, x.mean((1, 2, 3)))[:, 0])
    expected = 0.5 * (np.log1p(np.exp(-logits[0])) + np.log1p(np.exp(logits[1])))
    output = task(encoded)
    np.testing.assert_array_equal(output.mask, measured.shifted)
    np.testing.assert_allclose(np.where(output.mask, output.loss, 0),
                               np.where(output.mask, expected, 0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(task.accuracy(encoded),
                               ((logits[0] > 0).astype(float) + (logits[1] < 0)) / 2)


def test_without_sound_the_fused_network_is_the_encoder(measured):
    task = measured.tasks["rgb/multisensory"]
    before = task.projection.get_weights()
    task.projection.set_weights([np.zeros_like(w) for w in before])
    logits = task._logits(measured.encoded)
    task.projection.set_weights(before)
    plain = dense(task.classifier, measured.encoded.activation("rgb", "intact").numpy())[:, 0]
    for logit in logits:
        np.testing.assert_allclose(logit, plain, rtol=1e-4, atol=1e-6)


def test_the_new_tasks_can_be_named_in_gin():
    gin.parse_config("LossSpace.families = (@AVTS, @Multisensory)\nAVTS.margin = 0.5")
    space = gin.get_configurable("LossSpace")()
    assert space.names == ("rgb/sync", "rgb/multisensory")
    assert space.task("rgb/sync")._margin == 0.5
