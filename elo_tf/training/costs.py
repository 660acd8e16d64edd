"""What a step costs, counted from its TensorFlow graph.

    FLOPs        of convolutions and matrix products, two a multiply-add, padding counted as work;
                 elementwise work, normalisation, pooling and Fourier transforms are left out
    activations  bytes that the forward pass keeps for the backward one
    peak         bytes alive at once when operations run in the order in which they were traced, a
                 lower bound: kernels need space of their own, and may run in another order
    bytes moved  inputs read and outputs written by each operation, as if none were fused

Operations that nothing needs are left out, as TensorFlow prunes them. Called functions are counted
inside, loops as often as they run, of branches the dearer one. Shapes must be static: trace for a
batch of known size, with every modality there (`all_present`).
"""

import contextlib
import dataclasses
import math
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple

import tensorflow as tf

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.training import graphs
from elo_tf.training.graphs import CALLS, LOOPS, VIEWS
from elo_tf.views.clip_views import ClipViews

# Nothing is read or written; the value of a variable is not copied.
_NOTHING = VIEWS | {"Placeholder", "Const", "VarHandleOp", "ReadVariableOp", "NoOp", "Shape",
                    "ShapeN", "Size", "Rank", "BroadcastGradientArgs"}
# Not activations: values that are there anyway, and numbers of a few bytes.
_NO_ACTIVATION = _NOTHING - VIEWS
_NO_BYTES = (tf.resource, tf.variant, tf.string)


@dataclasses.dataclass(frozen=True)
class Costs:
    """Of one call of a function.

    Attributes:
      flops_forward: up to the losses.
      flops_backward: of the gradient; a forward pass that is run again for it counts here.
      bytes_forward: moved by the forward pass.
      bytes_backward: moved by the gradient and its clipping.
      bytes_update: moved by the optimiser's fused operations and by assignments.
      activation_bytes: made by the forward pass and read by the backward one.
      peak_bytes: the most that is alive at once, without variables and the batch itself, and
        without reuse of buffers in place.
      flops_by_type: all FLOPs by type of operation.
    """

    flops_forward: int = 0
    flops_backward: int = 0
    bytes_forward: int = 0
    bytes_backward: int = 0
    bytes_update: int = 0
    activation_bytes: int = 0
    peak_bytes: int = 0
    flops_by_type: Mapping[str, int] = dataclasses.field(default_factory=Counter)

    @property
    def flops(self) -> int:
        """All of them."""
        return self.flops_forward + self.flops_backward

    @property
    def bytes_moved(self) -> int:
        """All of them."""
        return self.bytes_forward + self.bytes_backward + self.bytes_update

    @property
    def intensity(self) -> float:
        """FLOPs a byte moved."""
        return self.flops / max(self.bytes_moved, 1)


def count_costs(function: tf.types.experimental.ConcreteFunction) -> Costs:
    """Counts the costs of a traced function.

    Args:
      function: of static shapes.

    Raises:
      ValueError: naming the operation whose shape or number of rounds is not known, or whose
        arithmetic is of a kind that is not counted here.
    """
    return _count(function.graph, function.graph.outputs, backward=False).costs


def trace_step(model: tf.keras.Model, signature: Mapping[str, tf.TensorSpec]
               ) -> tf.types.experimental.ConcreteFunction:
    """Traces a compiled model's train step for a batch of `batch_signature`; it is not run.

    It is the step in which every loss has a weight: what is skipped has no static shape.
    """
    step = tf.function(lambda batch: model.distribute_strategy.run(model.train_step, (batch,)),
                       autograph=False)
    skips, model.skips = model.skips, False
    try:
        with all_present():
            return step.get_concrete_function(dict(signature))
    finally:
        model.skips = skips


def count_variables(variables: Iterable[tf.Variable]) -> tuple[int, int]:
    """Numbers in the variables, and their bytes."""
    sizes = [(math.prod(v.shape), v.dtype.size) for v in variables]
    return sum(n for n, _ in sizes), sum(n * size for n, size in sizes)


@contextlib.contextmanager
def all_present() -> Iterator[None]:
    """Traces steps as if every clip had every view: nothing is gathered out, shapes are static."""
    usual = ClipViews.always_present
    ClipViews.always_present = lambda self, modality, view: True  # type: ignore[method-assign]
    try:
        yield
    finally:
        ClipViews.always_present = usual  # type: ignore[method-assign]


def batch_signature(clip: ClipSpec, batch_size: int, modalities: Iterable[str],
                    other: bool) -> dict[str, tf.TensorSpec]:
    """What `training_clips` gives, with a static batch size.

    Args:
      clip: the clip's size.
      batch_size: clips.
      modalities: of rgb, flow and audio.
      other: with the window of another time.
    """
    side = clip.training_size
    frames = {"": clip.window} | ({"other_": clip.frames} if other else {})
    shapes: dict[str, tuple[tuple[int, ...], tf.DType]] = {}
    for prefix, length in frames.items():
        own = {"rgb": ((length, side, side, 3), tf.uint8),
               "flow": ((length, side, side, 2), tf.uint8),
               "audio": ((clip.samples(length),), tf.float32)}
        shapes |= {prefix + m: own[m] for m in modalities}
    shapes |= {f"has_{m}": ((), tf.bool) for m in modalities if m != "rgb"}
    if other:
        shapes["has_other"] = ((), tf.bool)
    shapes |= {name: ((), tf.int64) for name in ("index", "key", "label")}
    return {name: tf.TensorSpec((batch_size, *shape), dtype, name=name)
            for name, (shape, dtype) in shapes.items()}


class _Counted(NamedTuple):
    """A graph's costs, and whether it holds a backward pass."""

    costs: Costs
    has_backward: bool


def _count(graph: tf.Graph, outputs: Sequence[tf.Tensor], *, backward: bool) -> _Counted:
    """Counts what makes some outputs of a function; all of it is backward where its call is."""
    operations = graphs.needed(graph, outputs)
    read = {x.ref() for op in operations for x in op.inputs} | {x.ref() for x in outputs}
    total: Counter[str] = Counter()
    by_type: Counter[str] = Counter()
    behind: set[tf.Operation] = set()  # of the backward pass
    after: set[tf.Operation] = set()  # these, and calls that hold a backward pass inside
    inner_peaks: dict[tf.Operation, int] = {}
    inner_kept = 0
    for op in operations:
        before = [x.op for x in op.inputs] + list(op.control_inputs)
        # The tape's scope names gradients; what is custom, or is run again, waits for them.
        if backward or "gradient_tape" in op.name.split("/") or any(x in after for x in before):
            behind.add(op)
            after.add(op)
        phase = "backward" if op in behind else "forward"
        if op.type in CALLS:
            inner = _count_call(op, read, backward=op in behind)
            if inner.has_backward:
                after.add(op)
            for name in ("flops_forward", "flops_backward", "bytes_forward", "bytes_backward",
                         "bytes_update"):
                total[name] += getattr(inner.costs, name)
            by_type.update(inner.costs.flops_by_type)
            inner_peaks[op] = inner.costs.peak_bytes
            inner_kept = max(inner_kept, inner.costs.activation_bytes)
            continue
        flops = _flops(op)
        if flops:
            total[f"flops_{phase}"] += flops
            by_type[op.type] += flops
        update = op.type.startswith("ResourceApply") or op.type.startswith("Assign")
        total["bytes_update" if update else f"bytes_{phase}"] += _moved(op)
    kept = inner_kept + _kept(operations, behind)
    peak = _peak(outputs, operations, inner_peaks)
    return _Counted(
        Costs(**total, activation_bytes=kept, peak_bytes=peak, flops_by_type=by_type), bool(after))


def _count_call(op: tf.Operation, read: Set[tf.Tensor], *, backward: bool) -> _Counted:
    """The costs of a call: of the dearer branch, and of every round of a loop.

    TensorFlow inlines plain functions and prunes what makes results that nobody reads; it does
    not look into loops and into what XLA compiles.
    """
    whole = op.type in LOOPS or (
        "_XlaMustCompile" in op.node_def.attr and op.get_attr("_XlaMustCompile"))
    branches = []
    for name in CALLS[op.type]:
        graph = graphs.called(op, name)
        # A function that is differentiated elsewhere gets further results at the end there.
        outputs = [inside for inside, outside in zip(graph.outputs, op.outputs, strict=False)
                   if whole or outside.ref() in read]
        branches.append(_count(graph, outputs, backward=backward))
    found = max(branches, key=lambda x: (x.costs.flops, x.costs.bytes_moved))
    if op.type not in LOOPS:
        return found
    rounds = graphs.rounds(op)
    scaled = {name: rounds * getattr(found.costs, name)
              for name in ("flops_forward", "flops_backward", "bytes_forward", "bytes_backward",
                           "bytes_update")}
    by_type = Counter({k: rounds * n for k, n in found.costs.flops_by_type.items()})
    return _Counted(dataclasses.replace(found.costs, **scaled, flops_by_type=by_type),
                    found.has_backward)


# --- FLOPs ----------------------------------------------------------------------------------------


def _flops(op: tf.Operation) -> int:
    """Two for each multiply-add of a convolution or a matrix product."""
    kind = op.type
    if kind in ("Conv2D", "Conv3D"):
        return 2 * _size(op.outputs[0], op) * math.prod(_shape(op.inputs[1], op)[:-1])
    # The gradients are the same products as the convolution's, added up in another order: as many
    # as for the output whose gradient they take.
    if kind in ("Conv2DBackpropInput", "Conv3DBackpropInputV2"):
        return 2 * _size(op.inputs[2], op) * math.prod(_shape(op.inputs[1], op)[:-1])
    if kind in ("Conv2DBackpropFilter", "Conv3DBackpropFilterV2"):
        return 2 * _size(op.inputs[2], op) * math.prod(_shape(op.outputs[0], op)[:-1])
    if kind == "DepthwiseConv2dNative":
        return 2 * _size(op.outputs[0], op) * math.prod(_shape(op.inputs[1], op)[:2])
    if kind in ("DepthwiseConv2dNativeBackpropInput", "DepthwiseConv2dNativeBackpropFilter"):
        kernel = op.inputs[1] if kind.endswith("Input") else op.outputs[0]
        return 2 * _size(op.inputs[2], op) * math.prod(_shape(kernel, op)[:2])
    if kind == "MatMul":
        inner = _shape(op.inputs[0], op)[0 if op.get_attr("transpose_a") else 1]
        return 2 * _size(op.outputs[0], op) * inner
    if kind in ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        inner = _shape(op.inputs[0], op)[-2 if op.get_attr("adj_x") else -1]
        return 2 * _size(op.outputs[0], op) * inner
    if kind == "Einsum":
        return _einsum_flops(op)
    if "MatMul" in kind or "Conv2d" in kind or kind.startswith(("Conv", "_FusedConv")):
        raise ValueError(f"{op.name}: the arithmetic of {kind} is not counted")
    return 0


def _einsum_flops(op: tf.Operation) -> int:
    """Two for each combination of all labels; for one operand there is nothing to multiply."""
    if len(op.inputs) < 2:
        return 0
    operands = op.get_attr("equation").decode().split("->")[0].split(",")
    sides: dict[str, int] = {}
    for labels, tensor in zip(operands, op.inputs, strict=True):
        shape = _shape(tensor, op)
        named = labels.replace("...", "")
        # Labels of the axes that "..." stands for, the same from the last one on.
        hidden = string.digits[:len(shape) - len(named)][::-1] if "..." in labels else ""
        for label, side in zip(labels.replace("...", hidden), shape, strict=True):
            sides[label] = max(sides.get(label, 1), side)
    return 2 * math.prod(sides.values())


def _shape(tensor: tf.Tensor, op: tf.Operation) -> list[int]:
    """A static shape.

    Raises:
      ValueError: naming the operation, where it is not known.
    """
    if not tensor.shape.is_fully_defined():
        raise ValueError(f"{op.name} ({op.type}): the shape {tensor.shape} of {tensor.name} is not "
                         "known; trace for a batch of static shapes")
    return tensor.shape.as_list()


def _size(tensor: tf.Tensor, op: tf.Operation) -> int:
    return math.prod(_shape(tensor, op))


# --- bytes ----------------------------------------------------------------------------------------


def _bytes(tensor: tf.Tensor) -> int:
    """Bytes of a tensor; of the lists that a loop fills for its gradient, those of their items."""
    op = tensor.op
    if tensor.dtype == tf.variant and op.type in LOOPS:
        filled = graphs.called(op, "body").outputs[tensor.value_index].op
        if filled.type in ("TensorListPushBack", "TensorListSetItem"):
            return graphs.rounds(op) * _bytes(filled.inputs[-1])
    if tensor.dtype in _NO_BYTES:
        return 0
    if op.type.startswith("FusedBatchNorm") and tensor.value_index == 5:
        return 0  # cuDNN's own; empty elsewhere
    return _size(tensor, op) * tensor.dtype.size


def _moved(op: tf.Operation) -> int:
    """Bytes read and written."""
    if op.type in _NOTHING:
        return 0
    moved = sum(map(_bytes, op.inputs)) + sum(map(_bytes, op.outputs))
    if op.type.startswith(("ResourceApply", "Assign")):
        # Variable and slots are of the size of the largest input; fused updates read them too.
        variables = sum(x.dtype == tf.resource for x in op.inputs)
        largest = max((_bytes(x) for x in op.inputs), default=0)
        assigned = op.type == "AssignVariableOp"
        moved += variables * largest * (1 if assigned else 2)
    return moved


def _kept(operations: Iterable[tf.Operation], behind: set[tf.Operation]) -> int:
    """Bytes of what forward operations make and backward ones read, each tensor once."""
    kept = {}
    for op in operations:
        if op not in behind:
            continue
        for source in map(graphs.source, op.inputs):
            made_by = source.tensor.op
            outer = source.calls[0] if source.calls else made_by
            if (outer not in behind and made_by.type not in _NO_ACTIVATION
                    and made_by in graphs.from_arguments(made_by.graph)):
                kept[source.key] = source.tensor
    return sum(map(_bytes, kept.values()))


def _peak(outputs: Iterable[tf.Tensor], operations: list[tf.Operation],
          inner_peaks: Mapping[tf.Operation, int]) -> int:
    """The most bytes alive, each tensor from the operation that makes it to the last reader."""
    last: dict[tuple, int] = {}
    for place, op in enumerate(operations):
        for tensor in op.inputs:
            last[graphs.source(tensor).key] = place
    for tensor in outputs:
        last[graphs.source(tensor).key] = len(operations)
    ends: Counter[int] = Counter()
    seen: set[tuple] = set()
    alive = peak = 0
    for place, op in enumerate(operations):
        peak = max(peak, alive + inner_peaks.get(op, 0))
        for source in map(graphs.source, op.outputs):
            if source.key in seen or source.tensor.op.type in _NO_ACTIVATION:
                continue
            seen.add(source.key)
            size = _bytes(source.tensor)
            alive += size
            ends[last.get(source.key, place)] += size
        peak = max(peak, alive)
        alive -= ends.pop(place, 0)
    return peak
