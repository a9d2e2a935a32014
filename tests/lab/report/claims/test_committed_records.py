"""The verdicts of the committed records are those that docs/results/README.md tells."""

import re
import tarfile
from pathlib import Path

import pytest

from maxsup.lab.records import read_json
from maxsup.lab.report.claims import summarize_claims
from maxsup.lab.report.claims.tables import numbered
from maxsup.lab.statistics import detectable_effect
from tests.lab.report.claims.conftest import CE, LS, OURS

RESULTS = Path(__file__).parents[4] / "docs" / "results"
NAMES = ("fashion-mnist-5k-10-seeds", "fashion-mnist-60k-5-seeds")


@pytest.fixture(scope="module")
def claims(tmp_path_factory):
    """The claims on the comparison of 5,000 images alone, and on both comparisons."""
    directory = tmp_path_factory.mktemp("results")
    found = []
    for name in NAMES:
        with tarfile.open(RESULTS / name / "records.tar.xz") as archive:
            archive.extractall(directory / name, filter="data")
        found.append({claim["name"]: claim for _, claim in numbered(summarize_claims(directory))})
    return found


def only_row(claim):
    (row,) = claim["rows"]
    return row


def test_confidence_and_variation_come_out_as_the_results_page_says(claims):
    alone = claims[0]
    page = (RESULTS / "README.md").read_text()
    row = only_row(alone[f"confidence when wrong: {OURS} below {CE}"])
    assert row["verdict"] == "confirmed here"
    assert f"most with MaxSup ({row['of_mean']:.3f})" in page
    assert f"from {row['than_mean']:.3f}" in page
    assert only_row(alone[f"confidence when wrong: {LS} above {CE}"])["verdict"] == "contradicted here"

    for method, name in ((OURS, "MaxSup"), (LS, "label smoothing")):
        row = only_row(alone[f"d_within, test images: {method} below {CE}"])
        assert row["verdict"] == "confirmed here"
        assert f"{row['of_mean']:.4f} for {name}" in page
    row = only_row(alone[f"d_within, test images: {OURS} above {LS}"])
    assert row["verdict"] == "confirmed here"
    low, high = row["interval"]
    (told,) = re.findall(r"more within-class variation,\s+(\S+ \[\S+ \S+\]) \(exact p (\S+),", page)
    assert told == (f"+{row['mean']:.4f} [{low:.4f}, {high:.4f}]", f"{row['p_sign_flip']:.3f}")

    assert only_row(alone[f"accuracy: {OURS} above {CE}"])["verdict"] == "not seen"
    assert only_row(alone[f"r_squared, test images: {OURS} above {CE}"])["verdict"] == "contradicted here"


def test_values_are_those_of_the_committed_summary(claims):
    methods = read_json(RESULTS / NAMES[0] / "summary.json")["methods"]
    for key, name in (
        ("test.accuracy", f"accuracy: {OURS} above {CE}"),
        ("test.r_squared", f"r_squared, test images: {OURS} above {CE}"),
        ("test.confidence_wrong", f"confidence when wrong: {OURS} below {CE}"),
    ):
        row, recorded = only_row(claims[0][name]), methods[OURS]["measures"][key]["difference"]
        for field in ("n", "mean", "std", "p_t", "p_sign_flip", "floor"):
            assert row[field] == pytest.approx(recorded[field], rel=1e-12), (key, field)
        assert row["interval"] == pytest.approx(recorded["interval"])
        if row["verdict"] == "not seen":
            assert row["detectable"] == pytest.approx(detectable_effect(10, row["std"], comparisons=1))


def test_five_seeds_beside_ten_cannot_show_anything(claims):
    both = claims[1]
    rows = {row["comparison"]: row for row in both[f"confidence when wrong: {OURS} below {CE}"]["rows"]}
    ten, five = (rows[name] for name in NAMES)
    assert (ten["n"], ten["verdict"]) == (10, "confirmed here")
    assert ten["p_sign_flip_holm"] == 2 * 2 / 2**10
    assert (five["n"], five["verdict"]) == (5, "cannot be shown with this n")
    assert five["p_sign_flip"] == 2 / 2**5
    rows = {row["comparison"]: row for row in both["accuracy: max-sup above online-label-smoothing"]["rows"]}
    assert rows[NAMES[1]]["n"] == 5
    assert rows[NAMES[1]]["left_out"] == []
