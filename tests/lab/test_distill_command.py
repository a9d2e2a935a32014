import json

import pytest

from maxsup import cli
from maxsup.lab import records

FAST = ["--epochs", "1", "--data.train-size", "100"]


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """A comparison of two methods, one of them with a second seed, trained beside it."""
    out = tmp_path_factory.mktemp("teachers")
    methods = ["--methods", "label-smoothing", "max-sup", "--seeds", "0", "--workers", "1"]
    assert cli.main(["compare", "digits-convnet", *FAST, *methods, "--out", str(out / "both")]) == 0
    extra = ["--method", "max-sup", "--seed", "1"]
    assert cli.main(["train", "digits-convnet", *FAST, *extra, "--out", str(out / "one")]) == 0
    return out


def test_a_comparisons_networks_teach_and_the_students_are_compared(teachers, tmp_path, capsys):
    command = ["distill", str(teachers / "both"), "--out", str(tmp_path), "--temperature", "2", "--workers", "1"]
    assert cli.main(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "paired difference from distilled-from-label-smoothing" in shown
    comparison = records.read_comparison(tmp_path)
    assert comparison.methods == ["distilled-from-label-smoothing", "distilled-from-max-sup", "cross-entropy"]
    assert comparison.seeds == [0]
    assert [run.status for run in comparison.runs] == ["finished"] * 3
    # The students' recipe is the teachers', the epochs and images of the command line included.
    assert comparison.recipe["name"] == "digits-convnet-distilled"
    assert (comparison.recipe["epochs"], comparison.recipe["data"]["train_size"]) == (1, 100)
    assert (comparison.recipe["temperature"], comparison.recipe["weight"]) == (2.0, 0.9)
    assert comparison.recipe["teachers"] == [str((teachers / "both").resolve())]
    assert set(json.loads((tmp_path / "summary.json").read_text())["methods"]) == set(comparison.methods)
    before = (tmp_path / "runs/distilled-from-max-sup/seed-0/result.json").read_bytes()
    assert cli.main(command) == 0  # again: nothing is trained
    assert (tmp_path / "runs/distilled-from-max-sup/seed-0/result.json").read_bytes() == before
    assert cli.main(["analyze", str(tmp_path / "runs/distilled-from-max-sup/seed-0"), "--workers", "1"]) == 0


def test_another_recipe_for_the_students_and_chosen_teachers(teachers, tmp_path):
    out = ["--out", str(tmp_path), "--no-alone", "--workers", "1"]
    student = ["--student", "digits-convnet", "--epochs", "2", "--data.train-size", "50"]
    chosen = ["--methods", "max-sup", "--seeds", "1", "0"]
    folders = [str(teachers / "both"), str(teachers / "one")]
    assert cli.main(["distill", *folders, *student, *chosen, *out]) == 0
    comparison = records.read_comparison(tmp_path)
    assert (comparison.methods, comparison.seeds) == (["distilled-from-max-sup"], [0, 1])
    assert comparison.recipe["epochs"] == 2
    assert [run.info["teacher"]["path"] for run in comparison.runs] == [
        str((teachers / "both/runs/max-sup/seed-0").resolve()),
        str((teachers / "one").resolve()),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "`maxsup distill` takes folders of the teachers' runs"),
        (["--out", "x"], "`maxsup distill` takes folders of the teachers' runs"),
        (["absent", "--out", "x"], "absent: no run and no comparison here"),
        (["both", "--student", "digit-convnet", "--out", "x"], "unknown recipe 'digit-convnet'; did you mean"),
        (
            ["both", "--methods", "maxsup", "--out", "x"],
            "unknown method of the teachers 'maxsup'; did you mean max-sup",
        ),
        (["both", "one", "--out", "x"], "no finished teacher for label-smoothing seed 1; --methods and --seeds choose"),
        (["both", "both/runs/max-sup/seed-0", "--temperatur", "3", "--out", "x"], "unknown option '--temperatur'"),
        (["both", "--weight", "2", "--out", "x"], "weight must be from 0 to 1, got 2.0"),
    ],
)
def test_a_wrong_command_line_is_one_line(teachers, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(teachers)
    assert cli.main(["distill", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err
    assert not (teachers / "x").exists()
