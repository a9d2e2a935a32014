import pytest

from maxsup.lab.records import read_comparison, read_json, read_run, run_directory, write_json
from maxsup.lab.report import figures, summarize, tables, write_report
from maxsup.lab.report.analyses import read_analyses
from tests.lab.report import factory

COUNTS = [500, 100, 20, 4]
SHOTS = {"definition": "some words", "classes": {"many": [0], "medium": [1, 2], "few": [3]}}


@pytest.fixture
def comparison(tmp_path):
    """Three methods × three seeds with wrong labels, a long tail and corrupted images."""
    factory.analyzed(tmp_path, seeds=3)
    for method in factory.MANY:
        for seed in range(3):
            path = run_directory(tmp_path, method, seed)
            write_json(path / "corruptions.json", factory.corruptions(method, seed))
            info = read_json(path / "run.json")
            info["recipe"]["data"] = {"label_noise": 0.25, "noise_kind": "pair"}
            write_json(path / "run.json", info | {"training_images": {"per_class": COUNTS, "flipped": 156}})
            result = read_json(path / "result.json")
            clean = {"n": 624, "accuracy": 0.8, "memorized": 0.1 + seed / 100, "recovered": 0.7, "r_squared": 0.5}
            result["measures"] |= {"train_clean": clean}
            write_json(path / "result.json", result)
            analysis = read_json(path / "analysis.json")
            shots = {"accuracy_many": 0.9, "accuracy_medium": 0.8, "accuracy_few": None, "class_accuracy": 0.85}
            analysis["measures"]["test"] |= shots
            write_json(path / "analysis.json", analysis | {"shots": SHOTS})
    return tmp_path


def summary_of(directory):
    return summarize(read_comparison(directory))


def group_of(summary, name):
    return next(group for group in summary["groups"] if group["name"] == name)


def grid_of(summary, caption):
    return next(grid for grid in tables.grids(summary) if grid.caption.startswith(caption))


def test_no_section_where_no_run_has_such_measures(tmp_path):
    names = [group["name"] for group in summary_of(factory.analyzed(tmp_path, seeds=2))["groups"]]
    assert not {"label-noise", "long-tail", "corruptions"} & set(names)


def test_wrong_labels_are_told_and_measured(comparison):
    summary = summary_of(comparison)
    assert group_of(summary, "label-noise")["notes"] == [
        "156 of 624 training images, 25% of each class, have a wrong label: the next class, the same for all methods "
        "and seeds. The labels of validation and test images are right."
    ]
    grid = grid_of(summary, "Training images, some with wrong labels: mean")
    row = dict(zip(grid.heads, (str(cell) for cell in grid.rows[0]), strict=True))
    assert row["memorised %"] == "11.0 ± 1.0"
    assert row["accuracy on right labels %"].startswith("80.0")


def test_long_tails_tell_the_groups_and_leave_out_what_no_run_has(comparison):
    summary = summary_of(comparison)
    assert group_of(summary, "long-tail")["notes"] == ["Classes: 1 many, 2 medium, 1 few. By some words."]
    grid = grid_of(summary, "Test images, by the number of training images of their class: mean")
    assert grid.heads == ["method", "n", "all classes %", "many %", "medium %"]


def test_corruptions_by_kind_family_and_severity(comparison):
    of = read_analyses(read_run(run_directory(comparison, "max-sup", 1)))
    assert of.problems == []
    # 8.1% clean; noise 10% more a severity, fog 5%: means over the five severities add 30% and 15%.
    assert of.values["corruptions.error"] == pytest.approx(0.081 + 0.225)
    assert of.values["corruptions.error.noise"] == pytest.approx(0.381)
    assert of.values["corruptions.error.fog"] == pytest.approx(0.231)
    assert [of.values[f"corruptions.nll.{s}"] for s in (0, 5)] == pytest.approx([0.081, 0.456])
    summary = summary_of(comparison)
    grid = grid_of(summary, "error % by severity")
    assert grid.heads == ["method", "n", "clean", "1", "2", "3", "4", "5"]
    # Many columns: the deviation stands below the mean.
    assert (grid.rows[2][2].text, grid.rows[2][2].detail) == ("8.10", "± 0.10")
    kinds = grid_of(summary, "error % by kind")
    assert kinds.heads == ["method", "n", "impulse noise", "fog"]
    assert kinds.rows[0][2].value == pytest.approx(0.101 + 0.3)
    # One measure with differences for each kind: no two rows of the tests have one name and method.
    named = [(str(row[0]), str(row[1])) for row in tables.tests(summary).rows if "fog" in str(row[0])]
    assert len(named) == len(set(named)) == 2


def test_damaged_and_missing_records_are_told(comparison):
    factory.spoil(run_directory(comparison, "max-sup", 0) / "corruptions.json")
    (run_directory(comparison, "max-sup", 1) / "corruptions.json").unlink()
    broken = run_directory(comparison, "max-sup", 2) / "corruptions.json"
    content = read_json(broken)
    del content["mean"]
    write_json(broken, content)
    notes = group_of(summary_of(comparison), "corruptions")["notes"]
    assert [note.partition(" (")[0] for note in notes] == [
        "max-sup seed 0: corruptions.json: not a readable JSON record",
        "max-sup seed 2: corruptions.json: not such a record",
        "corruptions.json is missing for max-sup seed 1.",
    ]


def test_the_curves_and_the_page(comparison):
    drawn = figures.all_figures(read_comparison(comparison))
    picture = next(picture for picture in drawn.pictures if picture.name == "corruptions")
    lines = {line.get_label(): line.get_ydata() for line in picture.figure.axes[0].get_lines()}
    assert list(lines) == factory.MANY
    assert lines["max-sup"] == pytest.approx([8.1, 15.6, 23.1, 30.6, 38.1, 45.6])
    write_report(comparison)
    page = (comparison / "report.html").read_text()
    for text in ("Wrong training labels", "Long-tailed classes", "Corrupted test images", "figure-corruptions-title"):
        assert text in page
