"""Writes report.html: the search, the weights it found, sample clips, and the evaluation.

    python -m elo_tf.bin.report --search=search --pretrain=pretrain --evaluation=evaluate \\
        --data=records --run_dir=report

Every part is optional; what is not given or not there is left out.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags

from elo_tf import cli
from elo_tf.bin import cluster_clips, configuration
from elo_tf.data.record_set import Records
from elo_tf.reporting import record_samples, report, results, search_section
from elo_tf.reporting.samples import Sample
from elo_tf.training import encoder_files, final

SEARCH = flags.DEFINE_string("search", None, "Run directory of bin/search.")
PRETRAIN = flags.DEFINE_string("pretrain", None, "Run directory of bin/pretrain.")
EVALUATION = flags.DEFINE_string("evaluation", None, "Run directory of bin/evaluate.")
EXPORT_DIR = flags.DEFINE_string("export_dir", None, "Folder that bin/export wrote versions to.")
STUDY = flags.DEFINE_string("study", None, "Run directory of bin/study.")
DATA = flags.DEFINE_string(
    "data", None, "Folder of records, to show sample clips of, and those nearest to the centres of "
    "the best candidate's clusters.")
SPLIT = flags.DEFINE_string("split", "unlabelled", "Split of the sample clips.")
SAMPLES = flags.DEFINE_integer("samples", 4, "Number of sample clips.", lower_bound=0)


def main(argv: list[str]) -> None:
    """Writes the report, and prints where it is."""
    del argv
    run_dir = configuration.start()
    samples: Sequence[Sample] = ()
    clips: Mapping[str, np.ndarray] = {}
    if DATA.value:
        encoder = pathlib.Path(PRETRAIN.value or "") / final.ENCODER
        # An unfinished training has no clip.json yet.
        if SAMPLES.value and (encoder / encoder_files.CLIP).exists():
            clip = encoder_files.load_clip(encoder)
            samples = record_samples.read_samples(
                Records(directory=DATA.value), SPLIT.value, clip, SAMPLES.value)
        nearest = search_section.shown_clips(results.read_clusters(SEARCH.value))
        if nearest:
            clips = cluster_clips.cluster_clips(nearest)
    path = report.write_report(
        run_dir, search_dir=SEARCH.value, pretrain_dir=PRETRAIN.value,
        evaluation_dir=EVALUATION.value, export_dir=EXPORT_DIR.value, study_dir=STUDY.value,
        samples=samples, clips=clips)
    configuration.finish(run_dir)
    print(f"report: {path}")


if __name__ == "__main__":
    cli.run(main)
