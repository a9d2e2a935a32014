import dataclasses
import json

import pytest

from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.records import RecordError, RunRecord, read_run, run_directory, write_json
from maxsup.lab.studies import tuning
from maxsup.lab.studies.grid import Point, Tried, at, choose, distance, edges, own_point, points, tried

RECIPE = digits_convnet()  # lr 0.05, weight decay 5e-4
OWN = Point(0.05, 5e-4)
CE, OURS = "cross-entropy", "max-sup"


def test_the_grid_is_half_once_and_twice_the_recipes_values():
    assert own_point(RECIPE) == OWN
    assert points(RECIPE) == [Point(lr, decay) for lr in (0.025, 0.05, 0.1) for decay in (2.5e-4, 5e-4, 1e-3)]
    assert points(RECIPE, [0.2, 0.1, 0.2], [0.0]) == [Point(0.1, 0.0), Point(0.2, 0.0)]
    assert [of.name for of in points(RECIPE, [1.0], [2.5e-05])] == ["lr-1-wd-2.5e-05"]
    without = dataclasses.replace(RECIPE, optimizer=dataclasses.replace(RECIPE.optimizer, weight_decay=0.0))
    assert points(without) == [Point(lr, 0.0) for lr in (0.025, 0.05, 0.1)]  # no other weight decay without a word


def test_a_point_changes_two_fields_and_its_own_none():
    assert at(RECIPE, OWN) == RECIPE
    other = at(RECIPE, Point(0.1, 1e-3))
    assert (other.optimizer.lr, other.optimizer.weight_decay) == (0.1, 1e-3)
    same = dataclasses.replace(other.optimizer, lr=0.05, weight_decay=5e-4)
    assert dataclasses.replace(other, optimizer=same) == RECIPE


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lrs": []}, "lrs must name at least one value"),
        ({"weight_decays": []}, "weight_decays must name at least one value"),
        ({"lrs": [0.1, -0.1]}, "lrs must be finite numbers above 0, got -0.1"),
        ({"lrs": [0.0]}, "lrs must be finite numbers above 0, got 0.0"),
        ({"lrs": [float("nan")]}, "lrs must be finite numbers above 0, got nan"),
        ({"weight_decays": [-1e-4]}, "weight_decays must be finite numbers of at least 0, got -0.0001"),
        ({"weight_decays": [float("inf")]}, "weight_decays must be finite numbers of at least 0, got inf"),
    ],
)
def test_a_grid_that_is_none(values, message):
    with pytest.raises(ValueError, match=message):
        points(RECIPE, **values)


def test_distances_are_counted_in_doublings():
    assert distance(OWN, OWN) == 0
    assert distance(Point(0.1, 2.5e-4), OWN) == 2
    assert distance(Point(0.4, 5e-4), OWN) == 3
    assert distance(Point(0.05, 0.0), OWN) == float("inf")
    assert distance(Point(0.1, 0.0), Point(0.05, 0.0)) == 1


@pytest.mark.parametrize(
    ("accuracies", "chosen"),
    [
        # The best mean, wherever it is.
        ({OWN: (0.9, 0.9), Point(0.1, 1e-3): (0.95, 0.87)}, Point(0.1, 1e-3)),
        # Equal means: the nearest; the order of the seeds makes no difference.
        ({Point(0.1, 1e-3): (0.7, 0.1, 0.2), Point(0.1, 5e-4): (0.1, 0.2, 0.7)}, Point(0.1, 5e-4)),
        ({Point(0.1, 5e-4): (0.8,), OWN: (0.8,), Point(0.025, 5e-4): (0.8,)}, OWN),
        # As near: the lower learning rate, then the lower weight decay.
        ({Point(0.1, 5e-4): (0.8,), Point(0.025, 5e-4): (0.8,)}, Point(0.025, 5e-4)),
        ({Point(0.05, 1e-3): (0.8,), Point(0.05, 2.5e-4): (0.8,)}, Point(0.05, 2.5e-4)),
    ],
)
def test_the_choice(accuracies, chosen):
    assert choose(CE, [Tried(point, of) for point, of in accuracies.items()], OWN) == chosen


def test_a_point_with_a_run_that_diverged_is_not_chosen():
    spoiled, safe = Tried(Point(0.1, 5e-4), (0.99,), diverged=1), Tried(OWN, (0.5, 0.5))
    assert (spoiled.mean, safe.mean) == (None, 0.5)
    assert choose(CE, [spoiled, safe], OWN) == OWN
    with pytest.raises(ValueError, match=f"{CE} diverged at every point of the grid: give lower --lrs"):
        choose(CE, [spoiled], OWN)


def test_where_the_grid_ends():
    grid = points(RECIPE)
    assert edges(OWN, grid) == []
    assert edges(Point(0.1, 5e-4), grid) == ["learning rate"]
    assert edges(Point(0.025, 1e-3), grid) == ["learning rate", "weight decay"]
    assert edges(Point(0.1, 5e-4), points(RECIPE, None, [5e-4])) == ["learning rate"]  # one value has no edge


def write(directory, method, seed, validation, test, status="finished"):
    path = run_directory(directory, method, seed)
    write_json(path / "run.json", {"method": method, "seed": seed, "recipe": {"name": "small"}})
    measures = {"validation": {"accuracy": validation}, "test": {"accuracy": test}} if status == "finished" else {}
    if status != "unfinished":
        write_json(path / "result.json", {"status": status, "epochs": 1, "measures": measures})


PLAN = tuning.plan(RECIPE, [CE, OURS], seeds=[0, 1], tuning_seeds=[7, 8], lrs=[0.05, 0.1], weight_decays=[5e-4])


def written(directory, test=0.5):
    """Validation prefers the lower rate for cross-entropy and the higher for MaxSup; `test` is any test accuracy."""
    validation = {CE: (0.91, 0.90), OURS: (0.92, 0.94)}
    for place, point in enumerate(PLAN.grid):
        folder = directory / "grid" / point.name
        # A third seed, of an earlier plan, which would turn both choices.
        write_json(folder / "comparison.json", {"recipe": {}, "methods": [CE, OURS], "seeds": [7, 8, 9]})
        for method, means in validation.items():
            write(folder, method, 7, means[place] + 0.01, test)
            write(folder, method, 8, means[place] - 0.01, test)
            write(folder, method, 9, 1.0 - means[place], test)
    return directory


def chosen(directory):
    return {method: choose(method, of, OWN) for method, of in tuning.read_grid(PLAN, directory).items()}


def test_each_method_gets_its_own_best_of_the_plans_seeds(tmp_path):
    assert chosen(written(tmp_path)) == {CE: OWN, OURS: Point(0.1, 5e-4)}


def test_other_test_results_change_nothing(tmp_path):
    before = tuning.as_record(PLAN, found := tuning.read_grid(PLAN, written(tmp_path)), chosen(tmp_path))
    assert found[CE][0].accuracies == (0.92, 0.90)
    for path in tmp_path.rglob("result.json"):
        result = json.loads(path.read_text())
        # The better on validation, the worse on test.
        result["measures"]["test"]["accuracy"] = 1 - result["measures"]["validation"]["accuracy"]
        path.write_text(json.dumps(result))
    assert tuning.as_record(PLAN, tuning.read_grid(PLAN, tmp_path), chosen(tmp_path)) == before
    for path in tmp_path.rglob("result.json"):
        result = json.loads(path.read_text())
        del result["measures"]["test"]
        path.write_text(json.dumps(result))
    assert tuning.as_record(PLAN, tuning.read_grid(PLAN, tmp_path), chosen(tmp_path)) == before


@pytest.mark.parametrize("status", ["failed", "unfinished", "missing"])
def test_nothing_is_chosen_while_a_run_is_not_done(tmp_path, status):
    written(tmp_path)
    lost = run_directory(tmp_path / "grid" / OWN.name, OURS, 8)
    (lost / "result.json").unlink()
    if status == "failed":
        (lost / "error.txt").write_text("RuntimeError: out of luck\n")
    if status == "missing":
        (lost / "run.json").unlink()
    with pytest.raises(RecordError, match=f"seed-8 is {status}: nothing is chosen before all runs of the grid are"):
        tuning.read_grid(PLAN, tmp_path)


def test_a_run_that_diverged_is_recorded(tmp_path):
    written(tmp_path)
    write(tmp_path / "grid" / PLAN.grid[1].name, OURS, 8, None, None, status="diverged")
    of = tuning.as_record(PLAN, tuning.read_grid(PLAN, tmp_path), chosen(tmp_path))["methods"][OURS]
    assert of["chosen"] == {"lr": 0.05, "weight_decay": 5e-4}
    assert [(one["n"], one["validation_accuracy"], one["diverged"]) for one in of["tried"]] == [
        (2, 0.92, 0),
        (1, None, 1),
    ]


@pytest.mark.parametrize("value", [None, "0.9", 1.5, True])
def test_a_result_without_a_validation_accuracy(tmp_path, value):
    write(tmp_path, CE, 0, value, 0.9)
    with pytest.raises(RecordError, match=f"no validation accuracy in the result, got {value!r}"):
        tried(OWN, [read_run(run_directory(tmp_path, CE, 0))])
    with pytest.raises(RecordError, match="no validation accuracy in the result, got None"):
        tried(OWN, [RunRecord(tmp_path, CE, 0, "finished", result={"measures": {}})])
