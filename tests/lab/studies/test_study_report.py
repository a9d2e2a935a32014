import dataclasses
import json
import shutil

import pytest

from maxsup.lab.recipes import Alpha
from maxsup.lab.records import RecordError, read_json, write_json
from maxsup.lab.report.study import grids, markdown, summarize_study, write_study_report
from maxsup.lab.studies.study import as_record, changes
from tests.lab.report import factory
from tests.lab.studies.conftest import RECIPE, recipes, tiny

CE, LS, OURS = "cross-entropy", "label-smoothing", "max-sup"
SEEDS = range(8)
# Accuracies by comparison and method: MaxSup gains a point over label smoothing in the linear comparison, on all seeds.
ACCURACY = {
    "constant": {CE: [0.70 + s / 1000 for s in SEEDS], LS: [0.72 + s / 1000 for s in SEEDS], OURS: [0.72] * 8},
    "linear": {LS: [0.74 + s / 1000 for s in SEEDS], OURS: [0.75 + s / 1000 + (s % 2) / 10000 for s in SEEDS]},
}


def written(directory, rehearsal=False, changed=None):
    """A study's folder with runs of known accuracies."""
    study = tiny()
    for name, accuracy in ACCURACY.items():
        factory.measured(directory / name, accuracy, recipe={"name": "digits-convnet"})
    changed = changed or {"constant": [], "linear": []}
    write_json(directory / "study-tiny" / "study.json", as_record(study, changed, rehearsal))
    return directory / "study-tiny"


def test_the_papers_numbers_and_the_difference_to_them_stand_beside_ours(tmp_path):
    table, *differences, _ = grids(summarize_study(written(tmp_path)))
    assert table.heads == ["", "constant α", "linear α", "paper", "less paper"]
    baseline = "70.35 ± 0.24 n = 8 [70.15, 70.55]"
    assert table.texts()[0] == [CE, baseline, baseline, "74.21", "−3.86"]
    # t = 2.365 for 7 degrees of freedom: 75.355 ± 2.365 · 0.2493 / √8.
    linear = "75.36 ± 0.25 n = 8 [75.15, 75.56]"
    assert table.texts()[2] == [OURS, "72.00 ± 0.00 n = 8 [72.00, 72.00]", linear, "76.58 ± 0.12", "−1.22"]
    from_first, schedule, ours = differences
    assert from_first.heads == ["", "constant α", "linear α", "paper"]
    assert [row[0] for row in from_first.texts()] == [LS, OURS]
    assert from_first.rows[1][2].text == "+5.005 †"
    assert from_first.rows[1][3].text == "+2.37"
    assert schedule.heads == ["", "linear α"]
    assert schedule.rows[0][1].text == "+2.00 †"
    assert ours.rows[0][2].text == "+1.005 †"
    assert ours.rows[0][2].better is True
    assert ours.rows[0][3].text == "+0.58"


def test_the_verdict_says_what_the_studys_own_questions_gave(tmp_path):
    verdict = summarize_study(written(tmp_path))["verdict"]
    assert verdict[0] == "40 of 40 runs are finished."
    assert verdict[1] == (
        "Difference from constant α: significantly higher in label-smoothing at linear α (+2.00), "
        "max-sup at linear α (+3.36)."
    )
    assert verdict[2] == (
        "max-sup less label-smoothing: significantly higher in linear α (+1.005; the paper +0.58); "
        "significantly lower in constant α (−0.35)."
    )


def test_every_table_of_a_rehearsal_says_so_and_nothing_is_compared_with_the_paper(tmp_path):
    changed = {"constant": [], "linear": ["epochs: 300 -> 2"]}
    directory = written(tmp_path, rehearsal=True, changed=changed)
    summary = summarize_study(directory)
    tables = grids(summary)
    assert len(tables) == 5
    assert all(table.caption.startswith("REHEARSAL: ") for table in tables)
    assert tables[0].heads == ["", "constant α", "linear α", "paper"]  # no "less paper"
    assert all(cell["difference"] is None for cell in summary["cells"])
    assert summary["verdict"][0].startswith("REHEARSAL: ")
    text = markdown(summary)
    assert text.startswith("# REHEARSAL of Table 8: The schedule, digits\n")
    assert text.count("REHEARSAL: ") == 6
    assert "epochs: 300 -> 2" in text
    write_study_report(directory)
    html = (directory / "report.html").read_text()
    assert html.count("REHEARSAL: ") == 7  # the picture too
    assert "<h1>REHEARSAL of Table 8" in html


def test_the_report_links_to_the_comparisons_and_says_what_is_missing(tmp_path):
    directory = written(tmp_path)
    lost = tmp_path / "linear/runs/max-sup/seed-3"
    (lost / "result.json").unlink()
    paths = write_study_report(directory)
    names = ["summary.json", "summary.md", "report.html", "cells.svg", "cells.pdf"]
    assert [path.name for path in paths] == names
    html = paths[2].read_text()
    assert '<a href="../linear/report.html">' in html
    assert "39 of 40 runs are finished (1 unfinished)." in html
    assert "n = 7" in html
    summary = json.loads(paths[0].read_text())
    assert summary["comparisons"]["linear"]["runs"] == {"finished": 15, "unfinished": 1}
    shutil.rmtree(tmp_path / "linear")
    with pytest.raises(RecordError, match=r"no comparison here"):
        summarize_study(directory)
    with pytest.raises(RecordError, match=r"no study here \(study\.json is missing\)"):
        summarize_study(tmp_path)


def test_a_record_from_before_there_were_several_tables_makes_the_same_report(tmp_path):
    directory = written(tmp_path)
    now = summarize_study(directory)
    record = read_json(directory / "study.json")
    for contrast in record["contrasts"]:
        del contrast["told"]
    for column in record["columns"]:
        del column["group"]
    write_json(directory / "study.json", record)
    before = summarize_study(directory)
    assert before["verdict"] == now["verdict"]
    assert markdown(before) == markdown(now)


def test_settings_that_only_make_it_faster_make_no_rehearsal():
    original = tiny()
    faster = {name: dataclasses.replace(recipe, cpu_threads=2) for name, recipe in recipes(original).items()}
    assert changes(original, original.with_recipes(faster)) == {"constant": [], "linear": []}
    other = recipes(original) | {"linear": dataclasses.replace(RECIPE, epochs=1, alpha=Alpha(0.1, 0.3))}
    assert changes(original, original.with_recipes(other))["linear"] == ["alpha.end: 0.2 -> 0.3", "epochs: 2 -> 1"]


def test_the_picture_has_the_points_of_the_table(tmp_path):
    from maxsup.lab.report.figures.study import cells

    summary = summarize_study(written(tmp_path))

    def points(axes):
        return [line.get_xydata().tolist() for line in axes.lines if line.get_marker() in "oD"]

    constant, linear = cells(summary).axes
    (ours,) = points(constant)
    assert [y for _, y in ours] == pytest.approx([-0.14, 0.86, 1.86])
    assert [x for x, _ in ours] == pytest.approx([70.35, 72.35, 72.0])
    assert [[x for x, _ in of] for of in points(linear)] == [
        pytest.approx([70.35, 74.35, 75.355]),
        pytest.approx([74.21, 76.0, 76.58]),
    ]
    assert [
        line.get_marker() for line in cells(summary | {"rehearsal": True}).axes[1].lines if line.get_marker() == "D"
    ] == []
