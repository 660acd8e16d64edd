"""Evaluators without a training, for tests of engines: they must be importable by workers."""

import functools
import os
import pathlib
import signal
import time

import numpy as np

from elo_tf.errors import UserError


class Evaluator:
    """Computes a number; some weights make trouble, and files in a folder say what goes on.

    A candidate that has "wait" ends once there is a file "go".
    """

    def __init__(self, folder, seconds=0.0):
        self._folder = pathlib.Path(folder)
        time.sleep(seconds)
        with (self._folder / "made").open("a") as file:
            file.write(f"{os.getpid()}\n")

    def evaluate(self, weights, repeat):
        weights = weights or {}
        (self._folder / f"begun-{os.getpid()}").touch()
        if "raise" in weights:
            raise FloatingPointError("the loss is nan")
        if "die" in weights:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hang" in weights:
            time.sleep(600)
        if "memory" in weights:
            np.ones(1 << 28)
        while "wait" in weights and not (self._folder / "go").exists():
            time.sleep(0.01)
        return {"fitness": fitness(weights, repeat), "pid": os.getpid(),
                "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
                "token": os.environ.get("RAY_AUTH_TOKEN")}


def fitness(weights, repeat):
    """A number that depends on all, to the last bit."""
    noise = np.random.default_rng(repeat).normal(size=len(weights))
    return float(np.sum((np.array(list(weights.values())) - noise) ** 2))


def make(folder, seconds=0.0):
    """Pickles, and makes an evaluator after some time."""
    return functools.partial(Evaluator, folder, seconds)


def no_records(folder):
    """Fails as where there are no records."""
    with (pathlib.Path(folder) / "made").open("a") as file:
        file.write("failed\n")
    raise UserError("no records there")


def die(folder):
    """Ends its process."""
    with (pathlib.Path(folder) / "made").open("a") as file:
        file.write("died\n")
    os.kill(os.getpid(), signal.SIGKILL)
