"""The final training: one loss, the large network, checkpoints, and the RGB encoder it leaves."""

import contextlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

import gin
import tensorflow as tf
from absl import logging

from elo_tf import files, provenance
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.pipeline import reading, require_clips, training_clips
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError
from elo_tf.losses import LossSpace
from elo_tf.pretraining import PretrainingModel
from elo_tf.tasks.classification import Classify
from elo_tf.training import encoder_files, workers
from elo_tf.training.averaging import WeightAverages
from elo_tf.training.batch_statistics import BatchStatistics
from elo_tf.training.checkpoints import Checkpoints, restore_parts
from elo_tf.training.devices import distribute, fix_threads, make_strategy
from elo_tf.training.heldout import HeldoutLosses
from elo_tf.training.loop import Schedule, train
from elo_tf.training.optimization import create_slots, make_optimizer
from elo_tf.training.run_log import RunLog
from elo_tf.training.stopping import StopRequests
from elo_tf.views.clip_views import ClipViews

HELDOUT = "heldout.json"
CHECKPOINTS = "checkpoints"
ENCODER = "encoder"


@gin.configurable(denylist=["run_dir"])
def pretrain(run_dir: str, *, records: Records | MixedRecords = gin.REQUIRED,
             clip: ClipSpec = gin.REQUIRED,
             space: LossSpace = gin.REQUIRED, loss_weights: Mapping[str, float] = gin.REQUIRED,
             make_model: Callable[..., PretrainingModel] = PretrainingModel,
             optimizer: Callable[..., tf.keras.optimizers.legacy.Optimizer] = make_optimizer,
             split: str = "unlabelled", steps: int = 1000, batch_size: int = 16, seed: int = 1,
             heldout_steps: int = 4, statistics_steps: int = 8, log_every: int = 10,
             checkpoint_every: int = 100, keep_last: int = 2, keep_best: int = 1,
             average_decay: float = 0.0, initial: str = "",
             initial_parts: Sequence[str] = ("encoders",), intra_op_threads: int = 0,
             deterministic: bool = False) -> dict:
    """Trains all encoders with a fixed loss and saves the RGB one.

    Args:
      run_dir: where everything goes; an unfinished run in it is taken up again. Several hosts
        share it.
      records: the record set.
      clip: the clip's size.
      space: the loss space.
      loss_weights: by name, as best_loss.gin gives them; names left out weigh 0. Where the model
        learns the weights, those above 0 take part, and unseen clips are scored by the plain sum.
      make_model: called with clip, space, names and seed.
      optimizer: called with the number of steps and the global batch size.
      split: of the records; of their tasks, only `Classify` reads labels.
      steps: of training.
      batch_size: of the global batch.
      seed: of initial variables, order and draws.
      heldout_steps: batches of unseen clips on which the losses are measured.
      statistics_steps: batches for the final batch-norm statistics.
      log_every: steps between entries of losses.jsonl, and between waits for the device.
      checkpoint_every: steps between checkpoints.
      keep_last: how many of the newest checkpoints are kept.
      keep_best: how many of those are kept whose weighted losses on unseen clips are least; 0
        spares measuring them.
      average_decay: of the moving average of the weights, which then makes the encoder; 0: none.
      initial: checkpoint, folder of checkpoints or run_dir to start from, for fine-tuning.
      initial_parts: what is taken from there, such as "encoders/rgb".
      intra_op_threads: of every operation; 0 takes all cores. The last bits depend on it.
      deterministic: use TensorFlow's deterministic kernels, where a GPU has others that are
        faster; the same configuration then gives the same bits.

    Returns:
      What heldout.json holds: weights, and the losses on unseen clips before and after.

    Raises:
      UserError: for weights or records that cannot be used.
      FloatingPointError: where the loss stops being finite.
      Stopped: on SIGTERM or SIGINT, after saving.
    """
    folder = pathlib.Path(run_dir)
    for name, value in (("log_every", log_every), ("checkpoint_every", checkpoint_every),
                        ("steps", steps), ("batch_size", batch_size), ("keep_last", keep_last),
                        ("heldout_steps", heldout_steps), ("statistics_steps", statistics_steps)):
        if value < 1:
            raise UserError(f"pretrain.{name} is {value}; it must be 1 or more")
    if (folder / ENCODER / encoder_files.TRAINED).exists():
        logging.info("%s is a finished run; nothing to do", folder)
        return json.loads((folder / HELDOUT).read_text(encoding="utf-8"))
    names = space.active(loss_weights)
    weights = {name: float(loss_weights[name]) for name in names}
    for task in map(space.task, names):
        if isinstance(task, Classify):
            task.check_labels(records.labels())
    fix_threads(intra_op_threads)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = make_strategy()
    with contextlib.ExitStack() as stack:
        stack.enter_context(workers.watch(strategy))
        stop = stack.enter_context(StopRequests())
        for part in ("fit", "heldout"):
            require_clips(records, split, part, clip)
        with strategy.scope():
            model = make_model(clip, space, names=names, skip_zero=False, seed=seed)
            model.check_batch_size(batch_size)
            model.set_weights_by_name(weights)
            model.compile(optimizer=optimizer(steps, batch_size))
            create_slots(model.optimizer, model.trainable_variables)
            averages = (WeightAverages(model.trainable_variables, average_decay)
                        if average_decay else None)
        parts = {"encoders": model.encoders, "loss_weights": model.loss_weights,
                 "tasks": dict(zip(names, model.tasks, strict=True)),
                 "optimizer": model.optimizer}
        learns = model.log_variances is not None
        if learns:
            parts["log_variances"] = model.log_variances
            weights = dict.fromkeys(names, 1.0)
        if averages is not None:
            parts["averages"] = averages
            model.after_step = averages.update
        chief = workers.is_chief(strategy)
        checkpoints = Checkpoints(parts, folder / CHECKPOINTS, keep_last=keep_last,
                                  keep_best=keep_best, writes=chief,
                                  config=provenance.config_hash(gin.config_str()))
        # What is measured and kept is the average, where there is one.
        kept = averages.swapped if averages is not None else contextlib.nullcontext

        def batches(part: str, batch_seed: int, start_step: int = 0) -> tf.data.Dataset:
            return training_clips(
                records, split, clip, batch_size=batch_size, seed=batch_seed, part=part,
                start_step=start_step, modalities=model.modalities, other=model.needs_other,
                share=workers.share(strategy))

        # A stream of its own for what is not trained on.
        heldout = HeldoutLosses(
            model, distribute(strategy, batches("heldout", seed + 1).take(heldout_steps)))
        statistics = BatchStatistics(model.encoders["rgb"])

        def save_rgb(name: str) -> None:
            frames = training_clips(records, split, clip, batch_size=batch_size, seed=seed + 2,
                                    part="fit", modalities=("rgb",), other=False)
            estimate_rgb_statistics(statistics, clip, frames.take(statistics_steps))
            encoder_files.save_encoder(model.encoders["rgb"], folder / ENCODER, name, writes=chief)

        with reading(records, split):
            start = checkpoints.restore()
            if not checkpoints.steps:
                if initial:
                    restore_parts(initial, parts, initial_parts)
                logging.info("measuring %d losses on unseen clips", len(names))
                before = heldout()
                if chief:
                    files.write_atomic(folder / HELDOUT,
                                       json.dumps({"weights": weights, "before": before}))
                untrained = model.encoders["rgb"].get_weights()
                save_rgb(encoder_files.UNTRAINED)
                model.encoders["rgb"].set_weights(untrained)
                checkpoints.save(0)

            if start < steps:
                log = RunLog(folder, weights, start=start, config=gin.config_str(), writes=chief)

                def save(step: int, planned: bool) -> None:
                    score = None
                    if planned and keep_best:
                        with kept():
                            losses = heldout()
                        score = sum(weights[name] * loss for name, loss in losses.items())
                        log.write_heldout(step, losses, score)
                    checkpoints.save(step, score=score)

                waited = train(
                    model, distribute(strategy, batches("fit", seed, start)),
                    Schedule(start=start, steps=steps, batch_size=batch_size, log_every=log_every,
                             checkpoint_every=checkpoint_every),
                    log=log, save=save, stop=stop)
                logging.info("trained %d steps in %.0f s, of which %.1f%% waiting for data",
                             steps - start, waited.wall, 100 * waited.share)

            with kept():
                result = json.loads((folder / HELDOUT).read_text(encoding="utf-8"))
                result["after"] = heldout()
                if learns:
                    result["weights"] = model.weights_by_name()
                if chief:
                    files.write_atomic(folder / HELDOUT, json.dumps(result, indent=1) + "\n")
                    encoder_files.save_clip(clip, folder / ENCODER, gin.config_str())
                    encoder_files.save_data(records, split, folder / ENCODER)
                # Last: this file says that the run is finished.
                save_rgb(encoder_files.TRAINED)
        workers.barrier(strategy)
    return result


def estimate_rgb_statistics(statistics: BatchStatistics, clip: ClipSpec,
                            batches: tf.data.Dataset) -> None:
    """Re-estimates the RGB encoder's batch-norm statistics from intact clips."""
    statistics.estimate(ClipViews(batch, clip).view("rgb", "intact") for batch in batches)
