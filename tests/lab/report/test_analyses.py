import pytest

from maxsup.lab.records import read_comparison, read_json, read_run, run_directory, write_json
from maxsup.lab.report import summarize
from maxsup.lab.report.analyses import read_analyses
from tests.lab.report import factory


@pytest.fixture
def run(tmp_path):
    factory.analyzed(tmp_path, seeds=1)
    return run_directory(tmp_path, "max-sup", 0)


def test_every_record_gives_its_measures(run):
    of = read_analyses(read_run(run))
    record = read_json(run / "analysis.json")
    assert of.problems == []
    assert of.values["test.aurc"] == record["measures"]["test"]["aurc"]
    assert of.values["test.accuracy"] == factory.value("accuracy", "max-sup", 0)
    assert of.values["analysis.temperature"] == record["temperature"]["value"] == 0.58
    assert of.values["probe.digits.linear"] == 0.94
    assert of.values["localization.fashion-scenes.iou@0.5"] == pytest.approx(0.22)
    assert of.fits == {"digits": (1, 4)}  # one of three on the path, and the refit converged


def test_what_training_measured_stays(run):
    record = read_json(run / "analysis.json")
    record["measures"]["test"]["accuracy"] = 0.1
    write_json(run / "analysis.json", record)
    assert read_analyses(read_run(run)).values["test.accuracy"] == factory.value("accuracy", "max-sup", 0)


def test_undefined_measures_are_absent(run):
    record = read_json(run / "analysis.json")
    record["measures"]["test"]["nc1"] = None
    write_json(run / "analysis.json", record)
    of = read_analyses(read_run(run))
    assert of.problems == []
    assert "test.nc1" not in of.values


def _set(record, value, *keys):
    *path, last = keys
    for key in path:
        record = record[key]
    record[last] = value


@pytest.mark.parametrize(
    ("file", "keys", "value", "reason"),
    [
        ("result.json", ("measures", "test", "nll"), "low", "test.nll must be a finite number or null, got 'low'"),
        ("analysis.json", ("measures",), None, "not such a record (TypeError"),
        (
            "analysis.json",
            ("measures", "test"),
            {"aurc": "low"},
            "test.aurc must be a finite number or null, got 'low'",
        ),
        ("analysis.json", ("temperature",), {}, "not such a record (KeyError: 'value')"),
        ("analysis.json", ("settings",), None, "not such a record (AttributeError"),
        ("probe-digits.json", ("linear", "path"), [{}], "not such a record (KeyError: 'converged')"),
        ("probe-digits.json", ("knn", "accuracy"), True, "probe.digits.knn must be a finite number or null, got True"),
        ("localization-fashion-scenes.json", ("iou",), [0.5], "iou must have one value per threshold (9), got 1"),
        ("localization-fashion-scenes.json", ("schema_version",), 7, "schema version 7"),
    ],
)
def test_a_record_of_another_kind_is_a_problem_and_gives_nothing(run, file, keys, value, reason):
    whole = read_analyses(read_run(run))
    record = read_json(run / file)
    _set(record, value, *keys)
    write_json(run / file, record)
    of = read_analyses(read_run(run))
    (problem,) = of.problems
    assert (problem.run, problem.file) == ("max-sup seed 0", file)
    assert reason in problem.reason
    lost = whole.values.keys() - of.values.keys()
    kind = {"result": "", "analysis": ("test.", "analysis."), "probe": "probe.", "localization": "localization."}[
        file.split(".")[0].split("-")[0]
    ]
    assert lost
    assert all(key.startswith(kind) for key in lost)
    assert file not in of.settings


def test_a_record_of_why_there_is_none_says_so(run):
    write_json(run / "analysis.json", {"problem": "outputs.safetensors: truncated"})
    (problem,) = read_analyses(read_run(run)).problems
    assert (problem.file, problem.reason) == ("analysis.json", "outputs.safetensors: truncated")


@pytest.mark.parametrize("file", ["analysis.json", "probe-digits.json", "outputs.safetensors"])
def test_a_truncated_file_is_a_problem(run, file):
    factory.spoil(run / file)
    (problem,) = read_analyses(read_run(run)).problems
    assert problem.file == file
    assert str(run) not in problem.reason


def notes(summary, group):
    return next(of["notes"] for of in summary["groups"] if of["name"] == group)


def test_groups_say_what_was_not_done(tmp_path):
    summary = summarize(read_comparison(factory.comparison(tmp_path)))
    assert notes(summary, "accuracy") == []
    assert notes(summary, "calibration") == notes(summary, "selective") == ["Not analysed: maxsup analyze DIR."]
    assert notes(summary, "transfer") == ["Not probed: maxsup probe DIR --data NAME."]
    assert notes(summary, "overlays") == ["No overlay was measured against masks."]
    assert "test.aurc" not in summary["methods"]["max-sup"]["measures"]


def test_groups_name_what_is_missing_damaged_or_at_its_bound(tmp_path):
    summary = summarize(read_comparison(factory.spoiled(tmp_path)))
    outputs, analysis, missing, bound = notes(summary, "calibration")
    assert outputs.startswith("max-sup seed 0: outputs.safetensors: damaged")
    assert analysis.startswith("max-sup seed 1: analysis.json: not a readable JSON record")
    assert missing == "analysis.json is missing for max-sup seed 0."
    assert bound == "The temperature stopped at the bound of its search: max-sup seed 3."
    assert notes(summary, "selective") == [outputs, analysis, missing]
    (probe,) = notes(summary, "transfer")
    assert probe.startswith("cross-entropy seed 3: probe-digits.json: not a readable JSON record")
    (overlay,) = notes(summary, "overlays")
    assert overlay.startswith("cross-entropy seed 4: localization-fashion-scenes.json: not such a record")
    measures = summary["methods"]["max-sup"]["measures"]
    # Ten seeds, less the missing run; less the two without a readable analysis.
    assert (measures["test.accuracy"]["n"], measures["test.aurc"]["n"]) == (9, 7)
    # Seed 3 of the reference has no probe, seed 5 of MaxSup no run.
    assert measures["probe.digits.linear"]["difference"]["n"] == 8


def test_a_record_from_before_a_setting_was_there_is_made_alike(tmp_path):
    factory.analyzed(tmp_path, seeds=2)
    for seed, data in ((0, {"name": "digits"}), (1, {"name": "digits", "mixup": 0.0})):
        file = run_directory(tmp_path, "max-sup", seed) / "probe-digits.json"
        record = read_json(file)
        write_json(file, record | {"settings": record["settings"] | {"data": data}})
    for method in {"cross-entropy", "label-smoothing"}:
        for file in (tmp_path / "runs" / method).glob("*/probe-digits.json"):
            record = read_json(file)
            write_json(file, record | {"settings": record["settings"] | {"data": {"name": "digits"}}})
    assert notes(summarize(read_comparison(tmp_path)), "transfer") == []


@pytest.mark.parametrize(("name", "value"), [("neighbors", 5), ("data_sha256", "other images")])
def test_records_made_otherwise_are_not_passed_over(tmp_path, name, value):
    factory.analyzed(tmp_path, seeds=2)
    file = run_directory(tmp_path, "max-sup", 1) / "probe-digits.json"
    record = read_json(file)
    record["settings"][name] = value
    write_json(file, record)
    summary = summarize(read_comparison(tmp_path))
    assert notes(summary, "transfer") == [
        "probe-digits.json was made with different settings in different runs: they are not comparable."
    ]
    assert notes(summary, "calibration") == []  # the hashes of the runs' outputs differ, and may
