import json
import shutil
import statistics

import pytest

from maxsup.lab.names import UnknownNameError
from maxsup.lab.recipes import Data
from maxsup.lab.report.published import Published
from maxsup.lab.report.study import summarize_study
from maxsup.lab.studies import paper, parts
from maxsup.lab.studies.run import Probe, run
from maxsup.lab.studies.study import Column, Row, as_record, changes
from tests.lab.studies.conftest import recipes, tiny

COMPARED = {"constant": ["cross-entropy", "label-smoothing", "max-sup"], "linear": ["label-smoothing", "max-sup"]}


def accuracy(directory, comparison, method, seed):
    result = json.loads((directory / comparison / "runs" / method / f"seed-{seed}" / "result.json").read_text())
    return result["measures"]["test"]["accuracy"]


def test_a_study_makes_each_comparison_once_and_its_cells_are_their_runs(made):
    # Cross-entropy has no alpha: it is trained in one comparison and stands in both columns.
    for comparison, methods in COMPARED.items():
        assert sorted(path.name for path in (made / comparison / "runs").iterdir()) == methods
    summary = summarize_study(made / "study-tiny")
    assert summary["rehearsal"] is False
    cells = {(summary["rows"][cell["row"]], cell["column"]): cell for cell in summary["cells"]}
    for method, column, comparison in (
        ("cross-entropy", 0, "constant"),
        ("cross-entropy", 1, "constant"),
        ("label-smoothing", 1, "linear"),
        ("max-sup", 0, "constant"),
        ("max-sup", 1, "linear"),
    ):
        values = [accuracy(made, comparison, method, seed) for seed in (0, 1)]
        cell = cells[method, column]
        assert cell["n"] == 2
        assert cell["mean"] == statistics.mean(values)
        assert abs(cell["std"] - statistics.stdev(values)) < 1e-12
    assert cells["max-sup", 1]["paper"] == {"mean": 0.7658, "std": 0.0012}
    assert cells["max-sup", 1]["difference"] == cells["max-sup", 1]["mean"] - 0.7658
    assert cells["max-sup", 0]["difference"] is None
    # Its runs have another schedule than the paper's column, and it does not see any.
    baseline = cells["cross-entropy", 1]
    assert (baseline["differs"], baseline["difference"]) == ([], baseline["mean"] - 0.7421)


def test_the_differences_are_paired_by_seed_across_comparisons(made):
    summary = summarize_study(made / "study-tiny")
    _, schedule, ours = summary["contrasts"]
    by_hand = {
        (row, column): statistics.mean(
            accuracy(made, *of, seed) - accuracy(made, *than, seed) for seed in (0, 1)
        )
        for row, column, of, than in (
            ("max-sup", "linear α", ("linear", "max-sup"), ("constant", "max-sup")),
            ("label-smoothing", "linear α", ("linear", "label-smoothing"), ("constant", "label-smoothing")),
        )
    }  # fmt: skip
    assert {(pair["row"], pair["column"]) for pair in schedule["pairs"]} == by_hand.keys()
    for pair in schedule["pairs"]:
        assert abs(pair["mean"] - by_hand[pair["row"], pair["column"]]) < 1e-12
        assert (pair["n"], pair["comparisons"], pair["outcome"]) == (2, 2, "n too small")
    assert [pair["paper"] for pair in ours["pairs"]] == [None, 0.7658 - 0.76]


def test_the_same_call_finds_everything_done_and_new_seeds_are_added(made, tmp_path):
    directory = shutil.copytree(made, tmp_path / "copy")
    stamps = {path: path.stat().st_mtime_ns for path in directory.rglob("result.json")}
    assert len(stamps) == 10
    (lost,) = [path for path in stamps if "constant/runs/max-sup/seed-1" in path.as_posix()]
    shutil.rmtree(lost.parent)
    assert run(tiny(), recipes(tiny()), [0, 1], directory, workers=1) == []
    again = {path: path.stat().st_mtime_ns for path in directory.rglob("result.json")}
    assert again.keys() == stamps.keys()
    assert [path for path in stamps if again[path] != stamps[path]] == [lost]
    assert accuracy(directory, "constant", "max-sup", 1) == accuracy(made, "constant", "max-sup", 1)


def test_some_comparisons_only(made, tmp_path):
    directory = shutil.copytree(made, tmp_path / "copy")
    lost = [directory / name / "runs" / "max-sup" / "seed-1" for name in COMPARED]
    for folder in lost:
        shutil.rmtree(folder)
    lines = []
    assert run(tiny(), recipes(tiny()), [0, 1], directory, workers=1, only=["linear"], tell=lines.append) == []
    assert lines == ["tiny: linear, comparison 2 of 2"]
    assert [folder.exists() for folder in lost] == [False, True]
    cells = {(cell["row"], cell["column"]): cell["n"] for cell in summarize_study(directory / "study-tiny")["cells"]}
    assert sorted(cells.values()) == [1, 2, 2, 2, 2, 2]
    with pytest.raises(UnknownNameError, match="unknown comparison 'linea'; did you mean linear"):
        run(tiny(), recipes(tiny()), [0, 1], directory, workers=1, only=["linea"])
    with pytest.raises(ValueError, match="only must name a comparison at least, got none"):
        run(tiny(), recipes(tiny()), [0, 1], directory, workers=1, only=[])


def test_a_study_of_features_probes_its_runs_and_keeps_the_papers_column(made, tmp_path):
    directory = shutil.copytree(made, tmp_path / "copy")
    probed = Published("Table 3", "", {"probe.cifar10.linear": {"max-sup": (0.81, None)}})
    column = Column("linear probe %", "linear", parts.probed("cifar10"), probed)
    study = tiny(
        columns=(column,),
        rows=(Row("max-sup", "max-sup"),),
        variants=tiny().variants[1:],
        contrasts=(),
        probe=Data("cifar10"),
    )
    digits = Probe(Data("digits", train_size=50))
    assert run(study, recipes(study), [0, 1], directory, workers=1, probe=digits) == []
    summary = summarize_study(directory / "study-tiny")
    assert summary["rehearsal"] is True  # the paper's probe is on CIFAR-10
    (cell,) = summary["cells"]
    found = [
        json.loads(path.read_text())["linear"]["accuracy"]
        for path in sorted((directory / "linear/runs/max-sup").glob("*/probe-digits-train-50.json"))
    ]
    assert len(found) == 2
    assert cell["mean"] == statistics.mean(found)
    assert (cell["paper"]["mean"], cell["difference"]) == (0.81, None)
    # Label smoothing is in the folder too, and no part of this study.
    assert not list((directory / "linear/runs/label-smoothing").glob("*/probe-*.json"))


@pytest.mark.parametrize("name", paper.STUDIES)
def test_every_study_has_the_papers_column_with_each_of_its_numbers(name):
    study = paper.STUDIES[name]()
    assert study.name == name
    record = as_record(study, changes(study, study), rehearsal=False)
    assert not any(of["changes"] for of in record["comparisons"].values())
    printed = [cell for cell in record["cells"] if cell["paper"]["mean"] is not None]
    assert (
        len(printed)
        == {
            "table1": 6,
            "table2": 36,
            "table3": 4,
            "table4-imagenet": 24,
            "table4-cifar100": 24,
            "table5": 5,
            "table7": 24,
            "table8": 6,
        }[name]
    )
    assert [cell["differs"] for cell in printed] == [[]] * len(printed)
