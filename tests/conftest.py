"""Fixtures shared by all tests."""

import os
import pathlib

import pytest

import elo_tf  # noqa: F401  (first, so that TensorFlow starts quietly)

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def two_logical_devices() -> list[str]:
    """Splits the CPU in two logical devices, before anything initialises TensorFlow."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return [device.name for device in tf.config.list_logical_devices("CPU")]


@pytest.fixture(autouse=True)
def no_gin_bindings():
    """Every test starts and ends with an empty gin configuration."""
    import gin

    gin.clear_config()
    yield
    gin.clear_config()


@pytest.fixture(scope="session")
def shared_videos() -> pathlib.Path:
    """A folder of real clips of many sources beside the checkout, where there is one."""
    folder = pathlib.Path(os.environ.get("ELO_TF_TEST_VIDEOS", ROOT.parent / "shared" / "videos"))
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder}; set ELO_TF_TEST_VIDEOS to a folder of videos")
    return folder
