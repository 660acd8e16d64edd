"""The final training: one loss, the large network, checkpoints, and the RGB encoder it leaves."""

import json
import pathlib
from collections.abc import Callable, Mapping

import gin
import tensorflow as tf
from absl import logging

from elo_tf import files
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.pipeline import reading, require_clips, training_clips
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError
from elo_tf.losses import LossSpace
from elo_tf.pretraining import PretrainingModel
from elo_tf.training import encoder_files
from elo_tf.training.batch_statistics import BatchStatistics
from elo_tf.training.checkpoints import Checkpoints
from elo_tf.training.data_wait import DataWait, Waited
from elo_tf.training.devices import StepProgress, distribute, make_strategy
from elo_tf.training.heldout import HeldoutLosses
from elo_tf.training.optimization import create_slots, make_optimizer
from elo_tf.views.clip_views import ClipViews

HELDOUT = "heldout.json"
LOSSES = "losses.jsonl"
ENCODER = "encoder"


@gin.configurable(denylist=["run_dir"])
def pretrain(run_dir: str, *, records: Records | MixedRecords = gin.REQUIRED,
             clip: ClipSpec = gin.REQUIRED,
             space: LossSpace = gin.REQUIRED, loss_weights: Mapping[str, float] = gin.REQUIRED,
             make_model: Callable[..., PretrainingModel] = PretrainingModel,
             optimizer: Callable[[int], tf.keras.optimizers.legacy.Optimizer] = make_optimizer,
             split: str = "unlabelled", steps: int = 1000, batch_size: int = 16, seed: int = 1,
             heldout_steps: int = 4, statistics_steps: int = 8, log_every: int = 10,
             checkpoint_every: int = 100) -> dict:
    """Trains all encoders with a fixed loss and saves the RGB one.

    Args:
      run_dir: where everything goes; an unfinished run in it is taken up again.
      records: the record set.
      clip: the clip's size.
      space: the loss space.
      loss_weights: by name, as best_loss.gin gives them; names left out weigh 0.
      make_model: called with clip, space, names and seed.
      optimizer: called with the number of steps.
      split: of the records; labels are never read.
      steps: of training, a multiple of `log_every`.
      batch_size: of the global batch.
      seed: of initial variables, order and draws.
      heldout_steps: batches of unseen clips on which the losses are measured before and after.
      statistics_steps: batches for the final batch-norm statistics.
      log_every: steps between entries of losses.jsonl, and between waits for the device.
      checkpoint_every: steps between checkpoints, a multiple of `log_every`.

    Returns:
      What heldout.json holds: weights, and the losses on unseen clips before and after.

    Raises:
      UserError: for weights or records that cannot be used.
      FloatingPointError: where the loss stops being finite.
    """
    folder = pathlib.Path(run_dir)
    for name, value in (("log_every", log_every), ("checkpoint_every", checkpoint_every),
                        ("steps", steps), ("batch_size", batch_size),
                        ("heldout_steps", heldout_steps), ("statistics_steps", statistics_steps)):
        if value < 1:
            raise UserError(f"pretrain.{name} is {value}; it must be 1 or more")
    for name, value in (("checkpoint_every", checkpoint_every), ("steps", steps)):
        if value % log_every:
            raise UserError(f"pretrain.{name} is {value}; it must be a multiple of "
                            f"pretrain.log_every, {log_every}")
    if (folder / ENCODER / encoder_files.TRAINED).exists():
        logging.info("%s is a finished run; nothing to do", folder)
        return json.loads((folder / HELDOUT).read_text(encoding="utf-8"))
    names = space.active(loss_weights)
    for part in ("fit", "heldout"):
        require_clips(records, split, part, clip)

    strategy = make_strategy()
    with strategy.scope():
        model = make_model(clip, space, names=names, seed=seed)
        model.set_weights_by_name({name: loss_weights[name] for name in names})
        model.compile(optimizer=optimizer(steps))
        create_slots(model.optimizer, model.trainable_variables)
    checkpoints = Checkpoints(model, folder / "checkpoints")

    def batches(part: str, batch_seed: int, start_step: int = 0) -> tf.data.Dataset:
        return training_clips(records, split, clip, batch_size=batch_size, seed=batch_seed,
                              part=part, start_step=start_step, modalities=model.modalities,
                              other=model.needs_other)

    # A stream of its own for what is not trained on.
    unseen = batches("heldout", seed + 1).take(heldout_steps)
    heldout = HeldoutLosses(model, distribute(strategy, unseen))
    statistics = BatchStatistics(model.encoders["rgb"])

    def save_rgb(name: str) -> None:
        encoder = model.encoders["rgb"]
        frames = training_clips(records, split, clip, batch_size=batch_size, seed=seed + 2,
                                part="fit", modalities=("rgb",), other=False)
        estimate_rgb_statistics(statistics, clip, frames.take(statistics_steps))
        encoder_files.save_encoder(encoder, folder / ENCODER, name)

    with reading(records, split):
        start = checkpoints.restore()
        if start == 0:
            logging.info("measuring %d losses on unseen clips", len(names))
            weights = {name: float(loss_weights[name]) for name in names}
            before = heldout()
            files.write_atomic(folder / HELDOUT, json.dumps({"weights": weights, "before": before}))
            initial = model.encoders["rgb"].get_weights()
            save_rgb(encoder_files.UNTRAINED)
            model.encoders["rgb"].set_weights(initial)
            checkpoints.save()
        result = json.loads((folder / HELDOUT).read_text(encoding="utf-8"))

        if start < steps:
            progress = StepProgress(steps, "pretraining", initial=start)
            log = RunLog(checkpoints, folder / LOSSES, start=start,
                         checkpoint_every=checkpoint_every, wait=DataWait(model),
                         progress=progress)
            model.fit(distribute(strategy, batches("fit", seed, start)), steps_per_epoch=log_every,
                      initial_epoch=start // log_every, epochs=steps // log_every, verbose=0,
                      callbacks=[progress, log])
            progress.close()
            logging.info("trained %d steps in %.0f s, of which %.1f%% waiting for data",
                         steps - start, log.waited.wall, 100 * log.waited.share)

        result["after"] = heldout()
        files.write_atomic(folder / HELDOUT, json.dumps(result, indent=1) + "\n")
        encoder_files.save_clip(clip, folder / ENCODER, gin.config_str())
        save_rgb(encoder_files.TRAINED)  # last: this file says that the run is finished
    return result


class RunLog(tf.keras.callbacks.Callback):
    """Writes losses.jsonl and checkpoints at the end of every `fit` epoch of `log_every` steps.

    A line holds the step, the total, the losses and `data_wait`, the share of the wall time since
    the last line for which the devices waited for data: the only number that differs between two
    runs of one configuration.

    Attributes:
      waited: for data, since the start of this process.
    """

    def __init__(self, checkpoints: Checkpoints, path: pathlib.Path, *, start: int,
                 checkpoint_every: int, wait: DataWait, progress: StepProgress):
        """Opens the log, without what was logged after the checkpoint at step `start`."""
        super().__init__()
        self.waited = Waited(0.0, 0.0)
        self._wait = wait
        self._progress = progress
        self._checkpoints = checkpoints
        self._path = path
        self._checkpoint_every = checkpoint_every
        lines = path.read_text(encoding="utf-8").splitlines(True) if path.exists() else []
        # What a kill left of a half-written line does not end.
        kept = [x for x in lines if x.endswith("\n") and json.loads(x)["step"] <= start]
        files.write_atomic(path, "".join(kept))

    def on_epoch_end(self, epoch, logs=None):
        """Logs, and saves where it is time.

        Raises:
          FloatingPointError: naming the first loss that is not finite, and the step.
        """
        step = self._checkpoints.step
        losses = dict(zip(self.model.names, map(float, logs["losses"]), strict=True))
        check_finite(losses, step)
        waited = self._wait.take()
        self.waited += waited
        self._progress.show(f"waiting for data {waited.share:.0%}")
        with open(self._path, "a", encoding="utf-8") as log:
            log.write(json.dumps(
                {"step": step, "total": float(logs["total"]), "losses": losses,
                 "data_wait": round(waited.share, 4)}) + "\n")
        if step % self._checkpoint_every == 0:
            self._checkpoints.save()


def check_finite(losses: Mapping[str, float], step: int) -> None:
    """Raises FloatingPointError, naming the loss and the step, if one is not finite."""
    for name, loss in losses.items():
        if not abs(loss) < float("inf"):
            raise FloatingPointError(f"the loss {name} is {loss} at step {step}")


def estimate_rgb_statistics(statistics: BatchStatistics, clip: ClipSpec,
                            batches: tf.data.Dataset) -> None:
    """Re-estimates the RGB encoder's batch-norm statistics from intact clips."""
    statistics.estimate(ClipViews(batch, clip).view("rgb", "intact") for batch in batches)
