"""The code in the documents runs: Python from top to bottom, and commands as far as their options are read."""

import re
import shlex
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(page for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md"] if page.name != "integrations.md")
COMMANDS = [
    (page, command)
    for page in PAGES
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    for command in block.replace("\\\n", " ").splitlines()
    if command.startswith("maxsup ")
]


def python_blocks(page):
    text = page.read_text()
    for block in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if not block[1].startswith(">>>"):  # the README's examples are doctests
            yield "\n" * text.count("\n", 0, block.start(1)) + block[1]  # so that a traceback names the page's line


@pytest.mark.parametrize("page", [page for page in PAGES if list(python_blocks(page))], ids=lambda page: page.stem)
def test_python_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for block in python_blocks(page):
        exec(compile(block, str(page), "exec"), namespace)


def test_there_are_pages_with_code_and_with_commands():
    assert {"start", "migration", "mathematics", "networks", "distillation"} <= {
        page.stem for page in PAGES if list(python_blocks(page))
    }
    assert {"start", "recipes", "networks", "distillation"} <= {page.stem for page, _ in COMMANDS}


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: getattr(value, "stem", value))
def test_commands_have_the_options_that_are_given(page, line, monkeypatch):
    from maxsup import cli
    from maxsup.lab import options, parsing
    from maxsup.lab.commands import distillation, finished
    from maxsup.lab.data import DATA_SETS
    from maxsup.lab.segmentation.sources import DATA_SETS as LABELLED
    from maxsup.lab.studies import STUDIES, command

    name, *arguments = [word for word in shlex.split(line, comments=True)[1:] if word != "…"]
    assert name in cli.COMMANDS
    parsed = None
    if name in ("train", "compare", "tune"):
        kind = {"train": options.Train, "compare": options.Compare, "tune": options.Tune}[name]
        if "--help" in arguments:
            with pytest.raises(SystemExit, match="0"):
                parsing.parse_with_recipe(kind, name, arguments)
        else:
            parsed = parsing.parse_with_recipe(kind, name, arguments)
    elif name == "distill":
        # Without --student the recipe is that of teachers that are not there.
        named = [] if "--student" in arguments else ["--student", "digits-convnet"]
        _, parsed = distillation.parse_distill([*arguments, *named])
    elif name == "segment":
        assert finished.parse_segment(arguments).recipe.data in LABELLED
    elif name == "study" and arguments[0] != "list":
        command.parse_study(STUDIES[arguments[0]](), arguments[1:])
    elif name == "study":
        parsing.parse(options.StudyList, name, arguments[1:])
    elif name == "data":
        parsing.parse({"make": options.DataMake, "show": options.DataShow}[arguments[0]], name, arguments[1:])
    elif name != "list":
        parsed = parsing.parse(getattr(options, name.title()), name, arguments)
    data = getattr(getattr(getattr(parsed, "recipe", None), "data", None), "name", getattr(parsed, "data", None))
    assert data is None or data in DATA_SETS
