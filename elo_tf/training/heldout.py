"""The losses on clips that are not trained on."""

from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from elo_tf.pretraining import PretrainingModel


class HeldoutLosses:
    """Measures every raw loss over the same batches, as training computes it; compiled once.

    Batch normalisation uses the batch's statistics, so that an untrained network is measured as
    fairly as a trained one.
    """

    def __init__(self, model: PretrainingModel, batches: Iterable[Mapping[str, tf.Tensor]]):
        """Prepares the measurement.

        Args:
          model: built, under its strategy.
          batches: distributed, of `training_clips`; read anew for every measurement.
        """
        self._model = model
        self._batches = batches
        strategy = model.distribute_strategy

        @tf.function
        def step(batch):
            report = strategy.run(model.test_step, args=(batch,))
            first = strategy.experimental_local_results
            return first(report["losses"])[0], first(report["counts"])[0]

        self._step = step

    def __call__(self) -> dict[str, float]:
        """Means over all valid examples, by name; losses without any are left out."""
        total = np.zeros(len(self._model.names))
        count = np.zeros_like(total)
        for batch in self._batches:
            losses, valid = (x.numpy() for x in self._step(batch))
            total += losses * valid
            count += valid
        return {name: float(total[i] / count[i])
                for i, name in enumerate(self._model.names) if count[i]}
