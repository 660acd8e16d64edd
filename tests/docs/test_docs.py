"""The documentation holds: commands, gin, snippets, links and names of README.md and docs/*.md.

Every command is looked at as far as it goes without work, by its real flags and the real gin
(`dry.py`), and is run in full by the test that `RUN_BY` names, unless the page says what it needs
that is not here. Python is run here; so is what tests/docs/test_tasks.py takes from docs/tasks.md.
"""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

from tests.docs import reading
from tests.docs.reading import ROOT

# The test that runs a program in full, on small inputs.
RUN_BY = {
    "tools.convert_videos": "tests/tools/test_convert_videos.py",
    "tools.import_splits": "tests/tools/test_import_splits.py",
    "tools.inspect_records": "tests/tools/test_inspect_records.py",
    "tools.make_folds": "tests/tools/test_make_folds.py",
    "tools.make_videos": "tests/tools/test_make_videos.py",
    "elo_tf.bin.search": "tests/test_end_to_end.py",
    "elo_tf.bin.pretrain": "tests/test_end_to_end.py",
    "elo_tf.bin.evaluate": "tests/test_end_to_end.py",
    "elo_tf.bin.export": "tests/test_end_to_end.py",
    "elo_tf.bin.report": "tests/test_end_to_end.py",
    "elo_tf.bin.initial": "tests/test_rows.py",
    "elo_tf.bin.study": "tests/bin/test_study.py",
    "elo_tf.bin.tables": "tests/bin/test_tables.py",
    "elo_tf.bin.serve": "tests/serving/test_serve.py",
    "elo_tf.bin.embed": "tests/serving/test_embed.py",
    "elo_tf.bin.find": "tests/serving/test_find.py",
    "benchmarks.plan": "tests/benchmarks/test_plan.py",
    "benchmarks.plan_rows": "tests/benchmarks/test_plan_rows.py",
}
# What a page cannot bring along: targets of make that take minutes and more, or make the checkout.
BY_HAND = {
    "demo": "minutes; the same programs as the five commands",
    "study": "an hour", "tables": "an hour", "real": "an hour", "soak": "an hour",
    "setup": "the installation", "test": "this", "lint": "", "lock": "", "clean": "", "help": "",
}
# Programs of others, of which only the name is checked here.
OTHERS = {"apt-get", "bazel", "curl", "docker", "git", "pip", "ray", "saved_model_cli",
          "tensorboard"}
FOREIGN_FLAGS = {"override_repository", "help", "rm", "enable_batching"}
FILE = re.compile(r"\.(gin|py|md|json|jsonl|csv|txt|html|png|gz|in|pb|toml)$")
PATHS = re.compile(r"(?:docs/[\w./-]+|[\w/*.-]+/[\w*.-]+\.(?:py|gin|png|txt))")
MADE = {"search/best_loss.gin", "my.gin"}  # by a command of the same page
# The check itself is checked by these, each of which has a fault.
FAULTS = {
    "commands": [
        ("fault 1", "elo_tf.bin.search", ["--data=x", "--run_dir=y", "--no_such_flag=1"]),
        ("fault 2", "elo_tf.bin.search", [
            "--data=x", "--run_dir=y", "--gin_bindings=Proxy.stepps = 1"]),
        ("fault 3", "elo_tf.bin.pretrain", ["--data=x", "--run_dir=y"]),  # without weights
        ("fault 4", "elo_tf.bin.pretrain", ["--data=x", "--run_dir=y", "--gin_file=none.gin"]),
        ("fault 5", "tools.make_videos", ["--output=x", "--no_such_flag", "..."]),
        ("fault 6", "tools.convert_videos", ["--input=x", "--output=y", "--flow=fast"])],
    "gin": [("fault 7", "ClipSpec.fames = 3"), ("fault 8", "ClipSpec.frames = 'three'")],
    "names": [("fault 9", "Proxy.stepps"), ("fault 10", "PretrainingModl.xla")],
}
BLOCKS = [block for page in reading.PAGES for block in reading.blocks(page)]
SPANS = [(f"{page.name}:{line}", text) for page in reading.PAGES
         for line, text in reading.spans(page)]
MY_GIN = (ROOT / "gin" / "demo.gin").read_text() + """
ClipSpec.size = 16
video_encoder.width = 0.0625
"""


def ids(block):
    return block.place


def commands():
    """(place, command) of all blocks, and of inline code that is a whole command."""
    found = [(block.place, x) for block in BLOCKS for x in block.commands
             if reading.PROGRAM.match(x)]
    return found + [(place, text) for place, text in SPANS
                    if re.match(r"(python -m|make) \S", text)]


def behind_make(target, arguments):
    """The project's own commands that a target of the Makefile would start."""
    # Below `make test`, make would print which folder it is in.
    alone = {name: x for name, x in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "-n", target, "VIDEOS=videos", *arguments], cwd=ROOT, capture_output=True,
        text=True, check=False, timeout=60, env=alone)
    assert done.returncode == 0, done.stderr
    text = re.sub(r"\\\n\s*", "", done.stdout)
    return re.findall(r"\S*python -m (?:elo_tf|tools)\.[^\n]*", text)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder as a reader's checkout is: the project's files, and what the pages make."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("elo_tf", "tools", "benchmarks", "gin", "docs", "Makefile"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "my.gin").write_text(MY_GIN)
    (folder / "search").mkdir()
    (folder / "search" / "best_loss.gin").write_text(
        "pretrain.loss_weights = {'rgb/shuffle': 0.5, 'distill/flow/block2': 1.0}\n")
    for block in BLOCKS:
        if block.file:
            (folder / block.file).write_text(block.text)
    return folder


def run(place, module, *arguments):
    environment = {**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=place, text=True,
                          env=environment, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_the_pages_are_read_as_they_are_written(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Text `--a`\n\n    # first\n    python -m a.b --c=1 \\\n"
                    "        --d '{\n    }'  # why\n\n* item:\n\n      A.b = 1\n\n"
                    "<!-- needs: a cluster -->\n\n```sh\nray start\n```\n\n"
                    "<!-- file: x.py -->\n\n    import os\n\n    def f():\n        return os\n\n"
                    "    L = sum over {m}\n")
    found = reading.blocks(page)
    assert [(x.language, x.needs, x.file) for x in found] == [
        ("shell", "", ""), ("gin", "", ""), ("shell", "a cluster", ""), ("python", "", "x.py")]
    assert found[0].commands == ["python -m a.b --c=1 --d '{\n}'"] and found[1].text == "A.b = 1\n"
    assert found[3].text.startswith("import os\n\ndef f():\n    return os\n")
    assert reading.spans(page) == [(1, "--a")]
    assert len(BLOCKS) > 25 and len(SPANS) > 300


def test_every_command_and_binding_is_taken_by_its_program(place):
    asked, wrong = {kind: list(faults) for kind, faults in FAULTS.items()}, []
    for where, command in commands():
        program, arguments = reading.words(command)
        if program == "make":
            targets = [x for x in arguments if "=" not in x]
            given = [x for x in arguments if "=" in x]
            makefile = (ROOT / "Makefile").read_text()
            wrong += [(where, f"no {x} in the Makefile") for x in given
                      if f"$({x.split('=')[0]})" not in makefile]
            for own in [y for x in targets for y in behind_make(x, given)]:
                asked["commands"].append((where, *reading.words(own)))
        elif re.match(r"(elo_tf|tools|benchmarks)\.", program):
            # Without arguments it is only mentioned.
            asked["commands"].append((where, program, arguments or ["..."]))
        elif program.startswith("elo-"):
            asked["commands"].append((where, installed(program), arguments or ["..."]))
        elif program != "." and pathlib.Path(program).name not in OTHERS | {"python"}:
            wrong.append((where, f"{program} is not known"))
    asked["gin"] += [(x.place, x.text) for x in BLOCKS if x.language == "gin" and not x.file]
    for where, text in SPANS:
        if re.match(r"[\w/]+\.\w+ = .", text) and "..." not in text:
            asked["gin"].append((where, text))
        elif re.fullmatch(r"[A-Za-z_/]\w*\.[a-z_]\w*", text) and not FILE.search(text):
            asked["names"].append((where, text))
    assert len(asked["commands"]) > 25 and len(asked["gin"]) > 15 and len(asked["names"]) > 200
    environment = {**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, str(ROOT / "tests/docs/dry.py")], cwd=place, text=True,
                          env=environment, input=json.dumps(asked), capture_output=True,
                          check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert {where for where, _ in found if where.startswith("fault")} == {
        where for faults in FAULTS.values() for where, *_ in faults}
    wrong += [tuple(x) for x in found if not x[0].startswith("fault")]
    assert not wrong, "\n".join(f"{where}: {what}" for where, what in wrong)


def installed(program):
    """The module behind a command that an installation has, such as elo-search."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert program in scripts, f"an installation has no {program}"
    name = program.removeprefix("elo-").replace("-", "_")
    return next(module for module in (f"elo_tf.bin.{name}", f"tools.{name}")
                if (ROOT / f"{module.replace('.', '/')}.py").is_file())


def test_every_command_of_a_block_is_run_by_a_test_or_says_what_it_needs():
    missing = []
    for block in BLOCKS:
        if block.run_by:
            test = (ROOT / block.run_by).read_text()
            programs = [reading.words(x)[0].rpartition(".")[2] for x in block.commands]
            assert block.page in test or (programs and all(x in test for x in programs)), (
                f"{block.place}: {block.run_by} runs nothing of it")
        for command in block.commands if not (block.needs or block.run_by) else ():
            if not reading.PROGRAM.match(command):
                continue
            program, arguments = reading.words(command)
            if program == "make":
                missing += [(block.place, f"make {x}") for x in arguments
                            if "=" not in x and x not in BY_HAND]
            elif program.startswith("elo-"):
                missing += [(block.place, program)] * (installed(program) not in RUN_BY)
            elif program not in RUN_BY and program != ".":
                missing.append((block.place, program))
    assert not missing, (
        f"{missing}: name the test that runs it in RUN_BY, or say in the page, before the block, "
        "<!-- needs: ... --> or <!-- run by: tests/... -->")


@pytest.mark.parametrize("module", RUN_BY)
def test_the_test_that_is_to_run_a_program_names_it(module):
    used = any(module in text for text in [x.text for x in BLOCKS] + [x for _, x in SPANS])
    path = ROOT / RUN_BY[module]
    if not used and not path.exists():
        pytest.skip(f"{module} is in no page")
    name = module.rpartition(".")[2]
    assert re.search(rf"\b{name}\b", path.read_text()), f"{path} does not run {module}"


def test_flags_and_installed_commands_in_the_text_exist():
    known = set(FOREIGN_FLAGS)
    for path in [x for folder in ("elo_tf", "tools", "benchmarks")
                 for x in (ROOT / folder).rglob("*.py")]:
        known.update(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", path.read_text()))
    flags = [(where, x) for where, text in SPANS if text.startswith("--")
             for x in re.findall(r"(?:^|\s)--(\w+)", text)]
    for _, text in SPANS:
        if re.fullmatch(r"elo-[\w-]+", text):
            assert installed(text)
    assert len(flags) > 20
    assert not [(where, x) for where, x in flags
                if x not in known and x.removeprefix("no") not in known]


def prose(page):
    """A page without its blocks of code."""
    lines = page.read_text().splitlines()
    return "\n".join(x for x in lines if not x.startswith("    "))


def test_links_and_paths_lead_somewhere():
    wrong = []
    for page in reading.PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            path, _, anchor = target.partition("#")
            if "://" in path:
                continue
            file = (page.parent / path).resolve() if path else page
            if not file.exists() or (anchor and anchor not in reading.anchors(file)):
                wrong.append((page.name, target))
    homes = [ROOT / x for x in ("", "elo_tf", "gin", "tests", "docs")]
    for where, text in SPANS:
        if PATHS.fullmatch(text) and text not in MADE and not any(
                any(home.glob(text)) if "*" in text else (home / text).exists()
                for home in homes):
            wrong.append((where, text))
    assert not wrong


def test_shell_blocks_are_shell_and_text_hides_no_code():
    for block in BLOCKS:
        if block.language == "shell" and "..." not in block.text and not re.search(
                r"^\w+[,(]", block.text, re.M):
            done = subprocess.run(["bash", "-n"], input=block.text, text=True, check=False,
                                  capture_output=True, timeout=20)
            assert done.returncode == 0, f"{block.place}: {done.stderr}"
        if block.language == "text":
            assert not re.search(r"python -m|^import |^from \w+ import|^def ", block.text, re.M), (
                f"{block.place}: code that is not recognised; mark it by a fence")


# --- Python ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(place):
    """A SavedModel at export/elo/1, of an untrained encoder, by README's own command."""
    export = next(x for block in BLOCKS for x in block.commands
                  if block.page == "README.md" and re.search(r"export +--run_dir", x))
    run(place, "elo_tf.bin.initial", "--run_dir=pretrain", "--gin_file=my.gin")
    if export.startswith("elo-"):
        program, arguments = reading.words(export)
        run(place, installed(program), *arguments)
    else:
        run(place, *[reading.words(export)[0], *reading.words(export)[1]])
    assert (place / "export" / "elo" / "1" / "saved_model.pb").is_file()
    return place


def given(text):
    """Names that a snippet takes for the reader's own."""
    import numpy as np

    names = {"frames": np.random.default_rng(1).integers(0, 256, (2, 5, 20, 30, 3), np.uint8)}
    if "video_input" in text:
        from official.vision.configs import video_classification
        from official.vision.dataloaders import video_input

        example = mediasequence_example()
        config = video_classification.DataConfig(
            feature_shape=(4, 16, 16, 3), min_image_size=16, num_classes=3, dtype="float32")
        names |= {"video_input": video_input, "record": example, "config": config}
    return names


def mediasequence_example():
    import tensorflow as tf

    example = tf.train.SequenceExample()
    example.context.feature["clip/label/index"].int64_list.value.append(1)
    for _ in range(6):
        frame = example.feature_lists.feature_list["image/encoded"].feature.add()
        frame.bytes_list.value.append(tf.io.encode_jpeg(tf.zeros([20, 24, 3], tf.uint8)).numpy())
    return example.SerializeToString()


@pytest.mark.parametrize(
    "block", [x for x in BLOCKS if x.language == "python" and not (x.needs or x.run_by or x.file)],
    ids=ids)
def test_a_python_snippet_runs(block, place, request, monkeypatch):
    tree = ast.parse(block.text)
    if any(isinstance(x, ast.Constant) and x.value is Ellipsis for x in ast.walk(tree)) or (
            re.search(r"\"\"\".*\.\.\.\"\"\"", block.text)):
        return  # A fragment, which the page shows to be one: it parses.
    if "export/" in block.text:
        request.getfixturevalue("served")
    monkeypatch.chdir(place)
    names = given(block.text)
    last = tree.body[-1]
    try:
        exec(compile(block.text, block.place, "exec"), names)
    except Exception as error:
        raise AssertionError(
            f"{block.place}: {error!r}: make it complete, or say before it <!-- needs: ... --> or "
            "<!-- run by: tests/... -->") from error
    if isinstance(last, ast.Expr):  # What it shows is worth something.
        assert eval(ast.unparse(last.value), names) is not None
