import dataclasses
import json

import pytest

from maxsup.lab.names import UnknownNameError, lookup, unknown
from maxsup.lab.recipes import RECIPES, Alpha, Data, Model, Optimizer, as_json


def test_every_recipe_is_documented_and_survives_json():
    for name, recipe in RECIPES.items():
        assert recipe().name == name
        assert recipe.__doc__.strip().endswith(".")
        assert json.loads(json.dumps(as_json(recipe()))) == as_json(recipe())


def test_alpha_goes_from_a_tenth_to_a_fifth_by_default():
    for recipe in RECIPES.values():
        assert recipe().alpha == Alpha(start=0.1, end=0.2, schedule="linear")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"optimizer": Optimizer(lr=float("nan"))}, r"optimizer\.lr must be a finite number of at least 0, got nan"),
        ({"alpha": Alpha(end=-0.1)}, r"alpha\.end must be a finite number of at least 0, got -0\.1"),
    ],
)
def test_bad_values_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPES["digits-convnet"](), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_size": 0}, r"data\.train_size must be at least 1 or None, got 0"),
        ({"image_size": 0}, r"data\.image_size must be at least 1 or None, got 0"),
        ({"pad_crop": -1}, r"data\.pad_crop must be at least 0, got -1"),
    ],
)
def test_bad_values_of_the_data_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        Data(**change)


def test_lookup_names_the_nearest_or_all():
    assert lookup("recipe", "digits-convnet", RECIPES) is RECIPES["digits-convnet"]
    with pytest.raises(UnknownNameError, match="did you mean digits-convnet"):
        lookup("recipe", "digits", RECIPES)
    assert str(unknown("method", "zzz", ["b", "a"])) == "unknown method 'zzz'; known: a, b"


@pytest.mark.parametrize("name", ["image_size", "patch_size", "depth"])
def test_bad_sizes_of_the_model_are_refused_by_name(name):
    with pytest.raises(ValueError, match=rf"model\.{name} must be at least 1 or None, got 0"):
        Model(**{name: 0})
