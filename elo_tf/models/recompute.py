"""Recomputation of activations: memory for time (Chen et al. 2016, arXiv 1604.06174).

A network is cut where one tensor carries all that follows: between its residual units. Training
keeps those tensors only, and runs each unit's forward pass again when its gradient is due. The
second pass leaves the moving averages of batch normalisation alone, which must move once.
"""

from collections.abc import Callable, Collection

import tensorflow as tf

from elo_tf.models.normalization import counted_examples, examples_counted, frozen_averages


def residual_units(encoder: tf.keras.Model) -> list[tuple[str, tf.keras.Model]]:
    """Cuts a functional model into a chain of models that share its layers.

    Args:
      encoder: with one input; its outputs are named, and the last of them is the end of the chain.

    Returns:
      (the name of the output that ends the unit, or "", and the model), from input to output.
    """
    sites = {id(tensor): site for site, tensor in encoder.output.items()}
    ends = _cuts(encoder, sites)
    units, start = [], encoder.input
    for tensor in ends:
        unit = tf.keras.Model(start, tensor)
        units.append((sites.get(id(tensor), ""), unit))
        start = tensor
    return units


def _cuts(encoder: tf.keras.Model, sites: Collection[int]) -> list:
    """The tensors that end a unit, in order: sites, and what a residual unit starts from.

    A tensor is a cut where no later layer needs an earlier tensor.
    """
    nodes = [node for depth in sorted(encoder._nodes_by_depth, reverse=True)
             for node in encoder._nodes_by_depth[depth]]
    made: dict[int, tuple[int, tf.Tensor]] = {}
    last_use: dict[int, int] = {}
    uses: dict[int, int] = {}
    for place, node in enumerate(nodes):
        for tensor in tf.nest.flatten(node.outputs):
            made[id(tensor)] = (place, tensor)
        if node.is_input:
            continue
        for tensor in tf.nest.flatten(node.keras_inputs):
            last_use[id(tensor)] = place
            uses[id(tensor)] = uses.get(id(tensor), 0) + 1
    cuts = []
    for key, (place, tensor) in made.items():
        earlier = [k for k, (p, _) in made.items() if p < place]
        alone = all(last_use.get(k, -1) <= place for k in earlier)
        if alone and place > 0 and (key in sites or uses.get(key, 0) > 1):
            cuts.append(tensor)
    return cuts


def recomputing(encoder: tf.keras.Model) -> Callable[..., dict[str, tf.Tensor]]:
    """A function that computes what the encoder does and keeps little for the gradient.

    Args:
      encoder: see `residual_units`.

    Returns:
      Called as the encoder is, with `training`.
    """
    units = residual_units(encoder)

    def run(inputs: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        outputs, x = {}, inputs
        for site, unit in units:
            x = tf.recompute_grad(_once_moving(unit, training))(x)
            if site:
                outputs[site] = x
        return outputs

    return run


def _once_moving(unit: tf.keras.Model, training: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    """The unit, whose second call, made while the gradient is taken, moves no averages."""
    counted = examples_counted()
    called: list[bool] = []

    def run(x: tf.Tensor) -> tf.Tensor:
        if called:
            with frozen_averages(), counted_examples(counted):
                return unit(x, training=training)
        called.append(True)
        return unit(x, training=training)

    return run
