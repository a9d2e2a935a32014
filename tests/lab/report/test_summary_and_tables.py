import csv
import io
import json
from xml.etree import ElementTree

import pytest
from rich.console import Console
from scipy import stats

from maxsup.lab.names import UnknownNameError
from maxsup.lab.records import read_comparison, read_json
from maxsup.lab.report import formats, legend, rich_tables, summarize, tables, write_report
from tests.lab.report import factory


@pytest.fixture
def summary(tmp_path):
    return summarize(read_comparison(factory.comparison(tmp_path)))


@pytest.fixture(scope="module")
def analyzed(tmp_path_factory):
    return summarize(read_comparison(factory.analyzed(tmp_path_factory.mktemp("analyzed"))))


def grid_of(summary, group, kind="mean ±"):
    return next(grid for grid in tables.grids(summary) if grid.group == group and kind in grid.caption)


def row_of(grid, method):
    return next(dict(zip(grid.heads, map(str, row), strict=True)) for row in grid.rows if row[0].text == method)


def test_the_summary_holds_mean_std_interval_and_paired_difference(summary):
    entry = summary["methods"]["max-sup"]["measures"]["test.accuracy"]
    assert entry["n"] == 3
    assert entry["mean"] == pytest.approx(0.93)
    assert entry["std"] == pytest.approx(0.03**0.5 / 10)  # deviations −2, +1, +1 hundredths: √(6/2)
    assert entry["values"] == {"0": 0.91, "1": 0.94, "2": 0.94}
    difference = entry["difference"]
    assert (difference["n"], difference["mean"]) == (3, pytest.approx(0.01))
    # std 0.01, t(0.975, 2) = 4.3027: half-width 0.0248.
    assert difference["interval"] == pytest.approx((0.01 - 0.02484, 0.01 + 0.02484), abs=1e-5)
    assert (difference["outcome"], difference["least_n"], difference["floor"]) == ("n too small", 6, 0.25)
    assert "difference" not in summary["methods"]["cross-entropy"]["measures"]["test.accuracy"]
    assert summary["reference"] == "cross-entropy"


def test_differences_are_corrected_over_the_methods_of_one_measure(analyzed):
    values = {method: [factory.value("ece_scaled", method, seed) for seed in range(10)] for method in factory.MANY}
    raw = {
        method: stats.ttest_rel(values[method], values["cross-entropy"]).pvalue
        for method in ("label-smoothing", "max-sup")
    }
    of = {method: analyzed["methods"][method]["measures"]["test.ece_scaled"]["difference"] for method in raw}
    # Of two, Holm doubles the smaller p and keeps the larger.
    assert of["label-smoothing"]["p_t_holm"] == pytest.approx(2 * raw["label-smoothing"])
    assert of["max-sup"]["p_t_holm"] == pytest.approx(raw["max-sup"])
    assert of["label-smoothing"]["p_sign_flip_holm"] == 2 * of["label-smoothing"]["p_sign_flip"] == 4 / 2**10
    assert of["label-smoothing"]["outcome"] == "significant"
    assert of["max-sup"]["outcome"] == "not seen"
    assert of["max-sup"]["detectable"] > abs(of["max-sup"]["mean"])
    low, high = of["max-sup"]["bootstrap"]
    assert low < of["max-sup"]["mean"] < high


def test_another_reference_can_be_named(tmp_path):
    comparison = read_comparison(factory.comparison(tmp_path))
    summary = summarize(comparison, "max-sup")
    difference = summary["methods"]["cross-entropy"]["measures"]["test.accuracy"]["difference"]
    assert (summary["reference"], difference["mean"]) == ("max-sup", pytest.approx(-0.01))
    with pytest.raises(UnknownNameError, match="unknown method of this comparison 'maxsup'; did you mean max-sup"):
        summarize(comparison, "maxsup")


def test_times_stand_in_one_place(summary):
    times = summary.pop("times")
    assert times["max-sup/seed-2"] == {
        "started": "2026-01-01T00:00:00+00:00",
        "training_seconds": 4.0,
        "evaluation_seconds": 1.0,
    }
    assert "seconds" not in json.dumps(summary)


def test_cells_show_two_digits_of_the_spread_and_say_a_smaller_n(summary):
    row = row_of(grid_of(summary, "accuracy"), "cross-entropy")
    assert row["n"] == "3"
    assert row["accuracy %"] == "92.0 ± 2.0"
    assert row["conf. wrong"] == "0.5000 ± 0.0000 (n=2)"
    differences = grid_of(summary, "accuracy", "difference")
    assert [row[0].text for row in differences.rows] == ["max-sup"]
    assert row_of(differences, "max-sup")["accuracy %"] == "+1.0 [−1.5, +3.5]"


def test_significant_differences_carry_a_mark_and_their_direction(analyzed):
    grid = grid_of(analyzed, "accuracy", "difference")
    by_head = {row[0].text: dict(zip(grid.heads, row, strict=True)) for row in grid.rows}
    assert by_head["max-sup"]["accuracy %"].text.endswith(" †")
    assert by_head["max-sup"]["accuracy %"].better is True
    assert by_head["max-sup"]["NLL"].better is False
    assert by_head["max-sup"]["conf. right"].better is None  # there is no better there
    assert "†" not in by_head["label-smoothing"]["accuracy %"].text
    assert "†: significant: exact sign-flip test with p ≤ 0.05 after Holm's correction" in legend(analyzed)


def test_a_table_for_every_kind_of_record(analyzed):
    assert [(grid.group, len(grid.heads)) for grid in tables.grids(analyzed) if "mean ±" in grid.caption] == [
        ("accuracy", 6),
        ("calibration", 5),
        ("calibration", 7),
        ("selective", 6),
        ("selective", 7),
        ("representation", 6),
        ("representation", 7),
        ("enhancement", 5),
        ("transfer", 5),
        ("overlays", 7),
        *[("overlays", 11)] * 3,
    ]
    transfer = row_of(grid_of(analyzed, "transfer"), "max-sup")
    assert transfer["unconverged fits"] == "10 of 40"
    assert transfer["linear %"] == "94.20 ± 0.15"
    thresholds = row_of(grid_of(analyzed, "overlays", "recall %"), "max-sup")
    assert thresholds["0.3"] == "70.00 ± 0.00"


def test_every_difference_is_listed_with_its_tests(analyzed):
    grid = tables.tests(analyzed)
    row = next(
        dict(zip(grid.heads, map(str, row), strict=True))
        for row in grid.rows
        if (row[0].text, row[1].text) == ("ECE at T", "max-sup")
    )
    of = analyzed["methods"]["max-sup"]["measures"]["test.ece_scaled"]["difference"]
    assert row["p (sign flip), Holm"] == f"{of['p_sign_flip_holm']:.3f}"
    assert row["outcome"] == "not seen"
    assert float(row["detectable"]) == pytest.approx(of["detectable"], abs=5e-6)
    assert len(grid.rows) == 2 * (4 + 3 + 5 + 4 + 5 + 4 + 5 + 3 + 2 + 5)


def test_csv_holds_the_unrounded_numbers(analyzed):
    rows = list(csv.DictReader(io.StringIO(formats.csv_text(analyzed))))
    assert len(rows) == sum(len(of["measures"]) for of in analyzed["methods"].values())
    row = next(r for r in rows if (r["method"], r["measure"]) == ("max-sup", "test.accuracy"))
    entry = analyzed["methods"]["max-sup"]["measures"]["test.accuracy"]
    assert float(row["mean"]) == entry["mean"]
    assert float(row["difference_low"]) == entry["difference"]["interval"][0]
    assert float(row["difference_bootstrap_high"]) == entry["difference"]["bootstrap"][1]
    assert float(row["difference_p_sign_flip_holm"]) == entry["difference"]["p_sign_flip_holm"]
    assert row["difference_outcome"] == "significant"
    assert rows[0]["difference_mean"] == ""


def test_markdown_and_latex_are_whole_tables(summary, analyzed):
    for block in formats.markdown(analyzed).split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1
    assert formats.markdown(analyzed).startswith("# fashion-mnist-resnet18\n\nmax-sup against cross-entropy: it loses")
    latex = formats.latex(summary)
    assert r"small \& simple" in latex
    assert r"92.0 $\pm$ 2.0" in latex
    assert r"+1.0 [$-$1.5, +3.5]" in latex
    for table in latex.split(r"\begin{table}")[1:]:
        body = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len({line.replace(r"\&", "").count("&") for line in body}) == 1
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == len(tables.grids(summary))
    assert formats.latex(analyzed).isascii()


def test_the_terminal_table_fits_80_columns(summary):
    console = Console(width=80, record=True, file=io.StringIO())
    for table in rich_tables(summary):
        console.print(table)
    shown = console.export_text()
    assert "92.0 ± 2.0" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "share of test images classified right" in legend()


def test_damaged_runs_are_counted_and_left_out(tmp_path):
    summary = summarize(read_comparison(factory.damaged(tmp_path)))
    reference = summary["methods"]["cross-entropy"]
    assert reference["runs"] == {"diverged": 1, "failed": 1, "finished": 1}
    assert summary["methods"]["max-sup"]["runs"] == {"failed": 1, "finished": 1, "missing": 1}
    entry = summary["methods"]["max-sup"]["measures"]["test.accuracy"]
    assert (entry["n"], entry["mean"], entry["std"]) == (1, 0.94, None)
    assert entry["difference"]["n"] == 1  # seed 2 alone is finished in both
    assert row_of(grid_of(summary, "accuracy"), "cross-entropy")["n"] == "1, 1 diverged, 1 failed"


def test_write_report_writes_every_file_and_is_repeatable(tmp_path):
    factory.comparison(tmp_path)
    paths = write_report(tmp_path)
    assert [path.name for path in paths] == [
        "summary.json",
        "summary.csv",
        "summary.md",
        "summary.tex",
        "report.html",
        "training-curves.svg",
        "training-curves.pdf",
        "accuracy-spread.svg",
        "accuracy-spread.pdf",
    ]
    ElementTree.fromstring((tmp_path / "training-curves.svg").read_text())  # well-formed on its own
    first = {path.name: path.read_bytes() for path in paths}
    assert {path.name: path.read_bytes() for path in write_report(tmp_path)} == first
    assert read_json(tmp_path / "summary.json")["reference"] == "cross-entropy"


def test_the_files_need_the_summary_alone(tmp_path, analyzed):
    write_report(factory.analyzed(tmp_path))
    kept = read_json(tmp_path / "summary.json")
    assert (tmp_path / "summary.md").read_text() == formats.markdown(kept) == formats.markdown(analyzed)
    assert (tmp_path / "summary.csv").read_text() == formats.csv_text(kept)
