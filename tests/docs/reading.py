"""Reads the project's Markdown: blocks of code, inline code, links and headings.

Blocks are indented by four or fenced. What a block is, its fence says, or else it shows: commands,
gin, Python, or text. A comment before a block may say more, unseen in the page:

    <!-- file: pace.py -->             the block is this file, which later commands use
    <!-- needs: a cluster -->          it cannot run here; it is checked, not run
    <!-- run by: tests/test_x.py -->   that test runs it
"""

import ast
import dataclasses
import pathlib
import re
import shlex
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL, GIN, PYTHON, TEXT = "shell", "gin", "python", "text"
FENCES = {"sh": SHELL, "bash": SHELL, "shell": SHELL, "console": SHELL, "python": PYTHON,
          "py": PYTHON, "gin": GIN}
PROGRAM = re.compile(
    r"(\w+=\S+ )*(python|make|pip|docker|curl|tensorboard|saved_model_cli|bazel|elo-[\w-]+|apt-get|"
    r"git|ray|\.|\.venv/bin/\w+)( |$)")
BINDING = re.compile(r"(\w+/)?\w+\.\w+ =")
MARK = re.compile(r"<!-- (file|needs|run by): (.+?) -->")


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code: where it is, what it is, its text, and the comment before it."""

    page: str
    line: int
    language: str
    text: str
    file: str = ""
    needs: str = ""
    run_by: str = ""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Its commands, each in one line, without comments."""
        if self.language != SHELL:
            return []
        found = [""]
        for line in re.sub(r"\\\n\s*", "", self.text).splitlines():
            found[-1] += line
            try:
                shlex.split(found[-1], comments=True)
            except ValueError:  # A quote goes on in the next line.
                found[-1] += "\n"
            else:
                found.append("")
        return [x.strip() for line in found if (x := re.sub(r"\s+# .*|^#.*", "", line)).strip()]


def blocks(page: pathlib.Path) -> list[Block]:
    """All blocks of a page."""
    lines = page.read_text(encoding="utf-8").splitlines() + [""]
    found, mark, i = [], None, 0
    while i < len(lines):
        first, language = i, ""
        fence = re.match(r"\s*```(\w*)", lines[i])
        if fence:
            language = FENCES.get(fence[1], TEXT if fence[1] else "")
            i += 1
            while not lines[i].strip().startswith("```"):
                i += 1
            text = "\n".join(lines[first + 1:i])
        elif lines[i].startswith("    ") and (
                first == 0 or not lines[first - 1].strip() or MARK.match(lines[first - 1])):
            while i + 1 < len(lines) and (lines[i + 1].startswith("    ") or (
                    not lines[i + 1].strip() and any(
                        x.startswith("    ") for x in lines[i + 2:i + 4] if x.strip())
                    and next((x for x in lines[i + 1:] if x.strip()), "").startswith("    "))):
                i += 1
            text = "\n".join(lines[first:i + 1])
        else:
            if lines[i].strip():
                mark = MARK.fullmatch(lines[i].strip())
            i += 1
            continue
        i += 1
        text = textwrap.dedent(text).rstrip() + "\n"
        said = {mark[1].replace(" ", "_"): mark[2]} if mark else {}
        suffix = pathlib.Path(said.get("file", "")).suffix
        language = language or {".py": PYTHON, ".gin": GIN}.get(suffix) or kind(text)
        found.append(Block(page.name, first + 1, language, text, **said))
        mark = None
    return found


def kind(text: str) -> str:
    """What an indented block is."""
    lines = [x for x in text.splitlines() if x.strip()]
    if any(PROGRAM.match(x) for x in lines):
        return SHELL
    if any(BINDING.match(x) for x in lines):
        return GIN
    try:
        ast.parse(text)
    except SyntaxError:
        return TEXT
    return PYTHON


def spans(page: pathlib.Path) -> list[tuple[int, str]]:
    """Inline code outside blocks: (line, text)."""
    taken = set()
    for block in blocks(page):
        height = block.text.count("\n")
        taken.update(range(block.line, block.line + height + 2))
    lines = page.read_text(encoding="utf-8").splitlines()
    kept = ["" if i in taken and x.startswith(("    ", "```")) else x
            for i, x in enumerate(lines, start=1)]
    text = "\n".join(kept)
    return [(text.count("\n", 0, m.start()) + 1, " ".join(m[1].split()))
            for m in re.finditer(r"(?<!`)`([^`]+)`(?!`)", text)]


def rows(page: pathlib.Path) -> list[tuple[int, dict[str, str]]]:
    """All table rows: (line, {heading of the column: cell})."""
    found, heads = [], []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        cells = [x.strip() for x in re.split(r"(?<!\\)\|", line)[1:-1]] if line[:1] == "|" else []
        if cells and heads and not re.fullmatch(r"[|\-: ]+", line):
            found.append((number, dict(zip(heads, cells, strict=True))))
        elif not heads or not cells:
            heads = cells
    return found


def anchors(page: pathlib.Path) -> set[str]:
    """What a link into the page may name: its headings, as GitHub spells them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", x.lower()).replace(" ", "-") for x in heads}


def words(command: str) -> tuple[str, list[str]]:
    """(program or module, arguments) of a command, without what a pipe or a redirection adds."""
    parts = shlex.split(command)
    while parts and re.fullmatch(r"\w+=.*", parts[0]):
        del parts[0]
    for i, part in enumerate(parts):
        if part in ("|", ">", "&", "&&", ";", "2>&1"):
            del parts[i:]
            break
    if pathlib.Path(parts[0]).name.startswith("python") and parts[1:2] == ["-m"]:
        return parts[2], parts[3:]
    return parts[0], parts[1:]
