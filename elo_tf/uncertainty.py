"""Weights that are learned in one training, from uncertainty (Kendall, Gal and Cipolla 2018).

    L = sum_i exp(-s_i) L_i + s_i        s_i = log sigma_i^2, learned with the network, from 0

(arXiv 1705.07115, section 3.) There a regression has 1/2 exp(-s) L + 1/2 s, which is half of this,
and a classification exp(-s) L + 1/2 s, whose minimum weighs the loss by half as much; one form
serves all losses here (our choice), since all are divided by a trivial predictor's. Where a loss
stands still, s_i settles at log L_i, and the loss weighs 1 / L_i.
"""

import tensorflow as tf


def learned_weights(log_variances: tf.Tensor, takes_part: tf.Tensor) -> tf.Tensor:
    """The weights of a step.

    Args:
      log_variances: s, float32 [n].
      takes_part: bool [n].

    Returns:
      float32 [n], exp(-s), as a constant; 0 where the loss takes no part.
    """
    return tf.stop_gradient(tf.where(takes_part, tf.exp(-log_variances), 0.0))


def log_variance_gradient(weights: tf.Tensor, losses: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """The gradient of L in s: 1 - exp(-s) L_i.

    Args:
      weights: of `learned_weights`.
      losses: float32 [n], over the global batch.
      counts: float32 [n], their valid examples.

    Returns:
      float32 [n]; 0 where the loss takes no part or has no example.
    """
    seen = tf.logical_and(weights > 0, counts > 0)
    return tf.where(seen, 1.0 - weights * losses, 0.0)
