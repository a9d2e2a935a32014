"""The numbers of a result in the documents are those of its record."""

import itertools
import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
RECORD = "fashion-mnist-5k-10-seeds"
METHODS = ("cross-entropy", "label-smoothing", "max-sup")
ROWS = {
    "accuracy %": ("test.accuracy", 100),
    "NLL": ("test.nll", 1),
    "confidence when wrong": ("test.confidence_wrong", 1),
    "ECE": ("test.ece", 1),
    "ECE after temperature scaling": ("test.ece_scaled", 1),
    "AURC, sorted by probability": ("test.aurc", 1),
    "AURC, sorted by the normalised logit": ("test.aurc_logit_norm", 1),
    "d_within": ("test.d_within", 1),
    "R²": ("test.r_squared", 1),
    "linear probe on digits %": ("probe.digits.linear", 100),
    "20 nearest neighbours on digits %": ("probe.digits.knn", 100),
}


def agrees(text, value):
    """Whether `value`, rounded to as many digits as `text` has, is `text`."""
    return abs(float(text) - value) <= 0.5001 * 10.0 ** -len(text.partition(".")[2])


def assert_mean(cell, entry, scale):
    """A mean and its standard deviation; a dagger if, and only if, it differs from the first method's."""
    mean, std = cell.removesuffix(" †").split(" ± ")
    assert agrees(mean, scale * entry["mean"]), (cell, entry["mean"])
    assert agrees(std, scale * entry["std"]), (cell, entry["std"])
    assert cell.endswith("†") == (entry.get("difference", {}).get("outcome") == "significant"), cell


@pytest.mark.parametrize("title", ROWS)
def test_the_table_of_which_regulariser_is_that_of_its_record(title):
    summary = json.loads((DOCS / "results" / RECORD / "summary.json").read_text())
    text = (DOCS / "which.md").read_text()
    (row,) = re.findall(rf"^\| {re.escape(title)} \| (.*) \|$", text, re.MULTILINE)
    key, scale = ROWS[title]
    for method, cell in zip(METHODS, row.split(" | "), strict=True):
        assert_mean(cell, summary["methods"][method]["measures"][key], scale)


PROBE = "probe.glyphs-classes-5-9,23-35,49-61-train-3100"
OTHER_LETTERS = {
    "accuracy %": ("test.accuracy", 100),
    "confidence when wrong": ("test.confidence_wrong", 1),
    "d_within": ("test.d_within", 1),
    "R²": ("test.r_squared", 1),
    "linear probe, other classes %": (f"{PROBE}.linear", 100),
    "20 neighbours, other classes %": (f"{PROBE}.knn", 100),
}
LETTERS = {
    "accuracy %": ("test.accuracy", 100),
    "NLL": ("test.nll", 1),
    "confidence when wrong": ("test.confidence_wrong", 1),
    "ECE": ("test.ece", 1),
    "ECE after scaling": ("test.ece_scaled", 1),
    "d_within": ("test.d_within", 1),
    "R²": ("test.r_squared", 1),
    "20 neighbours, digits %": ("probe.digits.knn", 100),
}


def table(heading):
    """The first table under a heading of the results page: its titles, then its rows, each a list of cells."""
    lines = iter((DOCS / "results" / "README.md").read_text().splitlines())
    next(line for line in lines if line.startswith(f"## {heading}"))
    rows = [next(line for line in lines if line.startswith("|"))]
    rows += itertools.takewhile(lambda line: line.startswith("|"), lines)
    titles, _, *cells = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
    return titles, cells


NAMES = {
    "cross-entropy": "cross-entropy",
    "label smoothing": "label-smoothing",
    "MaxSup": "max-sup",
    "logit penalty": "logit-penalty",
    "online LS": "online-label-smoothing",
    "Zipf-LS": "zipf-label-smoothing",
    "confidence penalty": "confidence-penalty",
    "LS's regularisation alone": "ls-regularization",
    "LS's error enhancement alone": "ls-error-enhancement",
}


def methods_of(name):
    return json.loads((DOCS / "results" / name / "summary.json").read_text())["methods"]


def assert_difference(cell, entry, scale):
    """A mean and its interval."""
    told = re.findall(r"[+−][\d.]+", cell)
    for text, value in zip(told, [entry["mean"], *entry["interval"]], strict=True):
        assert agrees(text.replace("−", "-"), scale * value), (cell, value)
    assert ("†" in cell) == (entry["outcome"] == "significant"), cell


@pytest.mark.parametrize(
    ("heading", "name", "columns"),
    [
        ("Letters of real typefaces", "glyphs-resnet18-10-seeds", LETTERS),
        ("Letters that the network has not been", "glyphs-convnet-half-10-seeds", OTHER_LETTERS),
    ],
)
def test_a_table_of_letters_is_that_of_its_record(heading, name, columns):
    titles, rows = table(heading)
    assert titles[1:] == list(columns)
    record = methods_of(name)
    assert [NAMES[title] for title, *_ in rows] == list(record)
    for of, (_, *cells) in zip(record.values(), rows, strict=True):
        for (key, scale), cell in zip(columns.values(), cells, strict=True):
            if cell == "–":
                assert of["measures"][key]["mean"] is None
            else:
                assert_mean(cell, of["measures"][key], scale)


def test_the_table_of_segmentation_is_that_of_its_records():
    _, rows = table("Segmentation with trained backbones")
    assert [NAMES[name] for _, _, name, *_ in rows] == [*METHODS] * 2
    records = {
        "ResNet-18": methods_of("fashion-mnist-55k-6-seeds"),
        "small DeiT": methods_of("fashion-mnist-vit-3-seeds"),
    }
    backbone, n = "", ""
    for of_backbone, of_n, name, single, of_single, multi, of_multi in rows:
        backbone, n, method = of_backbone or backbone, of_n or n, NAMES[name]
        for way, cell, difference in (("single", single, of_single), ("multi", multi, of_multi)):
            entry = records[backbone][method]["measures"][f"segment.fashion-scenes.{way}.miou"]
            assert entry["n"] == int(n)
            assert_mean(cell, entry, 100)
            if method == "cross-entropy":
                assert not difference
            else:
                assert_difference(difference, entry["difference"], 100)


def test_the_table_of_alpha_is_that_of_its_record():
    titles, rows = table("α from 0.05 to 0.4")
    assert titles == ["α", "label smoothing", "MaxSup", "MaxSup less label smoothing"]
    assert [alpha for alpha, *_ in rows] == ["0.05", "0.1", "0.15", "0.2", "0.3", "0.4"]
    study = json.loads((DOCS / "results" / "study-alpha-digits" / "summary.json").read_text())
    pairs = {contrast["title"]: contrast["pairs"] for contrast in study["contrasts"]}
    of, less = pairs["Difference from cross-entropy, accuracy %"], pairs["max-sup less label-smoothing, accuracy %"]
    for alpha, smoothing, max_sup, between in rows:
        column = f"α = {alpha}"
        found = {pair["row"]: pair for pair in of if pair["column"] == column}
        assert_difference(smoothing, found["label-smoothing"], 100)
        assert_difference(max_sup, found["max-sup"], 100)
        assert_difference(between, next(pair for pair in less if pair["column"] == column), 100)


def test_the_table_of_each_methods_own_settings_is_that_of_its_record():
    titles, rows = table("A learning rate and weight decay for each method")
    assert titles[1:] == ["the same settings for all", "each method's own", "own learning rate, weight decay"]
    contrasts = json.loads((DOCS / "results" / "digits-tuned-10-seeds" / "summary.json").read_text())["contrasts"]
    for column, start in ((1, "The same settings for all"), (2, "Each method's own settings")):
        (contrast,) = (c for c in contrasts if c["title"].startswith("Difference from") and c["title"].endswith(start))
        pairs = [pair for pair in contrast["pairs"] if pair["column"] == "accuracy %"]
        assert {NAMES[row[0]] for row in rows} == {pair["row"].split(" (")[0] for pair in pairs}
        for row in rows:
            (pair,) = (pair for pair in pairs if pair["row"].split(" (")[0] == NAMES[row[0]])
            assert_difference(row[column], pair, 100)
            if column == 2:
                assert pair["row"].endswith(f"(lr {row[3].replace(', ', ', weight decay ')})")
