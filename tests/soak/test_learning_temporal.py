"""The temporal methods learn what a frozen random encoder with a trained head does not."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.losses import LossSpace
from elo_tf.models.video_resnet import video_encoder
from elo_tf.pretraining import PretrainingModel
from elo_tf.tasks.odd_one_out import OddOneOut
from elo_tf.tasks.order_prediction import OrderPrediction
from elo_tf.tasks.shuffle_and_learn import ShuffleAndLearn
from elo_tf.views.frame_sampling import MotionTuples, OddSubsequences, ShuffledPatches

pytestmark = pytest.mark.soak

SIZE, BATCH, STEPS = 24, 16, 300
CLIP = ClipSpec(frames=8, next_frames=1, size=SIZE)


class Tuples(ShuffleAndLearn):
    def __init__(self):
        super().__init__(sampler=MotionTuples(motion="frames"))


class Odd(OddOneOut):
    def __init__(self):
        super().__init__(sampler=OddSubsequences(length=5))


class Order(OrderPrediction):
    def __init__(self):
        super().__init__(sampler=ShuffledPatches(patch=0.8, motion="frames"), width=64)


def clocks(number):
    """A bar turns by about 150 degrees, lighter or darker than its ground: angles tell the time."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    degrees = rng.uniform(-10, 10, (BATCH, 1)) + np.arange(9) * rng.uniform(17, 21, (BATCH, 1))
    angle = np.deg2rad(degrees)[..., None, None]
    bar = np.clip(2.5 - np.abs(y * np.cos(angle) - x * np.sin(angle)), 0, 1)
    bar *= x**2 + y**2 < (0.45 * SIZE) ** 2
    contrast = rng.choice([-1, 1], BATCH) * rng.uniform(50, 90, BATCH)
    ground = rng.uniform(100, 150, (BATCH, 1, 1, 1, 3)) + 15 * rng.normal(
        size=(BATCH, 1, SIZE, SIZE, 3))
    video = ground + (contrast[:, None, None, None] * bar)[..., None]
    video += 5 * rng.normal(size=video.shape)
    absent = {name: np.zeros(BATCH, bool) for name in ("has_flow", "has_audio", "has_other")}
    batch = {"rgb": np.clip(video, 0, 255).astype(np.uint8), "label": np.full(BATCH, -1),
             "index": np.arange(BATCH) + number * BATCH, "key": rng.integers(0, 1 << 40, BATCH)}
    return {name: tf.constant(value) for name, value in (batch | absent).items()}


def learned(*, frozen):
    """Accuracy and chance by name, on clips that were not trained on."""
    space = LossSpace((Tuples, Odd, Order))
    model = PretrainingModel(CLIP, space, names=space.names, make_video_encoder=functools.partial(
        video_encoder, depth=10, width=0.125))
    model.set_weights_by_name(dict.fromkeys(model.names, 1.0))
    model.compile(optimizer=tf.keras.optimizers.Adam(2e-3))
    heads = [v for task in model.tasks for v in task.trainable_variables]
    head_optimizer = tf.keras.optimizers.Adam(6e-3)
    head_optimizer.build(heads)

    def encoded(batch):
        return model.encode(model._clip_views(batch, augmented=False), training=True)

    @tf.function
    def head_step(batch):
        with tf.GradientTape() as tape:
            views = encoded(batch)
            loss = tf.add_n([tf.reduce_mean(task.call(views).loss) for task in model.tasks])
        head_optimizer.apply_gradients(zip(tape.gradient(loss, heads), heads, strict=True))

    @tf.function
    def accuracies(batch):
        views = encoded(batch)
        return [tf.reduce_mean(task.accuracy(views)) for task in model.tasks]

    step = head_step if frozen else tf.function(model.train_step)
    for number in range(STEPS):
        step(clocks(number))
    found = np.mean([accuracies(clocks(10**6 + i)) for i in range(8)], axis=0)
    return {task.name: (accuracy, task.chance)
            for task, accuracy in zip(model.tasks, found, strict=True)}


@pytest.mark.parametrize("frozen", (False, True), ids=("trained", "frozen"))
def test_tasks_are_learned_and_by_the_encoder(frozen):
    results = learned(frozen=frozen)
    assert len(results) == 3
    for name, (accuracy, chance) in results.items():
        halfway = (1 + chance) / 2
        assert (accuracy < halfway) if frozen else (accuracy > halfway), (name, results)
