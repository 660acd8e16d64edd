"""What gin leaves unsaid: near misses of unknown names, values of a wrong type, idle macros."""

import difflib
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence

import gin

from elo_tf.errors import UserError

# gin-config has no public list of what is registered, or of what is bound.
_REGISTRY = gin.config._REGISTRY
_BINDINGS = gin.config._CONFIG


def explain(error: Exception, source: str) -> str:
    """One line for what gin says, with the names the user may have meant.

    Args:
      error: what gin raised.
      source: the file or binding that was read.
    """
    message, *rest = str(error).strip().splitlines()
    place = re.search(r'In file "([^"]+)", line (\d+)', " ".join(rest))
    where = f"{place[1]}, line {place[2]}" if place else source
    unknown = re.search(r"No configurable matching (?:reference )?'@?([\w./]+)", message)
    if unknown:
        return f"{where}: there is no {unknown[1]!r}{near(unknown[1], names())}"
    parameter = re.search(r"'([\w./]+)' doesn't have a parameter named '(\w+)'", message)
    if parameter:
        owner, name = parameter.groups()
        return f"{where}: {owner} has no parameter {name!r}{near(name, parameters(owner))}"
    own = re.search(r"'([\w./]+)' has denylisted kwarg '(\w+)'", message)
    if own:
        return f"{where}: {own[1]}.{own[2]} is set by the program, not by gin"
    macro = re.search(r"No bindings specified for '(.+)/gin.macro'", message)
    if macro:
        return f"%{macro[1]} is used but not defined; add a line '{macro[1]} = ...'"
    if isinstance(error, SyntaxError):
        line = f", line {error.lineno}" if where == source and error.lineno else ""
        return f"{where}{line}: not gin's syntax: {error.msg.splitlines()[0].rstrip('.')}"
    if error.args and isinstance(error.args[0], str) and "EOF in" in error.args[0]:
        return f"{where}: not gin's syntax: a bracket or a text is not closed"
    if message.startswith("Unable to open file: "):
        included = message.removeprefix("Unable to open file: ").split(". Searched", 1)[0]
        return f"{where}: there is no file {included} to include"
    return f"{where}: {message}"


def near(name: str, known: list[str]) -> str:
    """The known names that look like `name`."""
    lower = {other.lower(): other for other in known}
    matches = difflib.get_close_matches(re.split(r"[./]", name)[-1].lower(), lower, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(lower[x] for x in matches)}?" if matches else ""


def names() -> list[str]:
    """What gin can configure, by short name."""
    return sorted({selector.rsplit(".", 1)[-1] for selector, _ in _REGISTRY.items()})


def parameters(selector: str) -> list[str]:
    """The parameters of a configurable, by whatever name gin finds it."""
    found = _REGISTRY.get_match(selector.rsplit("/", 1)[-1])
    return list(inspect.signature(found.wrapped).parameters) if found else []


def configurable(selector: str) -> Callable:
    """The class or function behind a selector, as it was written."""
    return _REGISTRY[selector].wrapped


def bindings() -> list[tuple[tuple[str, str], dict[str, typing.Any]]]:
    """All that is bound: ((scope, selector), {parameter: value}); macros too."""
    return [(key, dict(bound)) for key, bound in _BINDINGS.items()]


def is_bound(binding: str) -> bool:
    """Whether `Name.parameter` has a value, in any scope."""
    name, parameter = binding.rsplit(".", 1)
    return any(parameter in bound and selector.rsplit(".", 1)[-1] == name
               for (_, selector), bound in bindings())


def check_values() -> None:
    """Refuses values that the annotated type of their parameter rules out, and idle macros.

    Raises:
      UserError: naming the first such binding.
    """
    for (_, selector), bound in bindings():
        name = selector.rsplit(".", 1)[-1]
        if selector == "gin.macro":
            continue
        hints = _hints(configurable(selector))
        for parameter, value in bound.items():
            wanted = hints.get(parameter, typing.Any)
            if not _fits(value, wanted):
                raise UserError(f"{name}.{parameter} is {value!r}; it must be {_words(wanted)}")
    text = gin.config_str()
    for (macro, selector), _ in bindings():
        if selector == "gin.macro" and not re.search(rf"%{re.escape(macro)}\b", text):
            owners = [f"{x}.{macro}" for x in names() if macro in parameters(x)]
            raise UserError(
                f"'{macro} = ...' names no owner, and nothing uses it as %{macro}"
                + (f"; did you mean {' or '.join(owners[:4])}?" if owners else ""))


def _hints(configurable: Callable) -> dict[str, typing.Any]:
    function = configurable.__init__ if inspect.isclass(configurable) else configurable
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # A configurable of another library, with its own ideas.
        return {}


def _fits(value: typing.Any, wanted: typing.Any) -> bool:
    """Whether a value may be of a type, as far as the type is simple."""
    if isinstance(value, gin.config.ConfigurableReference):
        return True
    if typing.get_origin(wanted) in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(wanted))
    if typing.get_origin(wanted) is typing.Literal:
        return value in typing.get_args(wanted)
    if wanted in (int, float) and isinstance(value, bool):
        return False
    if wanted is float:
        return isinstance(value, (int, float))
    if wanted in (int, str, bool, types.NoneType):
        return isinstance(value, wanted)
    if typing.get_origin(wanted) in (tuple, Sequence):
        return isinstance(value, (tuple, list))
    if typing.get_origin(wanted) is Mapping:
        return isinstance(value, dict)
    return True


def _words(wanted: typing.Any) -> str:
    """A type, for the user."""
    simple = {int: "a whole number", float: "a number", str: "a text in quotes",
              bool: "True or False", types.NoneType: "None"}
    if typing.get_origin(wanted) in (typing.Union, types.UnionType):
        return " or ".join(_words(option) for option in typing.get_args(wanted))
    if typing.get_origin(wanted) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(wanted)))
    if typing.get_origin(wanted) is Mapping:
        return "a dictionary in braces"
    return simple.get(wanted, "a list in brackets")
