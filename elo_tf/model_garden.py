"""What we take from tf-models-official, imported when it is first used.

Its import costs seconds and registers dozens of names with gin, also after a binary has read its
configuration; neither should touch a program that does not use it.
"""

import importlib
import types

import gin


def _load(module: str) -> types.ModuleType:
    with gin.unlock_config():
        return importlib.import_module(module)


def clip_ops() -> types.ModuleType:
    """Sampling of frames from a sequence: `sample_linspace_sequence` and others."""
    return _load("official.vision.ops.preprocess_ops_3d")


def distribution() -> types.ModuleType:
    """Distribution strategies by name and number of devices."""
    return _load("official.common.distribute_utils")


def lars() -> types.ModuleType:
    """The optimiser `LARS`, with a learning rate for every layer."""
    return _load("official.modeling.optimization.lars")


def schedules() -> types.ModuleType:
    """Learning-rate schedules: `LinearWarmup` and others."""
    return _load("official.modeling.optimization.lr_schedule")
