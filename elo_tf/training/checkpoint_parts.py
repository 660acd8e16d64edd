"""The variables of named parts: what a checkpoint calls them, and how two sets of them differ."""

import collections
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

Parts = Mapping[str, Any]

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT = "/.OPTIMIZER_SLOT/"
_SHOWN = 3


def part_names(parts: Parts) -> list[str]:
    """Names of the parts, such as "encoders/rgb" or "optimizer"."""
    return sorted(name for outer, part in parts.items()
                  for name in ([f"{outer}/{inner}" for inner in part]
                               if isinstance(part, Mapping) else [outer]))


def select(parts: Parts, names: Iterable[str]) -> dict[str, Any]:
    """The parts that are named; "encoders" names all encoders.

    Raises:
      KeyError: with the first name that names none.
    """
    selected = {}
    for name in names:
        outer, _, inner = name.partition("/")
        part = parts.get(outer)
        if part is not None and not inner:
            selected[outer] = part
        elif isinstance(part, Mapping) and inner in part:
            selected[outer] = {**selected.get(outer, {}), inner: part[inner]}
        else:
            raise KeyError(name)
    return selected


def describe(root: tf.train.Checkpoint) -> dict[str, str]:
    """Dtype and shape, such as "float32[3, 64]", of every variable by its key in a checkpoint.

    The key is the shortest path of attribute names from the root, as TensorFlow finds it; a slot's
    is its variable's, with the path of the optimiser and the slot's name.
    """
    paths = {id(root): ""}
    found = [root]  # also keeps them alive, so that no id is used twice
    queue = collections.deque(found)
    while queue:
        node = queue.popleft()
        for name, child in tf.train.TrackableView.children(node).items():
            if id(child) not in paths:
                paths[id(child)] = f"{paths[id(node)]}/{_escape(name)}".lstrip("/")
                found.append(child)
                queue.append(child)
    variables = [x for x in found if isinstance(x, tf.Variable)]
    described = {paths[id(v)] + _VALUE: _type(v) for v in variables}
    for optimizer in found:
        if not hasattr(type(optimizer), "get_slot_names"):
            continue
        for name in optimizer.get_slot_names():
            for variable in variables:
                try:
                    slot = optimizer.get_slot(variable, name)
                except (AttributeError, KeyError):  # It is not trained.
                    continue
                key = f"{paths[id(variable)]}{_SLOT}{paths[id(optimizer)]}/{_escape(name)}{_VALUE}"
                described[key] = _type(slot)
    return described


def written(prefix: str) -> dict[str, str]:
    """Dtypes and shapes as `describe` gives them, of the variables in TensorFlow's files."""
    reader = tf.train.load_checkpoint(prefix)
    dtypes = reader.get_variable_to_dtype_map()
    return {key: f"{dtypes[key].name}{list(shape)}"
            for key, shape in reader.get_variable_to_shape_map().items() if key.endswith(_VALUE)}


def without_slots(variables: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """What `describe` gives, restricted to the variables of the named parts, without slots."""
    return {key: kind for key, kind in variables.items()
            if _SLOT not in key and _part(key, names) is not None}


def differences(saved: Mapping[str, str], saved_parts: Iterable[str],
                mine: Mapping[str, str], my_parts: Iterable[str]) -> str:
    """Says in which variables a checkpoint and a model differ; "" if in none.

    Whole parts are named once, and slots only where their variables agree.

    Args:
      saved: the checkpoint's variables, as `describe` gives them.
      saved_parts: names of its parts.
      mine: the model's variables.
      my_parts: names of its parts.
    """
    unlike = {key for key in {*saved, *mine} if saved.get(key) != mine.get(key)}
    found = []
    for part in sorted({*saved_parts} ^ {*my_parts}):
        of_part = {key for key in unlike if _part(key, [part]) is not None}
        if of_part:
            found.append(f"{part} is there but this model has none" if part in saved_parts
                         else f"{part} of this model is not there")
            unlike -= of_part
    for key in sorted(unlike, key=lambda key: (_SLOT in key, key)):
        if _SLOT in key and key.partition(_SLOT)[0] + _VALUE in unlike:
            continue
        name = _readable(key)
        if key not in mine:
            found.append(f"{name} is there but this model has none")
        elif key not in saved:
            found.append(f"{name} of this model is not there")
        else:
            found.append(f"{name} is {saved[key]} there and {mine[key]} in this model")
    more = len(found) - _SHOWN
    return "; ".join(found[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _type(variable: tf.Variable) -> str:
    return f"{variable.dtype.name}{variable.shape.as_list()}"


def _escape(name: str) -> str:
    """Writes a name as TensorFlow does, which keeps / for its paths."""
    return name.replace(".", "..").replace("/", ".S")


def _readable(key: str) -> str:
    """A key in the words of the user."""
    path, _, slot = key.removesuffix(_VALUE).partition(_SLOT)
    path = path.replace(".S", "/").replace("..", ".")
    return f"{slot} of {path}" if slot else path


def _part(key: str, names: Iterable[str]) -> str | None:
    """The part, of `names`, that holds the variable."""
    path = _readable(key.partition(_SLOT)[0].removesuffix(_VALUE))
    return next((x for x in names if path == x or path.startswith(f"{x}/")), None)
