"""An RGB encoder that is not trained here: drawn, or made of other weights.

It stands in the folder of a training's encoder and is evaluated as such.
"""

import pathlib
from collections.abc import Callable

import gin
import tensorflow as tf
from absl import logging

from elo_tf.data.clip_spec import CHANNELS, ClipSpec
from elo_tf.data.pipeline import reading, require_clips, training_clips
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError
from elo_tf.models.video_resnet import video_encoder
from elo_tf.training import encoder_files
from elo_tf.training.batch_statistics import BatchStatistics
from elo_tf.training.final import ENCODER, estimate_rgb_statistics


@gin.configurable(denylist=["run_dir", "records"])
def initial(run_dir: str, *, records: Records | MixedRecords | None = None,
            clip: ClipSpec = gin.REQUIRED,
            make_encoder: Callable[..., tf.keras.Model] = video_encoder,
            make_untrained: Callable[..., tf.keras.Model] | None = None,
            split: str = "unlabelled", batch_size: int = 16, statistics_steps: int = 8,
            seed: int = 1) -> None:
    """Saves an encoder, and beside it the same network untrained.

    Args:
      run_dir: gets the folder `encoder`; one that has it is finished.
      records: whose clips the batch-norm statistics of what is untrained are estimated from; None
        leaves them as they are at first.
      clip: that the encoder will be given.
      make_encoder: called with the number of channels and `name`.
      make_untrained: the same for the network beside an encoder that was trained elsewhere; None
        where `make_encoder` gives an untrained one.
      split: of the records.
      batch_size: of the clips for the statistics.
      statistics_steps: batches of them.
      seed: of the drawn weights: those of a pre-training with this seed before its first step.

    Raises:
      UserError: for records that cannot be used.
    """
    folder = pathlib.Path(run_dir) / ENCODER
    for name, value in (("batch_size", batch_size), ("statistics_steps", statistics_steps)):
        if value < 1:
            raise UserError(f"initial.{name} is {value}; it must be 1 or more")
    if (folder / encoder_files.TRAINED).exists():
        logging.info("%s is a finished run; nothing to do", run_dir)
        return
    if records is not None:
        require_clips(records, split, "fit", clip)
    # As PretrainingModel draws its RGB encoder.
    tf.keras.utils.set_random_seed(seed * 1000)
    untrained = (make_untrained or make_encoder)(CHANNELS["rgb"], name="rgb")
    if records is not None:
        logging.info("estimating batch-norm statistics")
        frames = training_clips(records, split, clip, batch_size=batch_size, seed=seed + 2,
                                part="fit", modalities=("rgb",), other=False)
        with reading(records, split):
            estimate_rgb_statistics(BatchStatistics(untrained), clip,
                                    frames.take(statistics_steps))
    encoder_files.save_encoder(untrained, folder, encoder_files.UNTRAINED)
    encoder = untrained
    if make_untrained is not None:
        encoder = make_encoder(CHANNELS["rgb"], name="rgb")
    encoder_files.save_clip(clip, folder, gin.config_str())
    encoder_files.save_data(None, split, folder)
    # Last: this file says that the run is finished.
    encoder_files.save_encoder(encoder, folder)
