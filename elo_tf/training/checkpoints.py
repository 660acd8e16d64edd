"""Checkpoints of a training run: the newest whole one is found and taken up again."""

import pathlib

import tensorflow as tf
from absl import logging

from elo_tf.errors import UserError
from elo_tf.pretraining import PretrainingModel


class Checkpoints:
    """Saves and restores a model and its optimiser, by named part."""

    def __init__(self, model: PretrainingModel, folder: pathlib.Path, *, keep: int = 2):
        """Prepares a folder of checkpoints.

        Args:
          model: compiled, its optimiser built: slots that are made later would not be restored.
          folder: made if missing.
          keep: how many are kept.
        """
        checkpoint = tf.train.Checkpoint(
            encoders=model.encoders, tasks=model.tasks, loss_weights=model.loss_weights,
            optimizer=model.optimizer)
        self._model = model
        self._manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=keep,
                                                   checkpoint_name="step")

    def save(self) -> None:
        """Saves; TensorFlow points at a checkpoint only once it is whole."""
        self._manager.save(checkpoint_number=self.step)

    def restore(self) -> int:
        """Restores the newest checkpoint.

        Returns:
          The step it was saved at; 0 if there is none.

        Raises:
          UserError: if it is not of this model.
        """
        path = self._manager.latest_checkpoint
        if path is None:
            return 0
        try:
            status = self._manager.checkpoint.restore(path)
            status.assert_existing_objects_matched()
        except (AssertionError, ValueError, IndexError, tf.errors.OpError) as error:
            # IndexError: the file is shorter than it should be.
            raise UserError(f"checkpoint {path} does not fit this model: "
                            f"{str(error).splitlines()[0]}; use another --run_dir") from error
        logging.info("resuming from %s", path)
        return self.step

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self._model.optimizer.iterations.numpy())
