"""Reading traced graphs: called functions, how often loops run, where a tensor comes from."""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import tensorflow as tf

CALLS = {"PartitionedCall": ("f",), "StatefulPartitionedCall": ("f",),
         "While": ("body",), "StatelessWhile": ("body",),
         "If": ("then_branch", "else_branch"), "StatelessIf": ("then_branch", "else_branch")}
LOOPS = ("While", "StatelessWhile")
# The same bytes under another name.
VIEWS = frozenset({"Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient",
                   "PreventGradient"})


class Source(NamedTuple):
    """Where the bytes of a tensor come from.

    Attributes:
      tensor: as the operation made it that is no view, perhaps inside a called function.
      calls: the operations that call that function, from outside to inside.
    """

    tensor: tf.Tensor
    calls: tuple[tf.Operation, ...] = ()

    @property
    def key(self) -> tuple:
        """The same for the same bytes, and hashable."""
        return (*self.calls, self.tensor.ref())


def called(op: tf.Operation, attribute: str) -> tf.Graph:
    """The graph of a function that an operation calls; TensorFlow has no public way to it."""
    return op.graph._get_function(op.get_attr(attribute).name).graph


def needed(graph: tf.Graph, outputs: Iterable[tf.Tensor]) -> list[tf.Operation]:
    """The operations that outputs and a function's effects need, in the order of their tracing."""
    found: set[tf.Operation] = set()
    waiting = [x.op for x in outputs] + list(graph.control_outputs)
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            waiting += [x.op for x in op.inputs] + list(op.control_inputs)
    return [op for op in graph.get_operations() if op in found]


@functools.lru_cache(maxsize=64)
def from_arguments(graph: tf.Graph) -> frozenset[tf.Operation]:
    """The operations whose result depends on arguments or draws, not on variables alone."""
    found: set[tf.Operation] = set()
    for op in graph.get_operations():
        argument = op.type == "Placeholder" and op.outputs[0].dtype != tf.resource
        if argument or "Random" in op.type or any(x.op in found for x in op.inputs):
            found.add(op)
    return frozenset(found)


def source(tensor: tf.Tensor) -> Source:
    """Looks through views, and into the functions of plain calls."""
    tensor = _unviewed(tensor)
    op = tensor.op
    if op.type not in ("PartitionedCall", "StatefulPartitionedCall"):
        return Source(tensor)
    made, place = _results(called(op, "f"))[tensor.value_index]
    if place is not None:
        return source(op.inputs[place])
    return Source(made.tensor, (op, *made.calls))


@functools.lru_cache(maxsize=64)
def _results(graph: tf.Graph) -> list[tuple[Source, int | None]]:
    """The source of each of a function's results, and the place of the argument that it is."""
    places = {id(x): i for i, x in enumerate(graph.inputs)}
    found = [source(x) for x in graph.outputs]
    return [(x, None if x.calls else places.get(id(x.tensor))) for x in found]


def _unviewed(tensor: tf.Tensor) -> tf.Tensor:
    while tensor.op.type in VIEWS:
        tensor = tensor.op.inputs[tensor.value_index if tensor.op.type == "IdentityN" else 0]
    return tensor


def rounds(op: tf.Operation) -> int:
    """How often a loop runs: until the first of its counters reaches its limit.

    Raises:
      ValueError: naming the loop, where that is not known.
    """
    condition, body = called(op, "cond"), called(op, "body")
    found = []
    for less in condition.get_operations():
        if less.type != "Less":
            continue
        counter, limit = (_argument(x, condition) for x in less.inputs)
        if not isinstance(counter, int):
            continue
        end = _value(op.inputs[limit] if isinstance(limit, int) else limit)
        start = _value(op.inputs[counter])
        step = _step(body, counter)
        if end is not None and start is not None and step is not None:
            found.append(max(0, -(-(end - start) // step)))
    if not found:
        raise ValueError(f"{op.name}: how often this loop runs is not known")
    return min(found)


def _argument(tensor: tf.Tensor, graph: tf.Graph) -> int | tf.Tensor:
    """The place among the graph's arguments that a tensor is, or the tensor."""
    tensor = _unviewed(tensor)
    places = [i for i, x in enumerate(graph.inputs) if x is tensor]
    return places[0] if places else tensor


def _step(body: tf.Graph, place: int) -> int | None:
    """What a round adds to a counter, if that is a constant above 0."""
    total = _unviewed(body.outputs[place])
    if total.op.type not in ("AddV2", "Add"):
        return None
    one, other = total.op.inputs
    if _argument(one, body) != place:
        one, other = other, one
    step = tf.get_static_value(other)
    return int(step) if _argument(one, body) == place and step is not None and step > 0 else None


def _value(tensor: tf.Tensor) -> int | None:
    """A scalar that is known: a constant, or what another loop has counted up from 0."""
    value = tf.get_static_value(tensor)
    if value is not None and value.size == 1:
        return int(value)
    op = tensor.op
    if op.type in LOOPS and _value(op.inputs[tensor.value_index]) == 0 and (
            _step(called(op, "body"), tensor.value_index) == 1):
        return rounds(op)
    return None
