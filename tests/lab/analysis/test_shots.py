import pytest
import torch

from maxsup.lab.analysis.analyze import analyze
from maxsup.lab.analysis.shots import BY_COUNT, BY_RANK, shot_accuracy, shots, training_images
from maxsup.lab.data.imbalance import long_tailed
from maxsup.lab.records import read_json, write_json


def test_the_bounds_of_liu_et_al():
    groups = shots([101, 100, 20, 19])
    assert groups.definition == BY_COUNT
    assert groups.classes == {"many": [0], "medium": [1, 2], "few": [3]}


def test_fashion_mnist_of_5000_images_at_factor_50():
    # 500·50^(-c/9): 500, 323, 209, 135 | 87, 56, 36, 23 | 15, 10
    groups = shots(long_tailed([500] * 10, 50))
    assert groups.definition == BY_COUNT
    assert groups.classes == {"many": [0, 1, 2, 3], "medium": [4, 5, 6, 7], "few": [8, 9]}


def test_thirds_where_a_group_would_be_empty():
    # 5500·50^(-c/9) is above 100 for all ten classes; ties go by index, what is over to the first groups.
    assert shots(long_tailed([5500] * 10, 50)).definition == BY_RANK
    assert shots([10, 30, 10, 30, 10, 30, 10]).classes == {"many": [1, 3, 5], "medium": [0, 2], "few": [4, 6]}


@pytest.mark.parametrize("per_class", [[], [500, 1], [500] * 100, [21, 20, 19, 20]])
def test_balanced_images_have_no_groups(per_class):
    assert shots(per_class) is None


def test_accuracy_by_hand():
    # Class 0: 3 of 4 right; class 1: 1 of 2; class 2: 0 of 1; class 3: no image.
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    predicted = torch.tensor([0, 0, 0, 1, 1, 0, 0])
    found = shot_accuracy(torch.nn.functional.one_hot(predicted, 4).float(), labels, shots([1000, 50, 30, 5]))
    assert found["accuracy_many"] == 0.75
    assert found["accuracy_medium"] == 0.25
    assert found["accuracy_few"] is None
    assert found["class_accuracy"] == pytest.approx((0.75 + 0.5 + 0) / 3)


def test_analyze_adds_them_to_long_tailed_runs_alone(run_dir):
    balanced = analyze(run_dir)
    assert "shots" not in balanced
    info = read_json(run_dir / "run.json")
    assert training_images(run_dir) == [39, 40, 40, 41, 40]
    info["training_images"]["per_class"] = [150, 120, 30, 20, 5]
    write_json(run_dir / "run.json", info)
    tail = analyze(run_dir)
    assert tail["shots"] == {"definition": BY_COUNT, "classes": {"many": [0, 1], "medium": [2, 3], "few": [4]}}
    of = tail["measures"]["test"]
    by_class = [of["accuracy_many"]] * 2 + [of["accuracy_medium"]] * 2 + [of["accuracy_few"]]
    assert of["class_accuracy"] == pytest.approx(sum(by_class) / 5)
    before = balanced["measures"]["test"]
    assert {name: of[name] for name in before} == before
