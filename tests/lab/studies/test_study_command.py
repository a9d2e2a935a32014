import json
import re
import shutil

import pytest

from maxsup import cli
from maxsup.lab.commands import studies as commands
from maxsup.lab.studies import cost, listing
from tests.lab.studies.conftest import tiny


@pytest.fixture(autouse=True)
def studies(monkeypatch):
    for module in ("maxsup.lab.studies", "maxsup.lab.studies.listing"):
        monkeypatch.setattr(f"{module}.STUDIES", {"tiny": tiny})


def run(capsys, *arguments):
    try:
        code = cli.main(["study", *arguments])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_rehearsal_from_the_command_line(capsys, tmp_path):
    arguments = ["tiny", "--seeds", "0", "--scale", "0.5", "--alpha.start", "0.05", "--workers", "1"]
    code, out, err = run(capsys, *arguments, "--out", str(tmp_path))
    assert code == 0
    assert "tiny: linear, comparison 2 of 2" in err
    assert out.startswith("REHEARSAL of Table 8: The schedule, digits\n")
    assert "5 of 5 runs are finished." in out
    record = json.loads((tmp_path / "study-tiny" / "study.json").read_text())
    assert record["comparisons"]["linear"]["changes"] == [
        "alpha.start: 0.1 -> 0.05",
        "data.train_size: 100 -> 50",
        "epochs: 2 -> 1",
        "optimizer.warmup_epochs: 1 -> 0",
    ]
    # Another scale in the same folder is refused before anything is trained; the same one finds everything done.
    before = (tmp_path / "linear" / "comparison.json").read_text()
    code, _, err = run(capsys, *[word.replace("0.5", "0.9") for word in arguments], "--out", str(tmp_path))
    assert code == 2
    assert "holds a comparison with another recipe" in err
    assert (tmp_path / "linear" / "comparison.json").read_text() == before
    code, again, _ = run(capsys, *arguments, "--out", str(tmp_path))
    assert (code, again) == (0, out)
    assert cli.main(["report", str(tmp_path / "study-tiny")]) == 0
    assert capsys.readouterr().out == out


def test_what_is_on_the_command_line_goes_before_the_scale(capsys, tmp_path, monkeypatch):
    from maxsup.lab.studies import run as running

    asked = {}
    monkeypatch.setattr(running, "run", lambda study, recipes, *rest, **options: asked.update(recipes) or ["none"])
    monkeypatch.setattr(commands, "write_and_print_study", lambda directory: None)
    words = ["--scale", "0.5", "--epochs", "7", "--data=digits", "--image-size", "16", "--data.pad-crop", "2"]
    code, _, err = run(capsys, "tiny", *words, "--out", str(tmp_path))
    assert (code, err) == (1, "maxsup: none\n")
    assert [recipe.epochs for recipe in asked.values()] == [7, 7]
    of = asked["linear"]
    assert (of.data.train_size, of.data.image_size, of.data.pad_crop) == (50, 16, 2)
    assert [recipe.alpha.schedule for recipe in asked.values()] == ["constant", "linear"]


def test_a_run_that_fails_is_told_and_the_report_is_written(capsys, made, tmp_path):
    directory = shutil.copytree(made, tmp_path / "copy")
    broken = directory / "linear/runs/max-sup/seed-1"
    (broken / "result.json").unlink()
    (broken / "checkpoint.pt").write_bytes(b"no checkpoint")
    code, out, err = run(capsys, "tiny", "--seeds", "0", "1", "--workers", "1", "--out", str(directory))
    assert code == 1
    assert "maxsup: linear: max-sup seed 1 failed" in err
    assert "9 of 10 runs are finished (1 failed)." in " ".join(out.split())
    assert (directory / "study-tiny" / "report.html").is_file()


def test_the_list_says_what_a_study_needs(capsys, monkeypatch):
    monkeypatch.setitem(cost.IMAGES, "digits", cost.Images("the digits", 1257, 10, 8))
    code, out, _ = run(capsys, "list")
    assert code == 0
    assert out.startswith(f"{listing.PAPERS}\n\ntiny  Table 8: The schedule, digits\n")
    fields = dict(re.findall(r"^ {6}(\w[\w ]*?)  +(.*)$", out, re.MULTILINE))
    assert fields == {
        "data": "the digits (100 training images)",
        "recipes": "constant, linear",
        "methods": "cross-entropy, label-smoothing, max-sup",
        "runs": "15 (3 seeds)",  # cross-entropy once
        "GPU hours": "not measured here",
    }
    speed = cost.Speed(1000.0, 32, "a GPU")
    monkeypatch.setattr(cost, "measure", lambda recipe: speed)
    code, out, err = run(capsys, "list", "tiny", "--measure", "--seeds", "10")
    assert code == 0
    assert err == "digits-convnet: 1,000.0 images/s, batch 32 of 32, a GPU\n"
    # 10 seeds · 5 · 2 epochs · 100 images at 1,000 a second: 10 s.
    assert "GPU hours  0.0\n" in out
    assert "Hours are those of one a GPU" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tniy", "--out", "x"], "unknown study 'tniy'; did you mean tiny?"),
        (["list", "tnyi"], "unknown study 'tnyi'; did you mean tiny?"),
        (["tiny", "--scale", "2", "--out", "x"], "scale must be above 0 and at most 1, got 2.0"),
        (["tiny", "--data", "digit", "--out", "x"], "unknown data set 'digit'; did you mean digits"),
        (["tiny", "--probe-data", "digit", "--out", "x"], "unknown data set 'digit'; did you mean digits"),
        (["tiny", "--scales", "1", "--out", "x"], "unknown option '--scales'; did you mean --scale"),
        (["tiny", "--seeds", "-1", "--out", "x"], "seeds must be at least 0, got -1"),
    ],
)
def test_a_wrong_command_line_is_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_help_names_the_studies(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "NAME is one of tiny" in out
    assert run(capsys) == (2, "", "maxsup: `maxsup study` takes list, or a study first: tiny\n")
