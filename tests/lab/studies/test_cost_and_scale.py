import dataclasses

import pytest
import torch

from maxsup.lab.recipes import Data, Model, Optimizer, Recipe
from maxsup.lab.studies import cost
from maxsup.lab.studies.scale import resized, scaled
from tests.lab.studies.conftest import tiny

LONG = Recipe("imagenet-x", data=Data("imagenet"), epochs=200, batch_size=2048, optimizer=Optimizer(warmup_epochs=10))


def test_a_hundredth_of_a_recipe():
    small = scaled(LONG, 0.01, 1_281_167)
    assert (small.epochs, small.data.train_size, small.batch_size) == (2, 12_812, 2048)
    assert small.optimizer.warmup_epochs == 0
    assert scaled(LONG, 0.1, 1000).optimizer.warmup_epochs == 1
    # A batch has no more images than there are; what the user has cut is what is cut further.
    assert scaled(LONG, 0.01, 1000).batch_size == 10
    cut = dataclasses.replace(LONG, data=Data("imagenet", train_size=500))
    assert scaled(cut, 0.1, 1000).data.train_size == 50
    assert scaled(LONG, 1.0, 1000) == LONG


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5, float("nan")])
def test_a_scale_that_is_none(scale):
    with pytest.raises(ValueError, match="scale must be above 0 and at most 1, got"):
        scaled(LONG, scale, 1000)


def test_networks_for_other_images():
    deit = dataclasses.replace(LONG, model=Model("deit_small_patch16_224"))
    for side, patch in ((224, 16), (32, 2), (28, 2), (64, 4), (8, 1)):
        small = resized(deit, side)
        assert (small.model.image_size, small.model.patch_size, small.data.image_size) == (side, patch, side)
    resnet = dataclasses.replace(LONG, model=Model("resnet18"))
    assert resized(resnet, 32).model.small_stem is True
    assert resized(resnet, 128).model.small_stem is False
    with pytest.raises(ValueError, match="image_size must be at least 8, got 7"):
        resized(deit, 7)


def test_runs_and_hours_by_hand():
    study = tiny()  # five method-variants
    assert cost.runs(study, 3) == 15
    study = study.with_recipes({of.name: LONG for of in study.variants})
    # 3 seeds · 5 · 200 epochs · 1,281,167 images at 2,000 a second.
    speeds = {"imagenet-x": cost.Speed(2000.0, 2048, "a GPU")}
    assert cost.hours(study, 3, speeds) == pytest.approx(15 * 200 * 1_281_167 / 2000 / 3600)
    # With each comparison's own seeds: three methods with one seed and two with five.
    own = dataclasses.replace(
        study,
        variants=tuple(
            dataclasses.replace(of, seeds=tuple(range(n))) for of, n in zip(study.variants, (1, 5), strict=True)
        ),
    )
    assert cost.runs(own) == 3 * 1 + 2 * 5
    assert cost.hours(own, None, speeds) == pytest.approx(13 * 200 * 1_281_167 / 2000 / 3600)


@pytest.mark.parametrize(
    ("data", "images"),
    [
        (Data("glyphs"), 25_792),
        (Data("glyphs", classes=tuple(range(31))), 12_896),
        (Data("fashion-mnist", train_size=5000), 5000),
        (Data("fashion-mnist", train_size=5000, imbalance=50.0), 1394),  # docs/robustness.md
    ],
)
def test_the_images_of_an_epoch(data, images):
    assert cost.training_images(Recipe("x", data=data)) == images


def test_a_batch_that_does_not_fit_is_halved(monkeypatch):
    tried = []

    def seconds(recipe, batch, device, steps, warmup):
        tried.append(batch)
        if batch > 3:
            raise torch.OutOfMemoryError("full")
        return 2.0

    monkeypatch.setattr(cost, "_seconds", seconds)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    speed = cost.measure(LONG, steps=10)
    assert tried == [8, 4, 2]  # on a CPU no more than 8
    assert (speed.images_per_second, speed.batch_size, speed.device) == (10.0, 2, "CPU")


def test_a_measured_speed_is_a_rate():
    recipe = Recipe("cifar100-small", data=Data("cifar100"), batch_size=4, model=Model("convnet"))
    speed = cost.measure(recipe, steps=2, warmup=1)
    assert speed.images_per_second > 0
    assert speed.batch_size == 4
