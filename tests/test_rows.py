"""The paper's rows, gin/papers/elo_cvpr2020/: each is built and held against a table."""

import copy
import pathlib
from typing import NamedTuple

import gin
import numpy as np
import pytest

from elo_tf.bin import configuration, gin_checks
from elo_tf.evaluation import paper
from elo_tf.losses import LossSpace
from elo_tf.tasks.classification import Classify

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "gin" / "papers" / "elo_cvpr2020"
# The least at which every row can be built. What is encoded is D = 32 wide, of sound 8.
SMALL = """
ClipSpec.frames = 8
ClipSpec.next_frames = 2
ClipSpec.size = 32
ClipSpec.host_size = 0
ClipSpec.mel_per_frame = 4
ClipSpec.mel_bins = 16
video_encoder.depth = 10
video_encoder.width = 0.0625
audio_encoder.filters = (64, 8, 8, 8)
audio_encoder.blocks = (1, 1, 1, 1)
MotionTuples.window = 8
MotionTuples.gap = 1
ShuffledPatches.window = 8
inflated_resnet50.weights = None
"""
ALL = LossSpace().names
TASKS = tuple(name for name in ALL if not name.startswith("distill/"))
FOUR = ("rgb", "flow", "gray", "audio")
IN_SYNC = (("rgb", "intact"), ("audio", "intact"), ("audio", "other_time"))


class Row(NamedTuple):
    """What a file must configure.

    Attributes:
      losses: that are trained.
      views: that they encode, then those that they decode.
      samplers: their classes, by view.
      heads: inputs and outputs of the fully connected layers, of all losses in order.
      decoded: shape of what decoders make.
      encoders: that are built.
      program: that runs it.
      search: guide, and patterns of fixed weights, of the search that it needs.
      epochs_of: videos of the training set, of which it sees 100 times as many clips.
    """

    losses: tuple[str, ...]
    views: tuple[tuple[str, str], ...] = ()
    samplers: tuple[tuple[str, str], ...] = ()
    heads: tuple[tuple[int, int], ...] = ()
    decoded: tuple[int, ...] | None = None
    encoders: tuple[str, ...] = ("rgb",)
    program: str = "pretrain"
    search: tuple[str, dict] | None = None
    epochs_of: int = 2_000_000


def of_frames(loss: str, view: str, sampler: str, *heads: tuple[int, int], **more) -> Row:
    return Row((loss,), (("rgb", view),), ((view, sampler),), heads, **more)


ROWS = {
    "scratch": Row((), program="initial"),
    "imagenet": Row((), program="initial"),
    "kinetics": Row(("rgb/classify",), (("rgb", "intact"),), heads=((32, 400),),
                    epochs_of=225_000),
    "reconstruct": Row(("rgb/reconstruct",), (("rgb", "intact"), ("rgb", "intact")),
                       heads=((32, 2 * 4 * 4 * 32),), decoded=(8, 16, 16, 3)),
    "frame_shuffle": Row(("rgb/shuffle",), (("rgb", "intact"), ("rgb", "shuffled")),
                         heads=((32, 1),)),
    "reverse_detection": Row(("rgb/reverse",), (("rgb", "intact"), ("rgb", "reversed")),
                             heads=((32, 1),)),
    "audio_rgb_align": Row(("rgb/align",), IN_SYNC, heads=((32 + 8, 64), (64, 1)),
                           encoders=("rgb", "audio")),
    "rgb_to_flow": Row(("rgb/transfer",), (("rgb", "intact"), ("flow", "intact")),
                       heads=((32, 2 * 4 * 4 * 32),), decoded=(8, 16, 16, 2)),
    "predict_4_frames": Row(("rgb/predict",), (("rgb", "intact"), ("rgb", "next")),
                            heads=((32, 2 * 4 * 4 * 32),), decoded=(2, 16, 16, 3)),
    "joint_embedding": Row(
        tuple(f"{m}/contrast" for m in FOUR),
        (("rgb", "intact"), ("flow", "intact"), ("flow", "intact"), ("audio", "intact"),
         ("gray", "intact"), ("audio", "intact"), ("audio", "intact"), ("rgb", "intact")),
        heads=((32, 64), (32, 64), (32, 64), (8, 64), (32, 64), (8, 64), (8, 64), (32, 64)),
        encoders=FOUR),
    "random_loss": Row(ALL, encoders=FOUR),
    "equal_weights": Row(ALL, encoders=FOUR),
    "uncertainty": Row(ALL, encoders=FOUR),
    "elo": Row(ALL, encoders=FOUR, search=("zipf", {})),
    "elo_weak": Row(ALL, encoders=FOUR, search=("weak", {})),
    "elo_no_distillation": Row(TASKS, encoders=FOUR, search=("zipf", {"distill/*": 0.0})),
    "shuffle_and_learn": of_frames("rgb/shuffle_and_learn", "tuples", "MotionTuples", (3 * 32, 2)),
    "o3n": of_frames("rgb/odd_one_out", "subsequences", "OddSubsequences",
                     (6 * 32, 128), (128, 6)),
    "opn": of_frames("rgb/order", "shuffled_patches", "ShuffledPatches",
                     (2 * 32, 512), (6 * 512, 12)),
    "patch": of_frames("rgb/tracked_patch", "tracked", "TrackedPatches", (32, 1024)),
    "multisensory": Row(("rgb/multisensory",), IN_SYNC, heads=((8, 8), (32, 1)),
                        encoders=("rgb", "audio")),
    "avts": Row(("rgb/sync",), IN_SYNC, heads=((32, 64), (8, 64)), encoders=("rgb", "audio")),
    "jigsaw": of_frames("rgb/jigsaw", "tiles", "JigsawTiles", (9 * 32, 4096), (4096, 1000)),
    "relative_patch": of_frames("rgb/relative_patch", "neighbours", "NeighbourPatches",
                                (2 * 32, 4096), (4096, 8)),
}
# Rows that are the same training on purpose.
EQUAL: tuple[frozenset[str], ...] = ()


def parse(name: str, *bindings: str) -> None:
    """Reads a row's file; a searched row gets the weights that its search could have found."""
    gin.clear_config()
    search = ROWS[name].search
    if search is not None:
        weights = {loss: 0.5 * (loss in ROWS[name].losses) for loss in ALL}
        bindings = (*bindings, f"pretrain.loss_weights = {weights}")
    configuration.parse([f"papers/elo_cvpr2020/{name}.gin"], list(bindings))


def value(parameter: str):
    """A parameter's value, with what it refers to made."""
    return copy.deepcopy(gin.query_parameter(parameter))


def make(name: str):
    """The class or function of a name, as gin configures it."""
    return gin.get_configurable(name)


def test_there_is_a_file_for_every_row_and_no_other():
    assert {x.stem for x in FOLDER.glob("*.gin")} == {*ROWS, "final", "search"}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_what_the_table_says(name, two_logical_devices):
    row = ROWS[name]
    parse(name, *SMALL.strip().splitlines())
    assert gin_checks.is_bound("pretrain.loss_weights") == (row.program == "pretrain")
    if row.program == "initial":
        encoder = value("initial.make_encoder")(3, name="rgb")
        assert encoder.output["embedding"].shape[-1] == (2048 if name == "imagenet" else 32)
        return
    space = make("LossSpace")()
    names = space.active(value("pretrain.loss_weights"))
    assert names == row.losses
    if names in (ALL, TASKS) and name != "equal_weights":
        return  # As that row.
    model = make("PretrainingModel")(make("ClipSpec")(), space, names=names)
    assert tuple(model.encoders) == row.encoders
    if names == ALL:
        return
    views = [view for task in model.tasks for view in (*task.encodes, *task.decodes)]
    assert tuple(views) == row.views
    samplers = {view: type(sampler).__name__ for task in model.tasks
                for view, sampler in task.samplers.items()}
    assert samplers == dict(row.samplers)
    dense = [tuple(v.shape) for task in model.tasks for v in task.trainable_variables
             if v.shape.rank == 2]
    assert tuple(dense) == row.heads
    decoders = [task.decoder for task in model.tasks if hasattr(task, "decoder")]
    assert [x.output_shape[1:] for x in decoders] == [x for x in [row.decoded] if x]


@pytest.mark.parametrize("name", [x for x, row in ROWS.items() if row.program == "pretrain"])
def test_a_row_fits_the_clips_and_the_length_that_its_file_sets(name):
    parse(name)
    clip, space = make("ClipSpec")(), make("LossSpace")()
    assert (clip.frames, clip.size) == (32, 224)
    clips = value("pretrain.steps") * value("pretrain.batch_size")
    assert clips == pytest.approx(100 * ROWS[name].epochs_of, rel=0.01)
    for task in map(space.task, ROWS[name].losses):
        for sampler in task.samplers.values():
            if hasattr(sampler, "geometry"):
                sampler.geometry(clip.size, clip.frames)
            else:
                sampler.check(clip.frames)
        if isinstance(task, Classify):
            assert value("pretrain.split") == "train" and task.chance == 1 / 400
            task.check_labels([str(i) for i in range(400)])
        # Views one by one cannot go into an encoder between its blocks.
        assert not task.maps or value("PretrainingModel.recompute") == "units"
    search = ROWS[name].search
    if search is not None:
        assert (value("Fitness.guide"), value("SearchSpace.fixed")) == search
        searched = make("SearchSpace")().searched
        assert searched == ROWS[name].losses


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_evaluated_as_itself(name):
    parse(name)
    assert value("evaluate.method") == name
    assert value("evaluate.windows") * value("evaluate.crops") == 30
    # What the file says is expected is what tables print as the paper's.
    text = " ".join((FOLDER / f"{name}.gin").read_text().replace("#", " ").split())
    for figure in (*paper.figures(name).values(), *(
            x / 100 for x in paper.TABLE_2.get(name, ()) if x is not None)):
        assert f"{100 * figure:.1f}%" in text


def signature(name: str) -> tuple:
    """What makes a row: its program, its losses and their weights, its search, its samplers."""
    parse(name)
    if ROWS[name].program == "initial":
        return ("initial", value("initial.make_encoder").__name__)
    space = make("LossSpace")()
    weights = value("pretrain.loss_weights")
    samplers = []
    for task in map(space.task, space.active(weights)):
        for view, sampler in task.samplers.items():
            options = {k: v for k, v in vars(sampler).items() if not isinstance(v, np.ndarray)}
            samplers.append((view, type(sampler).__name__, sorted(map(str, options.items()))))
    return ("pretrain", sorted(space.effective(weights).items()), samplers,
            value("PretrainingModel.weighting"), value("Fitness.guide"),
            sorted(value("SearchSpace.fixed")))


def test_no_two_rows_are_equal_unless_the_table_says_so():
    seen: dict[str, set[str]] = {}
    for name in ROWS:
        seen.setdefault(repr(signature(name)), set()).add(name)
    assert sorted(map(sorted, (x for x in seen.values() if len(x) > 1))) == sorted(
        map(sorted, EQUAL))


def test_the_untrained_network_beside_imagenets_is_drawn():
    parse("imagenet", "inflated_resnet50.weights = '/no/such/file.h5'")
    untrained = value("initial.make_untrained")(3, name="rgb")
    temporal = untrained.get_layer("block1_unit1_conv2_temporal").kernel.numpy()
    assert np.all(temporal != 0)
