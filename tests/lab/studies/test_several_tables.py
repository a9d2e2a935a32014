"""A study of our own: several tables, analysed and probed, and no word of the paper."""

import dataclasses
import json
import shutil
import statistics
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maxsup.lab.recipes import Data
from maxsup.lab.report.study import grids, markdown, summarize_study
from maxsup.lab.studies import command
from maxsup.lab.studies import run as running
from maxsup.lab.studies.parts import ACCURACY, MEASURES, probed
from maxsup.lab.studies.run import Probe, run
from maxsup.lab.studies.study import Column, Row, against
from tests.lab.studies.conftest import RECIPE, recipes, tiny

CE, LS, OURS = "cross-entropy", "label-smoothing", "max-sup"
PROBE = "digits-train-50"


def several():
    """The tiny study as two tables, each of several measures; cross-entropy stands in the first alone."""
    measures = (ACCURACY, MEASURES["test.ece_scaled"], probed(PROBE), probed(PROBE, "knn"))
    columns = tuple(
        Column(of.title, variant, of, group=f"{variant} α", rows=rows)
        for variant, rows in (("constant", (CE, LS, OURS)), ("linear", (LS, OURS)))
        for of in measures
    )
    study = tiny(
        name="several",
        table="Digits",
        title="two tables",
        columns=columns,
        rows=tuple(Row(method, method) for method in (CE, LS, OURS)),
        contrasts=(),
        analyze=True,
        probe=Data("digits", train_size=50),
    )
    return against(study, OURS, LS, by_column=True)


@pytest.fixture(scope="module")
def measured(made, tmp_path_factory):
    """Its runs are those of the tiny study: only what is measured afterwards is new."""
    directory = shutil.copytree(made, tmp_path_factory.mktemp("several") / "copy")
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("result.json")}
    assert run(several(), recipes(several()), [0, 1], directory, workers=1) == []
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("result.json")} == before
    return directory


def values(directory, variant, method, file, *keys):
    found = []
    for path in sorted((directory / variant / "runs" / method).glob(f"*/{file}")):
        of = json.loads(path.read_text())
        for key in keys:
            of = of[key]
        found.append(of)
    return found


def test_each_table_has_its_measures_of_its_rows(measured):
    summary = summarize_study(measured / "study-several")
    tables = grids(summary)
    assert [grid.section for grid in tables] == [
        "constant α",
        "linear α",
        f"Difference from {CE}, constant α",
        f"Difference from {LS}, linear α",
        f"{OURS} less {LS}, constant α",
        f"{OURS} less {LS}, linear α",
        "Comparisons",
    ]
    for table, variant, methods in ((tables[0], "constant", [CE, LS, OURS]), (tables[1], "linear", [LS, OURS])):
        assert table.heads == ["", "accuracy %", "ECE at T", "linear %", "k-NN %"]  # no column of the paper's
        assert [row[0].text for row in table.rows] == methods
        for row, method in zip(table.rows, methods, strict=True):
            of = (measured, variant, method)
            expected = (
                values(*of, "result.json", "measures", "test", "accuracy"),
                values(*of, "analysis.json", "measures", "test", "ece_scaled"),
                values(*of, f"probe-{PROBE}.json", "linear", "accuracy"),
                values(*of, f"probe-{PROBE}.json", "knn", "accuracy"),
            )
            assert [len(numbers) for numbers in expected] == [2] * 4
            assert [cell.value for cell in row[1:]] == pytest.approx([statistics.mean(of) for of in expected])


def test_the_questions_of_a_table_are_each_one_family_and_the_verdict_tells_them(measured):
    summary = summarize_study(measured / "study-several")
    first, second, constant, linear = summary["contrasts"]
    assert {pair["comparisons"] for pair in first["pairs"]} == {2}  # two methods against cross-entropy
    assert {pair["comparisons"] for pair in second["pairs"]} == {1}
    assert {pair["comparisons"] for pair in (*constant["pairs"], *linear["pairs"])} == {1}
    assert summary["verdict"][0] == "10 of 10 runs are finished."
    assert [sentence.partition(":")[0] for sentence in summary["verdict"][1:]] == [
        f"{OURS} less {LS}, constant α",
        f"{OURS} less {LS}, linear α",
    ]


def test_a_report_without_published_numbers_says_nothing_of_the_paper(measured):
    summary = summarize_study(measured / "study-several")
    assert (summary["published"], summary["rehearsal"]) == (False, False)
    assert "paper" not in markdown(summary)
    html = (measured / "study-several" / "report.html").read_text()
    body = html[: html.index("<script>")]
    assert "paper" not in body.partition("<body>")[2]
    assert "Mean over the seeds and its 95% t-interval." in body
    # The picture stands after the tables and before the differences.
    assert body.index("linear α") < body.index('id="figure-cells-title"') < body.index(f"Difference from {CE}")


def test_another_probe_is_a_rehearsal_and_its_numbers_stand_in_the_probes_columns_alone(measured, tmp_path):
    directory = shutil.copytree(measured, tmp_path / "copy")
    study = several()
    asked = Probe(Data("digits", train_size=40))
    assert run(study, recipes(study), [0, 1], directory, workers=1, probe=asked) == []
    summary = summarize_study(directory / "study-several")
    assert summary["rehearsal"] is True
    assert summary["verdict"][0].endswith("so these numbers show that it runs and nothing else.")
    keys = [column["measure"]["key"] for column in summary["columns"]][:4]
    name = "probe.digits-train-40"
    assert keys == ["test.accuracy", "test.ece_scaled", f"{name}.linear", f"{name}.knn"]
    assert all(cell["n"] == 2 for cell in summary["cells"])


@pytest.mark.parametrize(
    ("trained", "images"),
    [
        (Data("fashion-mnist"), Data("digits", image_size=28)),
        (Data("glyphs", image_size=64), Data("digits")),  # the run's record says which size
        (Data("digits"), Data("digits")),
    ],
)
def test_probed_images_get_the_size_of_training_images_whose_files_are_elsewhere(monkeypatch, trained, images):
    asked = []

    def load(data, data_dir):
        asked.append((data, data_dir))
        return SimpleNamespace(train=SimpleNamespace(images=torch.empty(1, 1, 28, 28)))

    monkeypatch.setattr(running.data, "load", load)
    monkeypatch.setattr(running.probing, "prepare", lambda path, data, data_dir, protocol: (None, data))
    monkeypatch.setattr(
        running.analysis_commands, "probe", lambda runs, data, data_dir, *how: asked.append((data, data_dir)) or []
    )
    recipe = dataclasses.replace(RECIPE, data=trained)
    runs, files = [SimpleNamespace(path=Path("run"))], Path("files")
    running._probe(several(), recipe, runs, Probe(Data("digits")), files, None, [])
    assert asked[-1] == (images, None)
    assert asked[:-1] == ([(trained, files)] if images.image_size else [])


def test_the_options_of_a_probe():
    def asked(study, *words):
        return command.probe_of(study, command.parse_study(study, [*words, "--out", "x"])[0])

    assert asked(several()) == Probe(Data("digits", train_size=50))
    assert asked(several(), "--probe-train-size", "40") == Probe(Data("digits", train_size=40))
    assert asked(several(), "--probe-data", "cifar10") == Probe(Data("cifar10"))
    assert asked(tiny()) is None
    with pytest.raises(ValueError, match=r"--probe-data, --probe-train-size: tiny probes nothing"):
        asked(tiny(), "--probe-data", "cifar10", "--probe-train-size", "9")


def test_a_study_has_its_own_seeds_unless_others_are_asked_for(tmp_path, monkeypatch):
    study = tiny()
    few = tuple(dataclasses.replace(of, seeds=seeds) for of, seeds in zip(study.variants, ((0, 1), (4,)), strict=True))
    study = dataclasses.replace(study, variants=few)
    made = {}

    def train(recipe, methods, seeds, target, **how):
        made[target.name] = seeds
        return []

    monkeypatch.setattr(running, "train", train)
    run(study, recipes(study), None, tmp_path / "own")
    assert made == {"constant": (0, 1), "linear": (4,)}
    run(study, recipes(study), [7], tmp_path / "asked")
    assert made == {"constant": [7], "linear": [7]}
    assert command.parse_study(study, ["--out", "x"])[0].seeds is None
