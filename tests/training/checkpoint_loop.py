"""A training in the small: adds 1 to some variables and saves, until it is killed.

python checkpoint_loop.py FOLDER COUNT MEGABYTES [FILE_LIMIT_MEGABYTES]

With a limit it sets it after the first save, then lifts it after the error it prints.
"""

import itertools
import resource
import signal
import sys

import elo_tf  # noqa: F401  (first, so that TensorFlow starts quietly)

# ruff: isort: split
import tensorflow as tf

from elo_tf.errors import UserError
from elo_tf.training.checkpoints import Checkpoints


def main(folder, count, megabytes, limit=None):
    values = [tf.Variable(tf.zeros([int(megabytes), 1 << 18])) for _ in range(int(count))]
    checkpoints = Checkpoints({"values": {str(i): v for i, v in enumerate(values)}}, folder)
    start = checkpoints.restore()
    for step in itertools.count(start + 1):
        for i, value in enumerate(values):
            value.assign(tf.fill(value.shape, float(step + i)))
        if limit and step == start + 2:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit) << 20, resource.RLIM_INFINITY))
            try:
                checkpoints.save(step)
            except UserError as error:
                print(error.message, checkpoints.steps, flush=True)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            checkpoints.save(step)
            print(checkpoints.steps)
            return
        checkpoints.save(step)


if __name__ == "__main__":
    main(*sys.argv[1:])
