"""Losses of weight zero cost nothing: what only they need is left out as the step runs.

One compiled step serves all weights of a search. In it, every view, every encoder and every task
stands in a branch of its own, which runs where a loss of weight above 0 needs it. A step is then
that of a model that was built with those losses only; its variables that were left out get a
gradient of zero, which does not move them (plain weight decay still would).

Each task's own gradient is taken inside its branch, so that nothing but numbers and gradients
leaves it: a branch that a tape must look into, as each encoder's, takes longer to trace.

For one replica: statistics and negatives over several are collectives, which fail in a branch.
"""

import functools
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from elo_tf.encoding import EncodedViews, calls, encode_modality
from elo_tf.gradients import Gradients, Losses, summed_squares
from elo_tf.tasks.task import Task, ViewKey
from elo_tf.views.clip_views import REARRANGED, ClipViews

_ORDER = ("clip", "order")

# A view of a modality at a site of its encoder.
_Site = tuple[str, str, str]


class Active:
    """Tells in a graph what the losses of weight above 0 need."""

    def __init__(self, weights: tf.Tensor):
        """Looks at weights, float32 [n]."""
        # Branches are chosen by the host, which else would ask a GPU for every one.
        with tf.device("CPU:0"):
            self.losses = weights > 0  # bool [n]
            self._each = tf.unstack(self.losses)
        self._known: dict[frozenset[int], tf.Tensor] = {}

    def any_of(self, losses: Collection[int]) -> tf.Tensor:
        """Whether one of some losses is active, a bool scalar."""
        key = frozenset(losses)
        if key not in self._known:
            with tf.device("CPU:0"):
                self._known[key] = (tf.reduce_any(tf.stack([self._each[i] for i in sorted(key)]))
                                    if key else tf.constant(False))
        return self._known[key]


class NeededViews(ClipViews):
    """The views of a batch, without rows where no active loss needs them."""

    def __init__(self, *args, tasks: Sequence[Task], active: Active, **options):
        """Wraps a batch.

        Args:
          *args: of `ClipViews`.
          tasks: in the order of the weights.
          active: those that count in this step.
          **options: of `ClipViews`.
        """
        super().__init__(*args, **options)
        self._active = active
        self._users: dict[Hashable, set[int]] = {}
        for number, task in enumerate(tasks):
            for key in [self._input_key(*key) for key in task.encodes] + list(task.decodes):
                self._add_user(key, number)
        if self._augmentation is not None:
            self._draws()  # before any branch, since it is kept for all

    def _add_user(self, key: tuple[str, ...], number: int) -> None:
        self._users.setdefault(key, set()).add(number)
        for source in self._sources(key):
            self._add_user(source, number)

    def _sources(self, key: tuple[str, ...]) -> list[tuple[str, ...]]:
        """What `ClipViews` makes a view from, besides the batch."""
        modality, view, *kind = key
        if key == _ORDER or view == "window":
            return []
        if view in self._samplers:
            return list(self._samplers[view].sources)
        if kind == ["masked"] or (
                kind == ["blurred"] and modality == "rgb" and view not in REARRANGED):
            return [(modality, view)]
        if view in REARRANGED:
            order = [_ORDER] if view == "shuffled" else []
            return [(modality, "intact", *kind), *order]
        if modality == "gray":
            return [("rgb", view, *kind)]
        if modality == "audio":
            return []
        stored = f"other_{modality}" if view == "other_time" else modality
        return [(stored, "window", "placed")]

    def _once(self, key: tuple[str, ...], make: Callable[[], tf.Tensor]) -> tf.Tensor:
        if key in self._made:
            return self._made[key]
        for source in self._sources(key):  # outside this view's branch: others use it too
            self._ask(source)
        if key[1] == "window" and self._augmentation is not None and self._augmentation.colours:
            return super()._once(key, make)  # it makes two windows at once
        needed = self._active.any_of(self._users[key])
        return super()._once(key, lambda: run_if(needed, make))

    def _ask(self, key: tuple[str, ...]) -> None:
        modality, view, *kind = key
        if key == _ORDER:
            self._order()
        elif view == "window":
            self._placed(modality)
        elif kind:
            self.encoder_input(modality, view)
        else:
            self.view(modality, view)


class _Inputs(NamedTuple):
    """A modality's views as `encode_modality` takes them: those that are not needed are empty."""

    whole: Mapping[ViewKey, tf.Tensor]
    needed: Mapping[ViewKey, tf.Tensor]
    views: ClipViews

    def encoder_input(self, modality: str, view: str) -> tf.Tensor:
        # A branch would give a gradient to all that comes into it.
        return tf.stop_gradient(self.whole[modality, view])

    def always_present(self, modality: str, view: str) -> bool:
        return self.views.always_present(modality, view)

    def present(self, modality: str, view: str) -> tf.Tensor:
        return tf.logical_and(self.views.present(modality, view), self.needed[modality, view])


def together(model: Losses, views: NeededViews, counts: tf.Tensor, active: Active) -> Gradients:
    """`gradients.together`, of the active losses; the others' shares and gradients are 0.

    Args:
      model: whose losses are weighed.
      views: of the batch.
      counts: float32 [n], valid examples of the batch, which the losses divide by.
      active: those of weight above 0.
    """
    weights = model.step_weights()
    encoded = {modality: _encode(model, views, modality, active) for modality in model.encoders}
    activations = {m: found for m, (_, found) in encoded.items()}
    for task in model.tasks:
        for key in task.decodes:
            views.view(*key)  # before a branch needs it
    found = [_of_task(model, number, activations, views, counts, weights, active)
             for number in range(len(model.tasks))]

    gradients = {v.ref(): g for one in found for v, g in one.heads}
    for modality, (tape, outputs) in encoded.items():
        wanted: dict[ViewKey, list[tf.Tensor]] = {}
        for one in found:
            for (name, view, site), gradient in one.taps.items():
                if name == modality:
                    wanted.setdefault((view, site), []).append(gradient)
        variables = model.encoders[modality].trainable_variables
        own = [tf.zeros(v.shape) for v in variables] if not wanted else tape.gradient(
            [outputs[key] for key in wanted], variables, unconnected_gradients="zero",
            output_gradients=[tf.add_n(parts) for parts in wanted.values()])
        gradients |= {v.ref(): g for v, g in zip(variables, own, strict=True)}
    return Gradients([gradients[v.ref()] for v in model.network_variables],
                     tf.stack([one.share for one in found]),
                     tf.stack([one.square for one in found]))


class _Found(NamedTuple):
    """What one task contributes: its share, its gradients, and their squared length in the taps."""

    share: tf.Tensor
    square: tf.Tensor
    heads: list[tuple[tf.Variable, tf.Tensor]]
    taps: dict[_Site, tf.Tensor]


def _encode(model: Losses, views: NeededViews, modality: str, active: Active
            ) -> tuple[tf.GradientTape, dict[ViewKey, tf.Tensor]]:
    """A modality's activations by (view, site), and the tape that they are recorded on.

    Views that are not needed have no rows.
    """
    names = [view for name, view in model.encoded_views() if name == modality]
    users = {view: [i for i, task in enumerate(model.tasks) if (modality, view) in task.encodes]
             for view in names}
    needed = {(modality, view): active.any_of(users[view]) for view in names}
    whole = {}
    for key, use in needed.items():
        whole[key] = views.encoder_input(*key)
        # What is a target only is there, but is not encoded.
        whole[key] = whole[key][:tf.where(use, tf.shape(whole[key])[0], 0)]
    inputs = _Inputs(whole, needed, views)
    outputs: dict[ViewKey, tf.Tensor] = {}
    with tf.GradientTape() as tape:
        for together in calls(inputs, modality, names):
            outputs |= run_if(
                active.any_of(sum((users[view] for view in together), [])),
                functools.partial(encode_modality, model.run_encoder(modality), inputs, modality,
                                  together, True))
    return tape, outputs


def _of_task(model: Losses, number: int, activations: Mapping[str, Mapping[ViewKey, tf.Tensor]],
             views: NeededViews, counts: tf.Tensor, weights: tf.Tensor, active: Active) -> _Found:
    """The share of a loss and its gradients, in a branch that nothing is differentiated through."""
    task = model.tasks[number]
    variables = task.trainable_variables
    keys = [(modality, view, task.site) for modality, view in task.encodes]
    taken = [activations[modality][view, site] for modality, view, site in keys]
    reached: list[int] = []

    def compute():
        with tf.GradientTape() as tape:
            taps = [tf.identity(x) for x in taken]
            tape.watch(taps)
            own: dict[str, dict[ViewKey, tf.Tensor]] = {}
            for (modality, view, site), tap in zip(keys, taps, strict=True):
                own.setdefault(modality, {})[view, site] = tap
            share, = tf.unstack(model.shares(
                [EncodedViews(views, own)], counts[number:number + 1], [task]))
            weighted = weights[number] * share
        heads, found = tape.gradient(weighted, (variables, taps))
        reached[:] = [i for i, gradient in enumerate(found) if gradient is not None]
        found = [found[i] for i in reached]
        heads = [tf.zeros(v.shape) if g is None else tf.convert_to_tensor(g)
                 for v, g in zip(variables, heads, strict=True)]
        return share, summed_squares([found])[0], heads, found

    def skip():
        zero = tf.zeros([])
        return (zero, zero, [tf.zeros(v.shape) for v in variables],
                [tf.zeros_like(taken[i]) for i in reached])

    share, square, heads, found = tf.cond(active.any_of([number]), compute, skip)
    return _Found(share, square, list(zip(variables, heads, strict=True)),
                  {keys[i]: gradient for i, gradient in zip(reached, found, strict=True)})


def run_if(needed: tf.Tensor, compute: Callable[[], Any]) -> Any:
    """What `compute` returns; where it is not needed, tensors of the same kinds without rows.

    Args:
      needed: bool scalar.
      compute: returns tensors whose first axis is of examples.
    """
    made: list[Any] = []

    def run():  # traced first
        made[:] = [compute()]
        return made[0]

    def skip():
        return tf.nest.map_structure(
            lambda x: tf.zeros([0, *(d or 0 for d in x.shape[1:])], x.dtype), made[0])

    return tf.cond(needed, run, skip)
