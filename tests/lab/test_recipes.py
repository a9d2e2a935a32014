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
        ({"accumulate": 0}, "accumulate must be at least 1, got 0"),
        ({"accumulate": 3}, "accumulate must divide batch_size 64 into parts of 2 images or more, got 3"),
        ({"accumulate": 64}, "accumulate must divide batch_size 64 into parts of 2 images or more, got 64"),
        ({"clip_norm": 0.0}, r"clip_norm must be a finite number above 0 or None, got 0\.0"),
        ({"ema": 1.0}, r"ema must be between 0 and 1 or None, got 1\.0"),
        ({"optimizer": Optimizer(min_lr=-1.0)}, r"optimizer\.min_lr must be a finite number of at least 0, got -1\.0"),
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
        ({"repeats": 0}, r"data\.repeats must be at least 1, got 0"),
        ({"loader_workers": -1}, r"data\.loader_workers must be at least 0 or None, got -1"),
        ({"held_out": 0}, r"data\.held_out must be at least 1 or None, got 0"),
        ({"rotation": float("nan")}, r"data\.rotation must be from 0 to 180, got nan"),
        ({"random_erasing": 1.5}, r"data\.random_erasing must be from 0 to 1, got 1\.5"),
        ({"mixup": -0.1}, r"data\.mixup must be from 0 to 1000, got -0\.1"),
        ({"eval_crop": 0.0}, r"data\.eval_crop must be above 0 and at most 1, got 0\.0"),
        (
            {"crop_scale": (0.5, 0.4), "random_resized_crop": True},
            r"data\.crop_scale must be two shares .* \(0\.5, 0\.4\)",
        ),
        ({"crop_scale": (0.5, 1.0)}, r"data\.crop_scale belongs to data\.random_resized_crop, which is off"),
        ({"pad_crop": 4, "random_resized_crop": True}, r"data\.pad_crop \(4\) are two crops; choose one"),
        ({"rand_augment": "m9"}, r"data\.rand_augment must be a name of timm's such as .*, got 'm9'"),
        ({"rand_augment": "rand-x9"}, r"data\.rand_augment must be a name of timm's"),
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step_epochs": 0}, r"optimizer\.step_epochs must be at least 1, got 0"),
        ({"schedule": "multistep"}, r"optimizer\.milestones are those of schedule multistep, got \(\) with multistep"),
        ({"milestones": (3,)}, r"optimizer\.milestones are those of schedule multistep, got \(3,\) with cosine"),
        (
            {"schedule": "multistep", "milestones": (3, 3)},
            r"milestones must be rising epochs of at least 1, got \(3,",
        ),
        ({"schedule": "multistep", "milestones": (0,)}, r"milestones must be rising epochs of at least 1, got \(0,\)"),
    ],
)
def test_bad_schedules_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        Optimizer(**change)


def test_a_bad_drop_path_is_refused_by_name():
    with pytest.raises(ValueError, match=r"model\.drop_path must be in \[0, 1\), got 1\.0"):
        Model(drop_path=1.0)
