"""Fixtures shared by all tests."""

import os
import pathlib

import pytest

import elo_tf  # noqa: F401  (first, so that TensorFlow starts quietly)

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_videos() -> pathlib.Path:
    """A folder of real clips of many sources beside the checkout, where there is one."""
    folder = pathlib.Path(os.environ.get("ELO_TF_TEST_VIDEOS", ROOT.parent / "shared" / "videos"))
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder}; set ELO_TF_TEST_VIDEOS to a folder of videos")
    return folder
