"""How much memory it takes to cut a long video into clips.

    python -m benchmarks.convert_memory --work=/tmp/convert_memory

Makes a video of two hours with sound (once; it stays in --work), converts it with --clip_seconds
in one worker process, and prints the largest resident memory of each process, as the kernel
counted it (VmHWM), beside the limit that is aimed at.
"""

import pathlib
import shutil
import subprocess
import sys
import time

import av
import numpy as np
from absl import flags

from elo_tf import cli

WORK = flags.DEFINE_string("work", None, "Folder for the video and the records.", required=True)
MINUTES = flags.DEFINE_float("minutes", 120.0, "Length of the video.", lower_bound=0.1)
CLIP_SECONDS = flags.DEFINE_float("clip_seconds", 10.0, "Length of the clips.", lower_bound=0.1)
FLOW = flags.DEFINE_string("flow", "dis", "Optical flow, as tools/convert_videos takes it.")

WIDTH, HEIGHT, RATE, SOUND_RATE = 320, 240, 25, 44_100
LIMIT_GB = 1.5
ROOT = pathlib.Path(__file__).resolve().parent.parent


def make_video(path: pathlib.Path, minutes: float) -> None:
    """Writes a video of a texture that drifts, with a tone that sweeps."""
    texture = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8 + 40, WIDTH // 8 + 40, 3),
                                                np.uint8).repeat(8, 0).repeat(8, 1)
    temporary = path.with_suffix(".part.mp4")
    with av.open(str(temporary), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        seconds = round(minutes * 60)
        with cli.progress(total=seconds, desc="making the video", unit="s") as bar:
            for second in range(seconds):
                for k in range(second * RATE, (second + 1) * RATE):
                    x, y = 160 + round(159 * np.sin(k / 90)), 160 + round(159 * np.cos(k / 70))
                    picture = texture[y:y + HEIGHT, x:x + WIDTH]
                    container.mux(video.encode(av.VideoFrame.from_ndarray(
                        np.ascontiguousarray(picture), format="rgb24")))
                times = second + np.arange(SOUND_RATE) / SOUND_RATE
                wave = 0.3 * np.sin(2 * np.pi * (200 + second % 600) * times)
                frame = av.AudioFrame.from_ndarray(
                    wave[None].astype(np.float32), format="fltp", layout="mono")
                frame.sample_rate = SOUND_RATE
                frame.pts = second * SOUND_RATE
                container.mux(sound.encode(frame))
                bar.update()
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    temporary.rename(path)


def peak_bytes(pid: int) -> int:
    """The largest resident memory of a process so far; 0 if it is gone."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines()
                 if line.startswith("VmHWM")), 0)


def children(pid: int) -> list[int]:
    """The processes that decode for a conversion."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def main(argv):
    """Measures."""
    del argv
    work = pathlib.Path(WORK.value)
    folder = work / f"videos_{MINUTES.value:g}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "long.mp4"
    if not path.exists():
        make_video(path, MINUTES.value)
    output = work / "records"
    shutil.rmtree(output, ignore_errors=True)
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.convert_videos", f"--input={folder}", f"--output={output}",
         f"--clip_seconds={CLIP_SECONDS.value}", f"--flow={FLOW.value}", "--workers=1"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True)
    parent = worker = 0
    while process.poll() is None:
        parent = max(parent, peak_bytes(process.pid))
        worker = max([worker, *map(peak_bytes, children(process.pid))])
        time.sleep(0.2)
    seconds = time.perf_counter() - began
    print(process.stdout.read().strip())
    if process.returncode:
        raise SystemExit(process.returncode)
    print(f"a video of {MINUTES.value:g} minutes, {WIDTH}x{HEIGHT}, {RATE} frames a second, "
          f"{path.stat().st_size / 2**20:.0f} MiB; clips of {CLIP_SECONDS.value:g} s, flow "
          f"{FLOW.value}; {seconds:.0f} s, {MINUTES.value * 60 / seconds:.0f} times real time")
    print(f"{'process':22} {'peak GB':>8} {'limit GB':>9}")
    for name, value in (("worker (decodes)", worker), ("main process (writes)", parent)):
        print(f"{name:22} {value / 1e9:8.2f} {LIMIT_GB:9.2f}")


if __name__ == "__main__":
    cli.run(main)
