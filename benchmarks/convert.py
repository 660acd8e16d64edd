"""How fast videos become records, beside the limit and beside a pipe from the ffmpeg program.

    python -m benchmarks.convert --work=/tmp/convert_benchmark

Makes videos of ten seconds (340x256, 30 frames a second, H.264 and AAC), or takes --videos, and
runs in turn, with the same number of processes:

  ours         elo_tf.data.conversion without flow: frames, sound, shards
  limit        PyAV decodes, the frames that ours stores become JPEGs (OpenCV, the same quality);
               no sound, nothing is written
  ffmpeg pipe  the peer: one ffmpeg for the frames as a stream of JPEGs, one for the sound, for each
               video, into TFRecords, as DMVR's generator does it (which runs one at a time)
  ours, flow   the same with DIS optical flow

and prints the median of the rounds' rates, and the medians of the ratios within a round.
"""

import importlib
import multiprocessing
import multiprocessing.pool
import pathlib
import re
import shutil
import statistics
import subprocess
import time

import av
import cv2
import numpy as np
import scipy.ndimage
from absl import flags
from av.video.reformatter import Interpolation, VideoReformatter

from elo_tf import cli
from elo_tf.data import conversion, encoding, manifest, schema
from elo_tf.errors import UserError

WORK = flags.DEFINE_string("work", None, "Folder for the videos and the records.", required=True)
VIDEOS = flags.DEFINE_string("videos", None, "Folder of videos; some are made if left out.")
COUNT = flags.DEFINE_integer("count", 96, "Videos to make.", lower_bound=1)
WORKERS = flags.DEFINE_integer("workers", 2, "Processes of each method.", lower_bound=1)
FLOW = flags.DEFINE_bool("flow", True, "Measures conversion with optical flow too.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "How often all are run in turn.", lower_bound=1)
FPS = flags.DEFINE_float("fps", 12.0, "Frames a second that are stored.")
MIN_SIDE = flags.DEFINE_integer("min_side", 128, "Shorter side of what is stored, in pixels.")

SECONDS, RATE, WIDTH, HEIGHT = 10, 30, 340, 256
DISTINCT = 6  # so many are encoded; the others are copies


def make_videos(folder: pathlib.Path, count: int) -> None:
    """Writes videos of textures that drift and shake, with grain and sound."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        path = folder / f"video_{i:04d}.mp4"
        if path.exists():
            continue
        if i >= DISTINCT:
            shutil.copyfile(folder / f"video_{i % DISTINCT:04d}.mp4", path)
            continue
        draws = np.random.default_rng(i)
        noise = draws.normal(size=(HEIGHT + 200, WIDTH + 400, 3))
        texture = sum(scipy.ndimage.gaussian_filter(noise, (s, s, 0)) * s for s in (1, 4, 16))
        texture = 128 + 50 * texture / texture.std()
        steps = np.cumsum(draws.normal(0.4, 0.8, (SECONDS * RATE, 2)), axis=0)
        temporary = path.with_suffix(".part.mp4")
        with av.open(str(temporary), "w") as container:
            video = container.add_stream("libx264", rate=RATE)
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            sound = container.add_stream("aac", rate=44_100, layout="mono")
            for y, x in np.clip(np.rint(steps), 0, (200, 400)).astype(int):
                picture = texture[y:y + HEIGHT, x:x + WIDTH]
                picture = picture + draws.normal(0, 3, picture.shape)
                frame = av.VideoFrame.from_ndarray(
                    np.clip(picture, 0, 255).astype(np.uint8), format="rgb24")
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            wave = draws.normal(0, 0.1, (1, SECONDS * 44_100)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate = 44_100
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        temporary.rename(path)


def ours(folder: str, output: pathlib.Path, flow: str) -> None:
    """Converts with the project's own code."""
    summary = conversion.convert(conversion.Conversion(
        source=folder, output=str(output), split="train", workers=WORKERS.value,
        options=encoding.VideoOptions(fps=FPS.value, min_side=MIN_SIDE.value, flow=flow)))
    if summary["rejected"]:
        raise UserError(f"{summary['rejected']} videos in {folder} were rejected; the others could "
                        "not be compared with them")


def decode_and_encode(job: tuple[str, float, int]) -> int:
    """The limit for one video: decoding, and a JPEG of each frame that would be stored."""
    path, fps, min_side = job
    cv2.setNumThreads(1)
    quality = (cv2.IMWRITE_JPEG_QUALITY, encoding.VideoOptions.jpeg_quality)
    count = 0
    scaler = VideoReformatter()  # one for all frames, with one thread, as ours has it
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        stream.thread_type = "NONE"
        for frame in container.decode(stream):
            shown = int(frame.time * fps + 1e-6)
            if shown >= count:
                scale = min_side / min(frame.width, frame.height)
                picture = scaler.reformat(
                    frame, round(frame.width * scale), round(frame.height * scale), "rgb24",
                    interpolation=Interpolation.AREA, threads=1).to_ndarray()
                cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
                count += 1
    return count


def limit(paths: list[str]) -> int:
    """Runs the limit over all videos; returns the frames."""
    jobs = [(path, FPS.value, MIN_SIDE.value) for path in paths]
    with multiprocessing.get_context("spawn").Pool(WORKERS.value) as pool:
        return sum(pool.imap_unordered(decode_and_encode, jobs))


def pipe(job: tuple[str, str, float, int]) -> int:
    """The peer for some of the videos: two runs of ffmpeg each, into one TFRecord file."""
    paths, output, fps, min_side = job
    import tensorflow as tf

    scale = (f"fps={fps},scale='if(gt(iw,ih),-2,{min_side})':'if(gt(iw,ih),{min_side},-2)'")
    count = 0
    with tf.io.TFRecordWriter(output) as writer:
        for path in paths:
            command = ["ffmpeg", "-nostdin", "-v", "error", "-i", path]
            frames = subprocess.run(
                [*command, "-vf", scale, "-q:v", "2", "-f", "image2pipe", "-c:v", "mjpeg",
                 "pipe:1"], stdout=subprocess.PIPE, check=True).stdout
            sound = subprocess.run(
                [*command, "-vn", "-ac", "1", "-ar", str(schema.SAMPLE_RATE), "-f", "f32le",
                 "pipe:1"], stdout=subprocess.PIPE, check=True).stdout
            example = tf.train.SequenceExample()
            images = example.feature_lists.feature_list[schema.IMAGE_ENCODED]
            starts = [match.start() for match in re.finditer(b"\xff\xd8", frames)]
            for first, last in zip(starts, [*starts[1:], len(frames)], strict=True):
                images.feature.add().bytes_list.value.append(frames[first:last])
            waveform = example.feature_lists.feature_list[schema.WAVEFORM]
            waveform.feature.add().float_list.value.extend(np.frombuffer(sound, np.float32))
            writer.write(example.SerializeToString())
            count += len(starts)
    return count


def pipes(pool: multiprocessing.pool.Pool, paths: list[str], output: pathlib.Path) -> int:
    """Runs the peer over all videos; returns the frames."""
    output.mkdir(parents=True)
    return sum(pool.map(pipe, [
        (paths[i::WORKERS.value], str(output / str(i)), FPS.value, MIN_SIDE.value)
        for i in range(WORKERS.value)]))


def main(argv):
    """Measures."""
    del argv
    work = pathlib.Path(WORK.value)
    folder = VIDEOS.value or str(work / "videos")
    if not VIDEOS.value:
        make_videos(work / "videos", COUNT.value)
    paths = [entry.path for entry in manifest.read_manifest(folder).entries]
    # Importing TensorFlow is not part of a method's time; starting its processes is.
    import tensorflow as tf
    pool = multiprocessing.get_context("spawn").Pool(
        WORKERS.value, initializer=importlib.import_module, initargs=["tensorflow"])
    pool.map(time.sleep, [3.0] * WORKERS.value, chunksize=1)  # one each, once it has imported
    methods = {"ours": lambda output: ours(folder, output, "none"),
               "limit": lambda _: limit(paths),
               "ffmpeg pipe": lambda output: pipes(pool, paths, output),
               "ours, flow": lambda output: ours(folder, output, "dis")}
    if not FLOW.value:
        del methods["ours, flow"]
    if shutil.which("ffmpeg") is None:
        print("no ffmpeg program here (on Debian: apt-get install ffmpeg); the peer is left out")
        del methods["ffmpeg pipe"]
    times = {name: [] for name in methods}
    for _ in range(ROUNDS.value):
        for name, method in methods.items():
            output = work / "records"
            shutil.rmtree(output, ignore_errors=True)
            started = time.perf_counter()
            method(output)
            times[name].append(time.perf_counter() - started)
    pool.terminate()
    seconds = sum(media_seconds(path) for path in paths)
    print(f"{len(paths)} videos, {seconds / 60:.1f} minutes, stored at {FPS.value:g} frames a "
          f"second and {MIN_SIDE.value} px, {WORKERS.value} processes, TensorFlow {tf.__version__}")
    print(f"{'':12} {'seconds':>8} {'videos/s':>9} {'x real time':>12} {'ours / it':>10}")
    for name, values in times.items():
        median = statistics.median(values)
        ratio = statistics.median(b / a for a, b in zip(times["ours"], values, strict=True))
        print(f"{name:12} {median:8.2f} {len(paths) / median:9.1f} {seconds / median:12.0f} "
              f"{ratio:10.2f}")


def media_seconds(path: str) -> float:
    """Length of a video."""
    with av.open(path) as container:
        return container.duration / av.time_base


if __name__ == "__main__":
    cli.run(main)
