"""What the documents name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_there_are_documents():
    assert ROOT / "docs" / "losses.md" in DOCUMENTS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files(document):
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_tests_that_are_named_exist(document):
    for file, name in re.findall(r"`(test_\w+\.py)::(test_\w+)`", document.read_text()):
        (path,) = (ROOT / "tests").rglob(file)
        assert f"def {name}(" in path.read_text(), f"{document.name} names {file}::{name}"


def test_every_loss_is_in_the_table():
    import maxsup

    text = (ROOT / "docs" / "losses.md").read_text()
    for name in [name for name in maxsup.__all__ if name.endswith("Loss")]:
        assert f"`{name}`" in text
    for name in maxsup.functional.__all__:
        assert name == "LabelSmoothingParts" or f"`{name}`" in text
