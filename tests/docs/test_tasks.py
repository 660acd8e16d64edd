"""The example of docs/tasks.md, from the page's own text: its task, its spaces, a real search."""

import os
import subprocess
import sys

import gin
import numpy as np
import pytest
import tensorflow as tf

from elo_tf.bin import configuration
from tests.docs import reading
from tests.docs.reading import ROOT

PAGE = ROOT / "docs" / "tasks.md"
BLOCKS = reading.blocks(PAGE)
# The least that finds anything out; read before the page's own file.
TINY_SEARCH = """
search.generations = 1
search.leaders = 1
search.repeats = 1
OddSubsequences.items = 2
OddSubsequences.length = 3
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with the files that the page names."""
    folder = tmp_path_factory.mktemp("tasks")
    for block in BLOCKS:
        if block.file:
            (folder / block.file).write_text(block.text)
    return folder


@pytest.fixture
def configured(files, monkeypatch):
    """Reads one of the page's gin files as the programs do, in its folder."""
    monkeypatch.chdir(files)
    monkeypatch.syspath_prepend(str(files))

    def read(name):
        configuration.parse([name], [])
        return gin.get_configurable("SearchSpace")()

    return read


def test_the_class_becomes_the_41st_weight(configured):
    space = configured("pace.gin")
    assert len(space.names) == len(space.searched) == 41 and "rgb/pace" in space.searched
    assert space.names.index("rgb/pace") < space.names.index("flow/reconstruct")


def test_some_weights_are_searched_among_all(configured):
    space = configured("pace_and_rgb.gin")
    assert set(space.searched) == {"rgb/pace", "rgb/shuffle", "rgb/reverse"}
    weights = space.weights([0.25, 0.5, 0.75])
    assert len(weights) == 41 and sum(x > 0 for x in weights.values()) == 3


def test_the_task_computes_what_the_page_says(
        configured, make_tiny_model, make_tiny_batch, tiny_clip):
    space = configured("pace_and_order.gin").losses
    assert space.names == ("rgb/odd_one_out", "rgb/pace")
    model = make_tiny_model(names=("rgb/pace",), space=space)
    assert list(model.encoders) == ["rgb"]
    batch = {k: tf.constant(x) for k, x in make_tiny_batch(3).items()}
    task, = model.tasks
    drawn = set()
    for seed in range(3):
        model._seed = seed
        encoded = model.encode(model._clip_views(batch, augmented=False), training=False)
        clip = encoded.view("rgb", "intact").numpy()
        items = encoded.view("rgb", "two_paces").numpy()
        frames = encoded.truth("rgb", "two_paces")["frames"].numpy()
        half = tiny_clip.frames // 2
        assert items.shape == (8, 2, half, 16, 16, 3)
        for i in range(8):
            slow, fast = frames[i]
            assert (np.diff(slow) == 1).all() and list(fast) == [0, 2]
            assert (items[i, 0] == clip[i, slow]).all() and (items[i, 1] == clip[i, fast]).all()
            drawn.add(int(slow[0]))
    assert drawn == {0, 1, 2}

    features = model.encoders["rgb"](items.reshape(16, half, 16, 16, 3), training=False)
    kernel, bias = (x.numpy() for x in task.classifier.trainable_variables)
    kernel = kernel + 0.3  # so that it decides something
    task.classifier.trainable_variables[0].assign(kernel)
    logits = (np.float64(features["embedding"]) @ kernel + bias)[:, 0].reshape(8, 2)
    fast = 1 / (1 + np.exp(-logits))
    output = task(encoded)
    np.testing.assert_allclose(
        output.loss, -0.5 * (np.log(1 - fast[:, 0]) + np.log(fast[:, 1])), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.trivial, np.log(2), rtol=1e-6)
    assert output.mask.numpy().all()
    np.testing.assert_allclose(
        task.accuracy(encoded), ((logits[:, 0] < 0) * 0.5 + (logits[:, 1] > 0) * 0.5))


def test_a_search_weighs_it(files, workshop):
    """The page's own command, at the smallest size."""
    command = next(x for block in BLOCKS for x in block.commands if "pace_and_order.gin" in x)
    (files / "records").symlink_to(workshop.root / "records")
    (files / "tiny.gin").write_text((workshop.root / "tiny.gin").read_text() + TINY_SEARCH)
    program, arguments = reading.words(command)
    done = subprocess.run(
        [sys.executable, "-m", program, "--gin_file=tiny.gin", *arguments], cwd=files,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    best = (files / "search_few" / "best_loss.gin").read_text()
    assert "'rgb/pace'" in best and "'rgb/odd_one_out'" in best
