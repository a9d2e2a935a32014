import json
import shutil
import statistics

import pytest

from maxsup import cli
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.report.claims.sources import read_sources
from maxsup.lab.report.study import grids, summarize_study
from maxsup.lab.studies import run as running
from maxsup.lab.studies import tuning
from maxsup.lab.studies.grid import Point
from tests.lab.studies.conftest import RECIPE

LS, OURS = "label-smoothing", "max-sup"
SMALL = ["--epochs", "1", "--batch-size", "32", "--data.train-size", "64", "--data.pad-crop", "0", "--workers", "1"]
GRID = ["--methods", LS, OURS, "--lrs", "0.0005", "0.1", "--weight-decays", "5e-4"]
SEEDS = ["--seeds", "0", "1", "--tuning-seeds", "70", "71"]
COMMAND = ["tune", "digits-convnet", *SMALL, "--optimizer.lr", "0.0005", *GRID, *SEEDS]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Two methods at two learning rates, tuned and compared once; the recipe's own rate is far too low."""
    directory = tmp_path_factory.mktemp("runs") / "tuned"
    assert cli.main([*COMMAND, "--out", str(directory)]) == 0
    return directory


def results(directory):
    return {path: json.loads(path.read_text()) for path in sorted(directory.rglob("result.json"))}


def accuracy(directory, point, method, seed, split):
    path = directory / point / "runs" / method / f"seed-{seed}" / "result.json"
    return json.loads(path.read_text())["measures"][split]["accuracy"]


def test_the_record_has_every_mean_and_the_choice_is_the_best_of_them(tuned):
    record = json.loads((tuned / "tuned.json").read_text())
    assert (record["own"], record["tuning_seeds"], record["seeds"]) == (
        {"lr": 0.0005, "weight_decay": 5e-4},
        [70, 71],
        [0, 1],
    )
    assert [of["comparison"] for of in record["grid"]] == ["grid/lr-0.0005-wd-0.0005", "grid/lr-0.1-wd-0.0005"]
    for method in (LS, OURS):
        found = record["methods"][method]
        for one, of in zip(found["tried"], record["grid"], strict=True):
            values = [accuracy(tuned, of["comparison"], method, seed, "validation") for seed in (70, 71)]
            assert one["validation_accuracy"] == pytest.approx(statistics.mean(values), abs=1e-12)
            assert one["std"] == pytest.approx(statistics.stdev(values), abs=1e-12)
            assert (one["n"], one["diverged"]) == (2, 0)
        best = max(found["tried"], key=lambda one: one["validation_accuracy"])
        assert found["chosen"] == {"lr": best["lr"], "weight_decay": best["weight_decay"]}
        assert found["chosen"]["lr"] == 0.1  # 0.0005 learns nothing in two steps
        assert found["at_the_edge"] == ["learning rate"]


def test_grid_and_comparison_share_no_seed_and_no_run_is_made_in_vain(tuned):
    made = {path.relative_to(tuned).as_posix() for path in results(tuned)}
    points = ("lr-0.0005-wd-0.0005", "lr-0.1-wd-0.0005")
    assert made == {
        f"{part}/{point}/runs/{method}/seed-{seed}/result.json"
        for part, seeds in (("grid", (70, 71)), ("final", (0, 1)))
        for point in points
        for method in (LS, OURS)
        for seed in seeds
    }
    assert not list((tuned / "grid").rglob("report.html"))  # which would show what was not to be looked at


def test_claims_are_tested_on_the_comparison_and_not_on_the_grid(tuned):
    finals = ["lr-0.0005-wd-0.0005", "lr-0.1-wd-0.0005"]
    assert [of.name for of in read_sources(tuned)] == [f"final/{name}" for name in finals]
    assert [of.name for of in read_sources(tuned.parent)] == [f"{tuned.name}/final/{name}" for name in finals]
    assert [of.name for of in read_sources(tuned / "grid")] == finals  # of which nobody asks by chance


def test_the_report_has_both_tables_from_the_runs_that_count(tuned):
    summary = summarize_study(tuned / "final" / "study-tuned")
    assert (summary["rehearsal"], summary["published"]) == (False, False)
    tables = grids(summary)
    assert [grid.section for grid in tables] == [
        "The same settings for all",
        "Each method's own settings",
        f"Difference from {LS}, The same settings for all",
        f"Difference from {LS} (lr 0.1, weight decay 0.0005), Each method's own settings",
        "Own settings less the same for all",
        f"{OURS} less {LS}, The same settings for all",
        f"{OURS} (lr 0.1, weight decay 0.0005) less {LS} (lr 0.1, weight decay 0.0005), Each method's own settings",
        "Comparisons",
    ]
    same, own = tables[:2]
    assert [row[0] for row in same.texts()] == [LS, OURS]
    assert [row[0] for row in own.texts()] == [f"{of} (lr 0.1, weight decay 0.0005)" for of in (LS, OURS)]
    for table, point in ((same, "lr-0.0005-wd-0.0005"), (own, "lr-0.1-wd-0.0005")):
        assert table.heads[1] == "accuracy %"
        for row, method in zip(table.rows, (LS, OURS), strict=True):
            values = [accuracy(tuned / "final", point, method, seed, "test") for seed in (0, 1)]
            assert row[1].value == pytest.approx(statistics.mean(values))
    gain = next(of for of in summary["contrasts"] if of["title"] == "Own settings less the same for all")
    (ours,) = (pair for pair in gain["pairs"] if (pair["row"], pair["column"]) == (OURS, "accuracy %"))
    assert ours["mean"] == pytest.approx(own.rows[1][1].value - same.rows[1][1].value)


def test_the_markdown_shows_the_grid_and_what_was_chosen(tuned):
    text = (tuned / "tuned.md").read_text()
    assert text == tuning.markdown(json.loads((tuned / "tuned.json").read_text()))
    lines = [line for line in text.splitlines() if line.startswith("| lr ")]
    assert lines[0].startswith("| lr 0.0005, weight decay 0.0005 (the recipe's) | ")
    assert "**" not in lines[0]
    assert lines[1].count("**") == 4
    assert lines[1].count("n = 2") == 2
    assert "At the edge of the grid, beyond which a better one may lie: label-smoothing (learning rate)" in text
    assert "No test result is read for the choice." in text


def test_the_same_command_makes_only_what_is_missing(tuned, tmp_path, capsys, monkeypatch):
    directory = shutil.copytree(tuned, tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in results(directory)}
    lost = [
        directory / part / "runs" / OURS / seed / "result.json"
        for part, seed in (("grid/lr-0.1-wd-0.0005", "seed-71"), ("final/lr-0.0005-wd-0.0005", "seed-0"))
    ]
    record = (directory / "tuned.json").read_text()
    for path in lost:
        shutil.rmtree(path.parent)
    (directory / "tuned.json").unlink()
    train = running.train

    def interrupted(recipe, methods, seeds, target, **how):
        problems = train(recipe, methods, seeds, target, **how)
        if target == directory / "grid/lr-0.1-wd-0.0005":
            raise KeyboardInterrupt
        return problems

    monkeypatch.setattr(running, "train", interrupted)
    assert cli.main([*COMMAND, "--out", str(directory)]) == 130
    assert not (directory / "tuned.json").exists()
    monkeypatch.setattr(running, "train", train)
    assert cli.main([*COMMAND, "--out", str(directory)]) == 0
    after = {path: path.stat().st_mtime_ns for path in results(directory)}
    assert sorted(path for path in before if after[path] != before[path]) == sorted(lost)
    assert (directory / "tuned.json").read_text() == record
    assert "Each method's own settings" in " ".join(capsys.readouterr().out.split())


def test_a_run_of_the_grid_that_fails_leaves_no_choice(tuned, tmp_path, capsys):
    directory = shutil.copytree(tuned, tmp_path / "copy")
    (directory / "tuned.json").unlink()
    broken = directory / "grid/lr-0.1-wd-0.0005/runs" / OURS / "seed-70"
    (broken / "result.json").unlink()
    (broken / "checkpoint.pt").write_bytes(b"no checkpoint")
    assert cli.main([*COMMAND, "--out", str(directory)]) == 1
    captured = capsys.readouterr()
    assert "maxsup: lr-0.1-wd-0.0005: max-sup seed 70 failed" in captured.err
    assert "nothing is chosen before all runs of the grid are done" in captured.err
    assert captured.out == ""
    assert not (directory / "tuned.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lrs", "0.1", "-0.1"], "lrs must be finite numbers above 0, got -0.1"),
        (["--weight-decays", "-0.1"], "weight_decays must be finite numbers of at least 0, got -0.1"),
        (["--methods", "maxsup"], "unknown method 'maxsup'; did you mean max-sup"),
        (["--tuning-seeds", "1", "0", "12"], "tuning_seeds must be other than seeds, which would compare what they"),
        (["--tuning-seeds", "-1"], "seeds must be at least 0, got -1"),
        (["--lr", "0.1"], "unknown option '--lr'; did you mean --lrs"),
    ],
)
def test_a_wrong_command_line_is_one_line(capsys, tmp_path, arguments, message):
    code = cli.main(["tune", "digits-convnet", *arguments, "--out", str(tmp_path / "new")])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert message in captured.err
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("name", ["methods", "tuning_seeds", "seeds", "lrs", "weight_decays"])
def test_nothing_of_a_plan_may_be_empty(name):
    asked = {"methods": [OURS], "seeds": [0], "tuning_seeds": [9], "lrs": [0.1], "weight_decays": [0.0]}
    with pytest.raises(ValueError, match=f"{name} must name at least one"):
        tuning.plan(digits_convnet(), **asked | {name: []})


def test_methods_that_keep_the_recipes_point_stand_in_both_tables_with_the_same_runs():
    own = Point(RECIPE.optimizer.lr, RECIPE.optimizer.weight_decay)
    other = Point(0.1, 5e-4)
    plan = tuning.plan(RECIPE, ["cross-entropy", LS, OURS], seeds=range(10), tuning_seeds=[1000, 1001])
    study = tuning.final_study(plan, {"cross-entropy": own, LS: other, OURS: own})
    assert {of.name: study.methods(of.name) for of in study.variants} == {
        own.name: ["cross-entropy", LS, OURS],
        other.name: [LS],
    }
    assert {of.seeds for of in study.variants} == {tuple(range(10))}
    (gain,) = (of for of in study.contrasts if of.title == "Own settings less the same for all")
    assert {pair.row for pair in gain.pairs} == {LS}  # the others have nothing that could differ
    assert all(of.title != gain.title for of in tuning.final_study(plan, dict.fromkeys(plan.methods, own)).contrasts)
