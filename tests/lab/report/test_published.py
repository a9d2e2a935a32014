import pytest

from maxsup.lab.methods import METHODS
from maxsup.lab.recipes import RECIPES
from maxsup.lab.records import read_comparison
from maxsup.lab.report import summarize, tables, write_report
from maxsup.lab.report.published import PUBLISHED, published
from tests.lab.report import factory

RESNET50 = {
    "name": "imagenet-resnet50",
    "epochs": 200,
    "batch_size": 2048,
    "optimizer": {"lr": 0.85, "weight_decay": 1e-4},
    "alpha": {"start": 0.1, "end": 0.2, "schedule": "linear"},
}


def test_numbers_of_the_paper():
    table_4, features, probe = published(RESNET50)
    assert table_4["table"] == "Table 4"
    assert table_4["differs"] == []
    assert table_4["columns"]["test.accuracy"]["max-sup"] == {"mean": 0.7769, "std": 0.0007}
    assert table_4["columns"]["test.accuracy"]["cross-entropy"] == {"mean": 0.7641, "std": 0.001}
    assert features["columns"]["test.d_within"]["logit-penalty"] == {"mean": 0.3144, "std": None}
    assert features["columns"]["train.r_squared"]["online-label-smoothing"]["mean"] == 0.5943
    assert probe["columns"]["probe.cifar10.linear"]["label-smoothing"]["mean"] == 0.7458
    cifar = published({"name": "cifar100-resnet18"})[0]
    assert cifar["columns"]["test.accuracy"]["max-sup"] == {"mean": 0.7782, "std": 0.0015}
    v1 = published({"name": "imagenet-v1-resnet101"})[0]
    assert (v1["table"], v1["columns"]["test.accuracy"]["logit-penalty"]["mean"]) == ("Table 7", 0.7517)
    parts, variants, dense, constant, linear = published({"name": "imagenet-deit-small"})
    assert dense["columns"]["segment.ade20k.multi.miou"]["max-sup"]["mean"] == 0.428
    assert parts["columns"]["test.accuracy"]["ls-error-enhancement-max"]["mean"] == 0.7369
    assert "logit-penalty" not in variants["columns"]["test.accuracy"]
    assert constant["columns"]["test.accuracy"]["max-sup"] == {"mean": 0.7612, "std": None}
    assert linear["columns"]["test.accuracy"]["max-sup"] == {"mean": 0.7658, "std": None}
    assert features["columns"]["train.d_total"]["logit-penalty"]["mean"] == 0.7996


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_method_is_one_of_ours(name):
    for of in PUBLISHED[name]:
        for column in of.columns.values():
            assert column.keys() <= METHODS.keys()
            assert all(0 < mean < 1 for mean, _ in column.values())


def test_recipes_that_repeat_no_table_have_nothing_beside_them(tmp_path):
    for name in ("digits-convnet", "fashion-mnist-resnet18"):
        assert name in RECIPES
        assert published({"name": name}) == []
    write_report(factory.comparison(tmp_path))
    assert 'id="published"' not in (tmp_path / "report.html").read_text()


def test_other_settings_than_the_papers_are_named():
    recipe = RESNET50 | {"epochs": 5, "alpha": RESNET50["alpha"] | {"schedule": "constant"}}
    assert published(recipe)[0]["differs"] == ["epochs 5 instead of 200", "alpha.schedule constant instead of linear"]


def test_the_papers_numbers_stand_beside_ours(tmp_path):
    accuracy = {"cross-entropy": [0.76, 0.77], "max-sup": [0.78, 0.78], "confidence-penalty": [0.7, 0.7]}
    factory.measured(tmp_path, accuracy, recipe=RESNET50 | {"epochs": 100})
    table_4, features = tables.published(summarize(read_comparison(tmp_path)))  # no run was probed: no Table 3
    assert table_4.title == "The paper's Table 4. resnet50 on ImageNet; in this recipe epochs 100 instead of 200"
    assert table_4.heads == ["method", "accuracy %", "accuracy %, paper"]
    # The paper has no row for confidence penalty.
    assert table_4.texts() == [
        ["cross-entropy", "76.50 ± 0.71", "76.41 ± 0.10"],
        ["max-sup", "78.00 ± 0.00", "77.69 ± 0.07"],
    ]
    assert features.texts()[1][-1] == "0.4972"
    write_report(tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert '<a href="#published">' in html
    assert "76.41 ± 0.10" in html
