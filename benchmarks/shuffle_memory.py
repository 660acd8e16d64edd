"""Whether reading a shuffled stream for long takes ever more memory.

    python -m benchmarks.shuffle_memory --work=/tmp/input_benchmark --seconds=600

Reads training clips from made shards (or from --data) through a shuffle buffer smaller than the
set, epoch after epoch, and prints the resident memory every ten seconds, the first and the last
value, and the slope of a line through the second half.
"""

import os
import pathlib
import time

import numpy as np
from absl import flags

from benchmarks import noise_records
from elo_tf import cli
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.pipeline import training_clips
from elo_tf.data.record_set import Records

WORK = flags.DEFINE_string("work", "/tmp/input_benchmark", "Folder for the shards.")
DATA = flags.DEFINE_string("data", None, "Folder of records to read instead.")
SPLIT = flags.DEFINE_string("split", noise_records.SPLIT, "Split of it.")
SECONDS = flags.DEFINE_float("seconds", 600, "How long to read.", lower_bound=1)
EVERY = flags.DEFINE_float("every", 10, "Seconds between two values.", lower_bound=0.1)
SHUFFLE_MEGABYTES = flags.DEFINE_float("shuffle_megabytes", 32, "Of the shuffle buffer.")

BATCH = 16


def resident_megabytes() -> float:
    """This process's memory, as the kernel counts it."""
    pages = int(pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(argv):
    """Measures."""
    del argv
    if DATA.value is None:
        noise_records.make_records(pathlib.Path(WORK.value), 200)
    records = Records(DATA.value or WORK.value, shuffle_megabytes=SHUFFLE_MEGABYTES.value)
    print(f"shuffle buffer: {records.shuffle_records(SPLIT.value)} records")
    clips = training_clips(records, SPLIT.value, ClipSpec(), batch_size=BATCH, seed=1)
    print("seconds   clips read   resident MB")
    samples = []
    started = time.perf_counter()
    for number, _ in enumerate(clips, start=1):
        passed = time.perf_counter() - started
        if passed >= EVERY.value * (len(samples) + 1):
            samples.append((passed, resident_megabytes()))
            print(f"{passed:7.0f} {number * BATCH:12} {samples[-1][1]:13.1f}", flush=True)
        if passed >= SECONDS.value:
            break
    seconds, megabytes = np.transpose(samples[len(samples) // 2:])
    slope = np.polyfit(seconds / 60, megabytes, 1)[0] if len(megabytes) > 1 else float("nan")
    print(f"first {samples[0][1]:.1f} MB, last {samples[-1][1]:.1f} MB, "
          f"slope of the second half {slope:+.2f} MB a minute")


if __name__ == "__main__":
    cli.run(main)
