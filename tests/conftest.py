"""Fixtures shared by all tests."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

import elo_tf  # noqa: F401  (first, so that TensorFlow starts quietly)

ROOT = pathlib.Path(__file__).resolve().parent.parent
TINY = """
ClipSpec.frames = 4
ClipSpec.next_frames = 2
ClipSpec.fps = 4.0
ClipSpec.size = 16
ClipSpec.mel_per_frame = 4
ClipSpec.mel_bins = 16
Records.heldout_percent = 40
video_encoder.depth = 10
video_encoder.width = 0.0625
audio_encoder.filters = (64, 8, 8, 8)
audio_encoder.blocks = (1, 1, 1, 1)
search.generations = 2
search.leaders = 2
search.repeats = 1
CMAES.population = 4
Proxy.steps = 3
Proxy.batch_size = 4
Proxy.statistics_steps = 2
ZipfFitness.k = 3
pretrain.steps = 12
pretrain.batch_size = 4
pretrain.log_every = 2
pretrain.checkpoint_every = 4
pretrain.heldout_steps = 1
pretrain.statistics_steps = 2
evaluate.seeds = (0, 1)
evaluate.batch_size = 8
"""


@pytest.fixture(scope="session", autouse=True)
def two_logical_devices() -> list[str]:
    """Splits the CPU in two logical devices, before anything initialises TensorFlow."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return [device.name for device in tf.config.list_logical_devices("CPU")]


@pytest.fixture(scope="session")
def two_replicas(two_logical_devices):
    """The strategy over both devices: one for all tests.

    Two strategies over the same devices in one process number their collectives alike, and one
    waits for the other's.
    """
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


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


@pytest.fixture(scope="session")
def shared_splits() -> pathlib.Path:
    """The official lists of HMDB51 and UCF101 beside the checkout, where they are."""
    folder = pathlib.Path(os.environ.get("ELO_TF_TEST_SPLITS", ROOT.parent / "shared" / "splits"))
    if not folder.is_dir():
        pytest.skip(f"no official lists at {folder}; set ELO_TF_TEST_SPLITS to a folder with "
                    "hmdb51_splits and ucf101_splits")
    return folder


@pytest.fixture(scope="session")
def tiny_clip():
    """The smallest clip that all networks and tasks take."""
    from elo_tf.data.clip_spec import ClipSpec

    return ClipSpec(frames=4, next_frames=2, size=16, mel_bins=16, mel_per_frame=4)


@pytest.fixture(scope="session")
def make_tiny_model(tiny_clip, two_logical_devices):
    """Builds a `PretrainingModel` of very small networks in the current strategy's scope."""
    import functools

    from elo_tf.losses import LossSpace
    from elo_tf.models.audio_resnet import audio_encoder
    from elo_tf.models.video_resnet import video_encoder
    from elo_tf.pretraining import PretrainingModel

    def make(names=None, space=None, seed=1):
        return PretrainingModel(
            tiny_clip, space or LossSpace(), names=names, seed=seed, skip_zero=names is None,
            make_video_encoder=functools.partial(video_encoder, depth=10, width=0.0625),
            make_audio_encoder=functools.partial(
                audio_encoder, filters=(64, 8, 8, 8), blocks=(1, 1, 1, 1)))

    return make


@pytest.fixture(scope="session")
def make_tiny_batch(tiny_clip):
    """Draws a batch as `training_clips` gives it, of noise, with the modalities said."""
    import numpy as np

    clip = tiny_clip

    def make(seed=0, *, has_flow=(True,) * 8, has_audio=(True,) * 8, has_other=(True,) * 8):
        generator = np.random.Generator(np.random.PCG64(seed))
        size = len(has_flow)

        def video(frames, channels):
            shape = (size, frames, clip.size, clip.size, channels)
            # Clips differ in level and contrast, so that features do.
            level = generator.uniform(60, 190, (size, 1, 1, 1, channels))
            noise = generator.normal(size=shape) * generator.uniform(10, 60, (size, 1, 1, 1, 1))
            return np.clip(level + noise, 0, 255).astype(np.uint8)

        def sound(frames):
            loudness = 10 ** generator.uniform(-2, -0.5, (size, 1))
            return (generator.normal(size=(size, clip.samples(frames))) * loudness).astype("f")

        return {
            "rgb": video(clip.window, 3), "flow": video(clip.window, 2),
            "audio": sound(clip.window), "other_rgb": video(clip.frames, 3),
            "other_flow": video(clip.frames, 2), "other_audio": sound(clip.frames),
            "has_flow": np.array(has_flow), "has_audio": np.array(has_audio),
            "has_other": np.array(has_other), "index": np.arange(size) + 100 * seed,
            "key": generator.integers(0, 2**31 - 1, size), "label": np.full(size, -1)}

    return make


class Workshop:
    """A folder of records, and the binaries run on it."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        (root / "tiny.gin").write_text(TINY)

    def command(self, binary: str, run_dir: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", f"elo_tf.bin.{binary}", f"--gin_file={self.root}/tiny.gin",
                f"--run_dir={self.root / run_dir}", *arguments]

    def pretrain(self, name: str, settings: str):
        """A function of a run directory and arguments: the command of a training so configured."""
        (self.root / f"{name}.gin").write_text(settings)
        return lambda run_dir, *arguments: self.command(
            "pretrain", run_dir, f"--data={self.root}/records",
            f"--gin_file={self.root}/{name}.gin", *arguments)

    def run(self, command: list[str]) -> subprocess.CompletedProcess:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300,
                              check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "Traceback" not in done.stderr
        return done

    def kill_when(self, command: list[str], reached, number: int = signal.SIGKILL) -> str:
        """Starts a program and sends a signal as soon as `reached()`; returns what it said.

        The program stands still while `reached` looks: what is true then is true at its end.
        """
        path = self.root / "killed.txt"
        with open(path, "w") as output:
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
            deadline = time.monotonic() + 400
            while True:
                assert process.poll() is None, path.read_text()[-3000:]
                assert time.monotonic() < deadline, "the run never came so far"
                if reached():
                    os.kill(process.pid, signal.SIGSTOP)
                    if reached():
                        break
                    os.kill(process.pid, signal.SIGCONT)
                time.sleep(0.001)
            os.kill(process.pid, number)
            os.kill(process.pid, signal.SIGCONT)
            code = process.wait(60)
        assert code == (-number if number == signal.SIGKILL else 128 + number)
        return path.read_text()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    """Videos made and converted by the tools."""
    place = Workshop(tmp_path_factory.mktemp("workshop"))
    videos, records = place.root / "videos", place.root / "records"
    place.run([sys.executable, "-m", "tools.make_videos", f"--output={videos}",
               "--clips=unlabelled:24,train:12,test:12", "--seconds=2", "--size=48", "--fps=8",
               "--classes=3", "--workers=2"])
    for split in ("unlabelled", "train", "test"):
        source = videos / (split if split == "unlabelled" else f"{split}.csv")
        place.run([sys.executable, "-m", "tools.convert_videos", f"--input={source}",
                   f"--output={records}", f"--split={split}", "--fps=8", "--min_side=32",
                   "--workers=0"])
    return place
