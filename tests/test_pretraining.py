"""The train step: N devices are one device, weights are data, missing clips are missing."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data.clip_spec import MODALITIES
from elo_tf.losses import LossSpace
from elo_tf.models.normalization import batch_norm
from elo_tf.pretraining import PretrainingModel
from elo_tf.training.batch_statistics import BatchStatistics
from elo_tf.training.heldout import HeldoutLosses
from elo_tf.views.augmentation import Augmentation

NAMES = LossSpace().names
YES, NO = (True,) * 8, (False,) * 8
HALF = (True,) * 4 + (False,) * 4  # a whole device of two has none
SOME = (True, False, True, True, False, True, True, False)


def small_encoder(channels, name, audio=False):
    """Four convolutions with batch normalisation: an encoder that traces fast."""
    convolution = tf.keras.layers.Conv2D if audio else tf.keras.layers.Conv3D
    inputs = tf.keras.Input((None, channels, 1) if audio else (None, None, None, channels))
    x, outputs = inputs, {}
    for block, width in enumerate((4, 6, 6, 8), start=1):
        x = convolution(
            width, 3, 2, padding="same", use_bias=False, name=f"conv{block}")(x)
        x = outputs[f"block{block}"] = tf.nn.relu(batch_norm(f"norm{block}")(x))
    outputs["embedding"] = tf.reduce_mean(x, list(range(1, x.shape.rank - 1)))
    return tf.keras.Model(inputs, outputs, name=name)


@pytest.fixture(scope="module")
def make_small_model(tiny_clip):
    def make(names=None, seed=1, **options):
        return PretrainingModel(
            tiny_clip, LossSpace(), names=names, seed=seed, make_video_encoder=small_encoder,
            make_audio_encoder=functools.partial(small_encoder, audio=True), **options)

    return make


class Trainer:
    """A small model under a strategy, with a compiled step on NumPy batches."""

    def __init__(self, make_model, strategy):
        self.strategy = strategy
        with strategy.scope():
            self.model = make_model()
            self.model.compile(optimizer=tf.keras.optimizers.SGD(0.1, global_clipnorm=1.0))
            self.model.optimizer.build(self.model.trainable_variables)
        self.initial = self.values()
        self._step = tf.function(
            lambda batch: strategy.run(self.model.train_step, args=(batch,)))

    def values(self):
        """All variables by a unique name; a trained one's begins with a plus."""
        trained = {id(v) for v in self.model.trainable_variables}
        return {f"{'+' if id(v) in trained else ''}{i} {v.name}": v.numpy()
                for i, v in enumerate(self.model.variables)}

    def reset(self, weights):
        for variable, value in zip(self.model.variables, self.initial.values(), strict=True):
            variable.assign(value)
        self.model.set_weights_by_name(weights)

    def distributed(self, *batches):
        def same_shapes():
            yield from batches

        signature = {k: tf.TensorSpec(v.shape, v.dtype) for k, v in batches[0].items()}
        dataset = tf.data.Dataset.from_generator(same_shapes, output_signature=signature)
        return self.strategy.experimental_distribute_dataset(dataset)

    def train(self, *batches):
        """Steps; returns the last one's report of every replica."""
        for batch in self.distributed(*batches):
            reports = self._step(batch)
        return [tf.nest.map_structure(lambda x: x.numpy(), report) for report in zip_reports(
            reports, self.strategy)]

    @property
    def traces(self):
        return self._step.experimental_get_tracing_count()


def zip_reports(report, strategy):
    parts = {k: strategy.experimental_local_results(v) for k, v in report.items()}
    return [{k: v[i] for k, v in parts.items()} for i in range(strategy.num_replicas_in_sync)]


@pytest.fixture(scope="module")
def one(make_small_model):
    return Trainer(make_small_model, tf.distribute.MirroredStrategy(["CPU:0"]))


@pytest.fixture(scope="module")
def two(make_small_model, two_replicas):
    return Trainer(make_small_model, two_replicas)


def drawn_weights(seed):
    generator = np.random.Generator(np.random.PCG64(seed))
    return dict(zip(NAMES, generator.uniform(0.05, 1, len(NAMES)).tolist(), strict=True))


def test_initial_variables_do_not_depend_on_the_number_of_devices(one, two):
    assert one.initial.keys() == two.initial.keys()
    for name, value in one.initial.items():
        np.testing.assert_array_equal(two.initial[name], value)


@pytest.mark.parametrize("missing", (
    {},
    {"has_flow": SOME, "has_audio": SOME[::-1], "has_other": SOME},
    {"has_flow": HALF, "has_audio": HALF[::-1], "has_other": HALF},
    {"has_flow": NO, "has_audio": SOME, "has_other": NO},
), ids=("all there", "some missing", "missing on a device", "missing everywhere"))
def test_two_devices_make_the_step_of_one(missing, one, two, make_tiny_batch):
    batch = make_tiny_batch(11, **missing)
    reports = []
    for trainer in (one, two):
        trainer.reset(drawn_weights(1))
        reports.append(trainer.train(batch))
    (single,), double = reports
    for report in double:
        np.testing.assert_array_equal(report["counts"], single["counts"])
        np.testing.assert_allclose(report["losses"], single["losses"], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(report["total"], single["total"], rtol=1e-3)

    expected, got = one.values(), two.values()
    for name, value in expected.items():
        step = value - one.initial[name]
        tolerance = 2e-6 + 5e-3 * np.abs(step).max()
        if "moving_variance" in name:
            continue  # with Bessel's correction on one device, without it on two
        np.testing.assert_allclose(
            got[name] - two.initial[name], step, rtol=0, atol=tolerance, err_msg=name)


def test_weights_are_data(one, make_tiny_batch):
    batch = make_tiny_batch(12)
    steps = []
    for seed in (1, 2):
        one.reset(drawn_weights(seed))
        report, = one.train(batch)
        weights = np.array([drawn_weights(seed)[name] for name in NAMES])
        np.testing.assert_allclose(report["total"], weights @ report["losses"], rtol=1e-5)
        steps.append((report["losses"], one.values()))
    (losses, first), (again, second) = steps
    np.testing.assert_array_equal(losses, again)  # raw: they know no weight
    assert any((first[name] != second[name]).any() for name in first if name[0] == "+")
    assert one.traces == 1


@pytest.mark.parametrize("weight", (0.0, 0.019))
def test_a_loss_without_weight_moves_nothing(weight, one, make_tiny_batch):
    alone = {**dict.fromkeys(NAMES, weight), "gray/shuffle": 0.5}
    one.reset(alone)
    one.train(make_tiny_batch(13))
    moved = {v.ref() for v, (name, value) in zip(
        one.model.variables, one.values().items(), strict=True)
        if name[0] == "+" and (value != one.initial[name]).any()}
    task = one.model.tasks[NAMES.index("gray/shuffle")]
    can_move = [*one.model.encoders["gray"].trainable_variables, *task.trainable_variables]
    assert moved == {v.ref() for v in can_move}


def test_a_batch_of_missing_clips_still_trains_what_is_there(one, make_tiny_batch):
    one.reset(drawn_weights(3))
    one.train(make_tiny_batch(14, has_flow=NO, has_audio=NO, has_other=NO))
    after = one.values()
    assert all(np.isfinite(value).all() for value in after.values())
    kernels = {m: e.trainable_variables[0].ref() for m, e in one.model.encoders.items()}
    changed = {v.ref() for v, (name, value) in zip(
        one.model.variables, after.items(), strict=True) if (value != one.initial[name]).any()}
    assert {m for m, kernel in kernels.items() if kernel in changed} == {"rgb", "gray"}


FEW = ("rgb/shuffle", "rgb/contrast", "flow/predict", "audio/align", "distill/audio/block1")


@pytest.mark.parametrize("devices", (1, 2))
def test_held_out_losses_are_the_training_losses_and_change_nothing(
        devices, make_small_model, make_tiny_batch, two_replicas):
    strategy = two_replicas if devices == 2 else tf.distribute.MirroredStrategy(["CPU:0"])
    trainer = Trainer(functools.partial(make_small_model, FEW), strategy)
    batches = [make_tiny_batch(15), make_tiny_batch(16, has_flow=SOME, has_audio=NO)]
    weights = {name: drawn_weights(4)[name] for name in FEW}
    training = []
    for batch in batches:
        trainer.reset(weights)
        training.append(trainer.train(batch)[0])
    trainer.reset(weights)
    before = trainer.values()

    unseen = list(batches)
    measure = HeldoutLosses(trainer.model, Reread(lambda: trainer.distributed(*unseen)))
    heldout, again = measure(), measure()
    for name, value in trainer.values().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert heldout == again
    counts = np.stack([report["counts"] for report in training])
    losses = np.stack([report["losses"] for report in training])
    assert tuple(heldout) == FEW
    np.testing.assert_allclose(
        list(heldout.values()), (losses * counts).sum(0) / counts.sum(0), rtol=1e-3)

    unseen[:] = batches[1:]  # none has sound
    assert tuple(measure()) == ("rgb/shuffle", "rgb/contrast", "flow/predict")


class Reread:
    """An iterable that is made anew each time it is read."""

    def __init__(self, make):
        self._make = make

    def __iter__(self):
        return iter(self._make())


@pytest.mark.parametrize("names, encoders", (
    (("rgb/shuffle",), {"rgb"}),
    (("rgb/transfer",), {"rgb"}),
    (("gray/reverse",), {"rgb", "gray"}),
    (("rgb/predict", "distill/flow/block2"), {"rgb", "flow"}),
    (("rgb/align",), {"rgb", "audio"}),
    (("gray/align", "audio/contrast"), set(MODALITIES)),
))
def test_a_pruned_model_is_the_needed_part_of_the_whole_one(
        names, encoders, one, make_small_model):
    pruned = make_small_model(names)
    assert set(pruned.encoders) == encoders
    assert [task.name for task in pruned.tasks] == list(pruned.names) == list(names)
    assert pruned.loss_weights.shape == len(names)
    whole = {v.ref(): value for v, value in zip(
        one.model.variables, one.initial.values(), strict=True)}
    for modality, encoder in pruned.encoders.items():
        for mine, other in zip(
                encoder.weights, one.model.encoders[modality].weights, strict=True):
            np.testing.assert_array_equal(mine, whole[other.ref()])


@pytest.mark.parametrize("names, modalities, other", (
    (("rgb/shuffle",), ("rgb",), False),
    (("gray/transfer", "rgb/reverse"), ("rgb",), False),
    (("rgb/transfer",), ("rgb", "flow"), False),
    (("distill/audio/block1",), ("rgb", "audio"), False),
    (("rgb/align",), ("rgb", "audio"), True),
    (("flow/align",), ("rgb", "flow"), True),
    (NAMES, ("rgb", "flow", "audio"), True),
))
def test_batches_need_hold_no_more_than_the_losses_use(
        names, modalities, other, make_small_model, make_tiny_batch):
    model = make_small_model(names)
    assert model.modalities == modalities and model.needs_other == other
    if names == NAMES:
        return
    batch = make_tiny_batch(17)
    wanted = {"key", "index", *modalities}
    wanted |= {f"has_{m}" for m in modalities if m != "rgb"}
    if other:
        wanted |= {f"other_{m}" for m in modalities} | {"has_other"}
    losses = [model.test_step({k: tf.constant(v) for k, v in batch.items() if k in keys})["losses"]
              for keys in (wanted, set(batch))]
    np.testing.assert_allclose(*losses, rtol=1e-5)


AUGMENTATION = {"crop_area": (0.3, 1.0), "flip": 0.5, "brightness": 0.2, "contrast": 0.4,
                "hue": 0.1, "blur": 0.5, "time_masks": 1, "freq_masks": 1}


def test_two_devices_augment_as_one(make_small_model, make_tiny_batch, two_replicas):
    names = ("rgb/predict", "audio/align")
    make = functools.partial(
        make_small_model, names, make_augmentation=functools.partial(Augmentation, **AUGMENTATION))
    batch = make_tiny_batch(18)
    losses = []
    for strategy in (tf.distribute.MirroredStrategy(["CPU:0"]), two_replicas):
        trainer = Trainer(make, strategy)
        trainer.reset(dict.fromkeys(names, 0.5))
        losses.append(trainer.train(batch)[0]["losses"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    # Only what is trained on is augmented.
    tensors = {name: tf.constant(value) for name, value in batch.items()}
    plain, tested = (model.test_step(tensors)["losses"].numpy()
                     for model in (make_small_model(names), make()))
    np.testing.assert_array_equal(tested, plain)
    assert (np.abs(losses[0] / plain - 1) > 1e-3).all()


def test_another_seed_gives_other_initial_variables(make_small_model):
    first, second = (make_small_model(("rgb/shuffle",), seed=seed).encoders["rgb"].get_weights()[0]
                     for seed in (1, 2))
    assert (first != second).any()


def test_batch_statistics_are_the_moments_of_all_batches_together():
    encoder = small_encoder(3, "rgb")
    generator = np.random.Generator(np.random.PCG64(1))
    batches = [(generator.normal(i, 1 + i, (4, 4, 16, 16, 3))).astype("f") for i in range(3)]
    kernels = {layer.name: layer.kernel.numpy() for layer in encoder.layers
               if isinstance(layer, tf.keras.layers.Conv3D)}
    # Each batch is normalised by itself on its way up, as in training.
    inputs, expected = list(batches), []
    for block in range(1, 5):
        x = [tf.nn.conv3d(x, kernels[f"conv{block}"], [1, 2, 2, 2, 1], "SAME").numpy()
             for x in inputs]
        together = np.concatenate([v.reshape(-1, v.shape[-1]) for v in x]).astype(np.float64)
        expected.append((together.mean(0), together.var(0)))
        inputs = [np.maximum((v - v.mean((0, 1, 2, 3)))
                             / np.sqrt(v.var((0, 1, 2, 3)) + 1e-5), 0) for v in x]
    BatchStatistics(encoder).estimate(iter(batches))
    for block, (mean, variance) in enumerate(expected, start=1):
        layer = encoder.get_layer(f"norm{block}")
        np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-3, atol=1e-4)
        assert layer.momentum == 0.9


def test_batch_statistics_need_a_batch():
    with pytest.raises(ValueError, match="no batch"):
        BatchStatistics(small_encoder(3, "rgb")).estimate([])
