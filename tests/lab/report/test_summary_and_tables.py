import csv
import io
import json
from xml.etree import ElementTree

import pytest
from rich.console import Console

from maxsup.lab.records import read_comparison, read_json
from maxsup.lab.report import rich_tables, summarize, tables, write_report
from tests.lab.report import factory


@pytest.fixture
def summary(tmp_path):
    return summarize(read_comparison(factory.comparison(tmp_path)))


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
    assert "difference" not in summary["methods"]["cross-entropy"]["measures"]["test.accuracy"]
    assert summary["reference"] == "cross-entropy"


def test_times_stand_in_one_place(summary):
    times = summary.pop("times")
    assert times["max-sup/seed-2"] == {
        "started": "2026-01-01T00:00:00+00:00",
        "training_seconds": 4.0,
        "evaluation_seconds": 1.0,
    }
    assert "seconds" not in json.dumps(summary)


def test_cells_show_two_digits_of_the_spread_and_say_a_smaller_n(summary):
    values, differences = tables.grids(summary)
    row = dict(zip(values.heads, values.rows[0], strict=True))
    assert row["method"] == "cross-entropy"
    assert row["n"] == "3"
    assert row["accuracy %"] == "92.0 ± 2.0"
    assert row["conf. wrong"] == "0.5000 ± 0.0000 (n=2)"
    assert [r[0] for r in differences.rows] == ["max-sup"]
    assert dict(zip(differences.heads, differences.rows[0], strict=True))["accuracy %"] == "+1.0 [-1.5, +3.5]"


def test_csv_holds_the_unrounded_numbers(summary):
    rows = list(csv.DictReader(io.StringIO(tables.csv_text(summary))))
    assert len(rows) == 2 * len(tables.MEASURES)
    row = next(r for r in rows if (r["method"], r["measure"]) == ("max-sup", "test.accuracy"))
    entry = summary["methods"]["max-sup"]["measures"]["test.accuracy"]
    assert float(row["mean"]) == entry["mean"]
    assert float(row["difference_low"]) == entry["difference"]["interval"][0]
    assert rows[0]["difference_mean"] == ""


def test_markdown_and_latex_are_whole_tables(summary):
    lines = [line for line in tables.markdown(summary).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(tables.MEASURES) + 3}
    latex = tables.latex(summary)
    assert r"small \& simple" in latex
    assert r"92.0 $\pm$ 2.0" in latex
    body = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in body} == {len(tables.MEASURES) + 1}
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 2


def test_the_terminal_table_fits_80_columns(summary):
    console = Console(width=80, record=True, file=io.StringIO())
    for table in rich_tables(summary):
        console.print(table)
    shown = console.export_text()
    assert "92.0 ± 2.0" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_damaged_runs_are_counted_and_left_out(tmp_path):
    summary = summarize(read_comparison(factory.damaged(tmp_path)))
    reference = summary["methods"]["cross-entropy"]
    assert reference["runs"] == {"diverged": 1, "failed": 1, "finished": 1}
    assert summary["methods"]["max-sup"]["runs"] == {"failed": 1, "finished": 1, "missing": 1}
    entry = summary["methods"]["max-sup"]["measures"]["test.accuracy"]
    assert (entry["n"], entry["mean"], entry["std"]) == (1, 0.94, None)
    assert entry["difference"]["n"] == 1  # seed 2 alone is finished in both
    values, _ = tables.grids(summary)
    assert values.rows[0][1] == "1, 1 diverged, 1 failed"


def test_write_report_writes_every_file_and_is_repeatable(tmp_path):
    factory.comparison(tmp_path)
    paths = write_report(tmp_path)
    assert [path.name for path in paths] == [
        "summary.json",
        "summary.csv",
        "summary.md",
        "summary.tex",
        "training-curves.svg",
        "report.html",
    ]
    ElementTree.fromstring((tmp_path / "training-curves.svg").read_text())  # well-formed on its own
    first = {path.name: path.read_bytes() for path in paths}
    assert {path.name: path.read_bytes() for path in write_report(tmp_path)} == first
    assert read_json(tmp_path / "summary.json")["reference"] == "cross-entropy"
