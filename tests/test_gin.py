"""The gin files that are shipped: all parse, name what exists, and agree with the code."""

import inspect
import pathlib

import gin
import pytest

from elo_tf.bin import configuration, gin_checks
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.fitness.guide import Fitness
from elo_tf.losses import LossSpace
from elo_tf.search.space import SearchSpace

GIN = pathlib.Path(__file__).resolve().parent.parent / "gin"
FILES = sorted(str(path.relative_to(GIN)) for path in GIN.rglob("*.gin"))
# Rows of the paper that train other losses than the search's forty: how many their space has.
LOSSES = {"kinetics": 1, "reconstruct": 4, "frame_shuffle": 4, "reverse_detection": 4,
          "audio_rgb_align": 4, "rgb_to_flow": 4, "predict_4_frames": 4, "joint_embedding": 4,
          "shuffle_and_learn": 1,
          "o3n": 1, "opn": 1, "patch": 1, "multisensory": 1, "avts": 1, "jigsaw": 1,
          "relative_patch": 1}
# Where defaults.gin, which starts at a real size, is on purpose not what the code starts from.
SIZES = {"pretrain.steps", "pretrain.checkpoint_every", "pretrain.log_every"}


@gin.configurable("assembled")
def assembled(clip=gin.REQUIRED, space=gin.REQUIRED, fitness=gin.REQUIRED, strategy=gin.REQUIRED,
              optimizer=gin.REQUIRED):
    return clip, space, fitness, strategy(space.searched), optimizer(20, 64)


@pytest.mark.parametrize("file", FILES)
def test_a_shipped_file_parses_and_its_objects_can_be_built(file):
    configuration.parse([file], [
        "assembled.clip = @ClipSpec()", "assembled.space = @SearchSpace()",
        "assembled.fitness = @Fitness()", "assembled.optimizer = @make_optimizer"])
    chosen = gin.query_parameter("search.make_strategy").selector.rpartition(".")[2]
    with gin.unlock_config():
        gin.parse_config(f"assembled.strategy = @{chosen}")
    losses = LOSSES.get(pathlib.Path(file).stem, 40)
    if losses == 1:  # Nothing to search: CMA-ES wants two dimensions.
        with gin.unlock_config():
            gin.parse_config("assembled.strategy = @RandomSearch")
        chosen = "RandomSearch"
    clip, space, fitness, strategy, optimizer = assembled()
    assert isinstance(clip, ClipSpec) and isinstance(fitness, Fitness)
    assert isinstance(space, SearchSpace) and len(space.names) == losses
    assert type(strategy).__name__ == chosen
    vectors = strategy.ask()
    assert vectors.shape[1] == strategy.dimension == len(space.searched) <= losses
    assert float(optimizer.learning_rate(10)) > 0
    for name in ("pretrain.steps", "pretrain.checkpoint_every"):
        assert gin.query_parameter(name) % gin.query_parameter("pretrain.log_every") == 0


# The paper's rows have the networks of final.gin; test_rows.py builds them.
@pytest.mark.parametrize("file", [
    x for x in FILES if "include 'papers/elo_cvpr2020/final.gin'" not in (GIN / x).read_text()])
def test_the_networks_of_a_shipped_file_can_be_built(file, two_logical_devices):
    # With the widths that the file asks for, at the depth and clip of the smallest.
    configuration.parse([file], ["video_encoder.depth = 10", "video_encoder.width = 0.0625"])
    for name in ("video_encoder", "audio_encoder"):
        encoder = gin.get_configurable(f"@{name}"[1:])(3, name=name)
        assert set(encoder.output) == {"block1", "block2", "block3", "block4", "embedding"}


def test_the_defaults_augment_nothing_and_the_shipped_set_everything():
    for files, on in (([], False), (["data/augmentation.gin"], True)):
        gin.clear_config()
        configuration.parse(files, [])
        augmentation = gin.get_configurable("Augmentation")()
        assert [augmentation.active, augmentation.crops, augmentation.colours, augmentation.blurs,
                augmentation.masks] == [on] * 5


def test_the_defaults_are_those_of_the_code():
    configuration.parse([], [])
    compared = 0
    for (_, selector), bound in gin_checks.bindings():
        function = gin_checks.configurable(selector)
        signature = inspect.signature(function)
        name = selector.rsplit(".", 1)[-1]
        for parameter, value in bound.items():
            default = signature.parameters[parameter].default
            if default in (gin.REQUIRED, inspect.Parameter.empty) or callable(default):
                continue
            if isinstance(value, (int, float, str, bool, type(None))):
                if f"{name}.{parameter}" not in SIZES:
                    assert value == default, f"{name}.{parameter}"
                compared += 1
    assert compared > 25


def test_the_families_of_the_defaults_are_those_of_the_code():
    configuration.parse([], [])
    space = gin.get_configurable("LossSpace")()
    assert space.names == LossSpace().names
