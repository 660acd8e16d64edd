"""Serves an exported model over HTTP: TensorFlow Serving's REST protocol, and Open Inference.

    python -m elo_tf.bin.serve --model_dir=export/elo --port=8080
    curl localhost:8080/v1/models/elo

The newest version folder is served; a newer one after a restart. It listens on this machine alone
unless --host says otherwise, and asks nobody who they are. SIGTERM stops it after open requests are
answered, with exit code 0. docs/serving.md has requests, limits and metrics.
"""

import os
import socket
import sys

from absl import flags, logging

from elo_tf import cli
from elo_tf.errors import Stopped, UserError
from elo_tf.serving import saved_model
from elo_tf.serving.limits import Limits

DEFAULT = Limits()
MIB = 2**20
BACKLOG = 1024

MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "The folder that bin/export wrote, with a folder for each version, of "
    "which the newest is served; or one of these.",
    required=True)
PORT = flags.DEFINE_integer("port", 8080, "Port for HTTP; 0 takes a free one and prints it.",
                            lower_bound=0, upper_bound=65535)
HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "Address to listen on; 0.0.0.0 is all, for anyone who reaches them.")
MODEL_NAME = flags.DEFINE_string(
    "model_name", None, "Name of the model in requests; by default that of its folder.")
GRPC_PORT = flags.DEFINE_integer(
    "grpc_port", None, "Port for Open Inference over gRPC; without it there is none.",
    lower_bound=1, upper_bound=65535)
MAX_BATCH_SIZE = flags.DEFINE_integer(
    "max_batch_size", 8, "Most clips, of one or several requests, in a call of the model.",
    lower_bound=1)
BATCH_TIMEOUT_MS = flags.DEFINE_float(
    "batch_timeout_ms", 5.0, "How long a clip waits for others while the model is free.",
    lower_bound=0.0)
MAX_QUEUE = flags.DEFINE_integer(
    "max_queue", DEFAULT.queue, "Most clips that wait or are computed; above it: 503, try again.",
    lower_bound=1)
MAX_CLIPS = flags.DEFINE_integer("max_clips", DEFAULT.clips, "Most clips of a request.",
                                 lower_bound=1)
MAX_FRAMES = flags.DEFINE_integer("max_frames", DEFAULT.frames, "Most frames of a clip.",
                                  lower_bound=1)
MAX_PIXELS = flags.DEFINE_integer("max_pixels", DEFAULT.pixels, "Most pixels of a frame.",
                                  lower_bound=1)
MAX_BODY_MB = flags.DEFINE_integer("max_body_mb", DEFAULT.body_bytes // MIB,
                                   "Largest body of a request, MiB.", lower_bound=1)
MAX_HELD_MB = flags.DEFINE_integer(
    "max_held_mb", DEFAULT.held_bytes // MIB,
    "Bodies of all open requests, MiB; above it: 503, try again.", lower_bound=1)
GRACE_SECONDS = flags.DEFINE_integer(
    "grace_seconds", 30, "How long open requests have to end after SIGTERM.", lower_bound=1)


def main(argv: list[str]) -> None:
    """Serves until a signal."""
    del argv
    limits = Limits(body_bytes=MAX_BODY_MB.value * MIB, held_bytes=MAX_HELD_MB.value * MIB,
                    clips=MAX_CLIPS.value, frames=MAX_FRAMES.value, pixels=MAX_PIXELS.value,
                    queue=MAX_QUEUE.value)
    if limits.queue < limits.clips:
        raise UserError(f"--max_queue={limits.queue} is less than --max_clips={limits.clips}: a "
                        "request of so many clips could never be answered; raise or lower one")
    if limits.held_bytes < limits.body_bytes:
        raise UserError(f"--max_held_mb={MAX_HELD_MB.value} is less than --max_body_mb="
                        f"{MAX_BODY_MB.value}: raise or lower one")
    saved_model.open_model(MODEL_DIR.value)
    try:
        listener = socket.create_server(
            (HOST.value, PORT.value), backlog=BACKLOG,
            family=socket.AF_INET6 if ":" in HOST.value else socket.AF_INET)
    except OSError as error:
        raise UserError(f"cannot listen on {HOST.value}, port {PORT.value} ({error.strerror}): "
                        "give another --port or --host") from error
    # Imported here: these take seconds, which a wrong flag need not wait for.
    del sys.argv[1:]  # kserve would read flags of its own in them
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "1":
        # TensorFlow prints a line for every damaged JPEG; its errors come as exceptions too.
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    from elo_tf.serving import server
    from elo_tf.serving.served_model import ServedModel
    from elo_tf.serving.service import Service

    model = ServedModel(MODEL_DIR.value, MODEL_NAME.value)
    host = f"[{HOST.value}]" if ":" in HOST.value else HOST.value
    address = f"http://{host}:{listener.getsockname()[1]}"
    if HOST.value not in ("127.0.0.1", "::1", "localhost"):
        logging.warning("anyone who reaches %s may send requests: there is no authentication",
                        HOST.value)
    print(f"{address}: loading {model.path}", flush=True)
    lost = server.Server(
        lambda: Service(model, limits, batch_size=MAX_BATCH_SIZE.value,
                        batch_timeout=BATCH_TIMEOUT_MS.value / 1000),
        listener, grace=GRACE_SECONDS.value,
        grpc_address=f"{host}:{GRPC_PORT.value}" if GRPC_PORT.value else None,
        on_ready=lambda: print(f"{address}: {model.name}, version {model.version}, is ready",
                               flush=True)).start()
    if lost:
        raise Stopped(f"stopped; {lost} requests were not answered within {GRACE_SECONDS.value} s "
                      "(--grace_seconds)", 1)
    print("stopped; every accepted request is answered", flush=True)


if __name__ == "__main__":
    cli.run(main)
