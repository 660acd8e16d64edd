"""docs/troubleshooting.md quotes what the programs really say."""

import ast
import re

from tests.docs import reading
from tests.docs.reading import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
# What other programs say.
OTHERS = ("cannot import name 'runtime_version'", "Key: image/encoded ")


def messages():
    """All texts of the code, with a placeholder for what is filled in."""
    found = [(ROOT / "Makefile").read_text()]
    for folder in ("elo_tf", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
                elif isinstance(node, ast.JoinedStr):
                    found.append("".join(
                        x.value if isinstance(x, ast.Constant) else "\0" for x in node.values))
    assert any("training on %d %s" in x for x in found)
    found.append("training on 1 CPU")  # of that one
    return found


def test_every_quoted_message_is_one_that_the_code_has():
    known = messages()
    quoted, missing = 0, []
    for line, cells in reading.rows(PAGE):
        for text in re.findall(r"`([^`]+)`", cells["it says, or you see"]):
            if text.startswith(OTHERS) or " " not in text:
                continue
            quoted += 1
            parts = [x for x in re.split(r"\.\.\.|%|\d+", text.removeprefix("error: "))
                     if len(x.strip(" '")) > 2]
            pattern = ".*".join(re.escape(x.strip("'")) for x in parts)
            if not any(re.search(pattern, x, re.S) for x in known):
                missing.append((line, text))
    assert quoted > 25
    assert not missing
