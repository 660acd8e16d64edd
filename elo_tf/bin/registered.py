"""Imports every module that registers something with gin, so that any binary reads any gin file."""

from elo_tf import losses, pretraining  # noqa: F401
from elo_tf.bin import cluster_clips  # noqa: F401
from elo_tf.data import clip_spec, record_set  # noqa: F401
from elo_tf.evaluation import evaluate, finetune, label_curve, protocols  # noqa: F401
from elo_tf.fitness import clustering, fitness, guards, guide, weak  # noqa: F401
from elo_tf.models import (  # noqa: F401
    audio_resnet,
    decoders,
    inflation,
    normalization,
    video_resnet,
)
from elo_tf.reporting import report, tables  # noqa: F401
from elo_tf.search import (  # noqa: F401
    baseline_losses,
    loop,
    proxy,
    search,
    space,
    strategies,
)
from elo_tf.serving import export  # noqa: F401
from elo_tf.tasks import (  # noqa: F401
    avts,
    classification,
    jigsaw,
    multisensory,
    odd_one_out,
    order_prediction,
    relative_patch,
    shuffle_and_learn,
    tracked_patch,
)
from elo_tf.training import final, initial, optimization  # noqa: F401
from elo_tf.views import frame_sampling, log_mel, patch_sampling, tracking  # noqa: F401
