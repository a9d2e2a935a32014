"""The numbers of a result in the documents are those of its record."""

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


@pytest.mark.parametrize("title", ROWS)
def test_the_table_of_which_regulariser_is_that_of_its_record(title):
    summary = json.loads((DOCS / "results" / RECORD / "summary.json").read_text())
    text = (DOCS / "which.md").read_text()
    (row,) = re.findall(rf"^\| {re.escape(title)} \| (.*) \|$", text, re.MULTILINE)
    key, scale = ROWS[title]
    for method, cell in zip(METHODS, row.split(" | "), strict=True):
        entry = summary["methods"][method]["measures"][key]
        mean, std = cell.removesuffix(" †").split(" ± ")
        assert agrees(mean, scale * entry["mean"]), (method, entry["mean"])
        assert agrees(std, scale * entry["std"]), (method, entry["std"])
        significant = method != "cross-entropy" and entry["difference"]["outcome"] == "significant"
        assert cell.endswith("†") == significant, method
