"""docs/choices.md: every value that it states is the one in effect, and none is left out."""

import ast
import inspect
import re

import gin
import pytest

from elo_tf.bin import configuration, gin_checks
from tests.docs import reading
from tests.docs.reading import ROOT

PAGE = ROOT / "docs" / "choices.md"
NAME = re.compile(r"`(\w+\.\w+)`")
# Of what is drawn and reported, not of the method.
NOT_CHOICES = re.compile(r"(cluster_clips|write_report|tables)\.")
# References, which the page says in words, and what a round is.
IN_WORDS = {"LossSpace.families", "Transfer.partners", "Contrast.partners", "Align.partners",
            "search.generations"}
HANDED_ON = {"run_search": "search"}  # One gives its parameters to the other.


def stated():
    """(line, names, values) of the rows that have both."""
    found = []
    for line, cells in reading.rows(PAGE):
        values = cells.get("ours", cells.get("the paper's"))
        names = NAME.findall(cells.get("gin parameter", ""))
        if names and values is not None:
            found.append((line, names, re.findall(r"`([^`]+)`", values)))
    return found


def current(name):
    """The value that a run starts from: what is bound, or the code's default."""
    owner, parameter = name.split(".")
    for (_, selector), bound in gin_checks.bindings():
        if selector.rsplit(".", 1)[-1] == owner and parameter in bound:
            return bound[parameter]
    found = gin_checks._REGISTRY.get_match(owner)
    assert found is not None, f"gin knows no {owner}"
    function = found.wrapped
    return inspect.signature(function).parameters[parameter].default


@pytest.fixture(autouse=True)
def defaults(no_gin_bindings):
    configuration.parse([], [])


def test_every_value_is_the_one_in_effect():
    rows = stated()
    compared = 0
    for line, names, values in rows:
        if set(names) <= IN_WORDS:
            continue
        assert len(values) == len(names), f"choices.md:{line}: {values} for {names}"
        for name, value in zip(names, values, strict=True):
            now = current(name)
            assert now == ast.literal_eval(value) and isinstance(
                now, type(ast.literal_eval(value))), f"choices.md:{line}: {name} is {now!r}"
            compared += 1
    assert compared > 150


def test_nothing_of_the_defaults_is_left_out():
    named = set(NAME.findall(PAGE.read_text()))
    missing = []
    for (_, selector), bound in gin_checks.bindings():
        owner = selector.rsplit(".", 1)[-1]
        for parameter, value in bound.items():
            if isinstance(value, gin.config.ConfigurableReference) or callable(value):
                continue
            name = f"{owner}.{parameter}"
            if name not in named and not NOT_CHOICES.match(name) and not holds_references(value):
                missing.append(name)
    assert not missing, f"say in docs/choices.md what these are: {', '.join(missing)}"


def holds_references(value):
    return isinstance(value, (tuple, list)) and any(
        isinstance(x, gin.config.ConfigurableReference) for x in value)


def test_nothing_that_the_code_calls_our_choice_is_left_out():
    """Parameters of what gin configures whose own description says so."""
    named = set(NAME.findall(PAGE.read_text()))
    missing, seen = [], 0
    for selector, found in gin_checks._REGISTRY.items():
        if not found.wrapped.__module__.startswith("elo_tf."):
            continue
        owner = selector.rsplit(".", 1)[-1]
        function = found.wrapped.__init__ if inspect.isclass(found.wrapped) else found.wrapped
        known = inspect.signature(found.wrapped).parameters
        for text in {inspect.getdoc(found.wrapped) or "", inspect.getdoc(function) or ""}:
            for entry in re.split(r"\n(?=\s*\w+: )", text):
                parameter = re.match(r"\s*(\w+): ", entry)
                if parameter and parameter[1] in known and "our choice" in entry.lower():
                    seen += 1
                    names = {f"{x}.{parameter[1]}" for x in (owner, HANDED_ON.get(owner, owner))}
                    if not names & named:
                        missing.append(f"{owner}.{parameter[1]}")
    assert seen > 25
    assert not missing, f"say in docs/choices.md what these are: {', '.join(sorted(missing))}"
