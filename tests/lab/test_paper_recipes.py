"""Every setting of the paper's recipes, by hand from its text and from the sources that it names."""

import pytest

from maxsup.lab import models
from maxsup.lab.recipes import RECIPES, as_json
from maxsup.lab.report.fields import flat
from maxsup.lab.report.published import PUBLISHED

NETWORKS = {
    "resnet18": ("resnet18", 11.7),
    "resnet50": ("resnet50", 25.6),
    "resnet101": ("resnet101", 44.5),
    "mobilenetv2": ("mobilenetv2_100", 3.5),
}
"""timm's name, and million weights with 1,000 classes (He et al. 2016, Sandler et al. 2018)."""

IMAGENET = {
    "data.name": "imagenet",
    "data.train_size": None,
    "data.classes": None,
    "data.image_size": 224,
    "data.random_resized_crop": True,
    "data.crop_scale": [0.08, 1.0],
    "data.flip": True,
    "data.pad_crop": 0,
    "data.rotation": 0.0,
    "data.eval_crop": 0.875,
    "data.normalize": "imagenet",
    "data.held_out": None,
    "selection": "last",
    "accumulate": 1,
    "clip_norm": None,
    "ema": None,
}
SCHEDULED = {"alpha.start": 0.1, "alpha.end": 0.2, "alpha.schedule": "linear"}
CNN = {
    **IMAGENET,
    **SCHEDULED,
    "data.rand_augment": None,
    "data.random_erasing": 0.0,
    "data.repeats": 1,
    "data.mixup": 0.0,
    "data.cutmix": 0.0,
    "data.interpolation": "bilinear",
    "model.small_stem": False,
    "model.drop_path": 0.0,
    "optimizer.name": "momentum",
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 1e-4,
    "optimizer.warmup_epochs": 0,
}
LONG = {
    **CNN,
    "epochs": 200,
    "batch_size": 2048,
    "optimizer.lr": 0.85,
    "optimizer.schedule": "cosine",
    "optimizer.min_lr": 0.0,
    "optimizer.decay_norm_bias": False,
}
V1 = {
    **CNN,
    "epochs": 90,
    "batch_size": 512,
    "optimizer.lr": 0.1,
    "optimizer.schedule": "step",
    "optimizer.step_epochs": 30,
    "optimizer.gamma": 0.1,
    "optimizer.decay_norm_bias": True,
}
DEIT = {
    **IMAGENET,
    **SCHEDULED,
    "epochs": 300,
    "batch_size": 1024,
    "data.rand_augment": "rand-m9-mstd0.5-inc1",
    "data.random_erasing": 0.25,
    "data.repeats": 3,
    "data.mixup": 0.0,
    "data.cutmix": 0.0,
    "data.interpolation": "bicubic",
    "model.name": "deit_small_patch16_224",
    "model.drop_path": 0.1,
    "optimizer.name": "adamw",
    "optimizer.lr": 5e-4 * 1024 / 512,
    "optimizer.weight_decay": 0.05,
    "optimizer.schedule": "cosine",
    "optimizer.min_lr": 1e-5,
    "optimizer.warmup_epochs": 5,
    "optimizer.warmup_lr": 1e-6,
    "optimizer.decay_norm_bias": False,
}
CIFAR = {
    **SCHEDULED,
    "epochs": 200,
    "batch_size": 128,
    "selection": "last",
    "accumulate": 1,
    "clip_norm": None,
    "ema": None,
    "data.name": "cifar100",
    "data.train_size": None,
    "data.image_size": None,
    "data.held_out": 1000,
    "data.pad_crop": 4,
    "data.flip": True,
    "data.rotation": 15.0,
    "data.random_resized_crop": False,
    "data.rand_augment": None,
    "data.random_erasing": 0.0,
    "data.mixup": 0.0,
    "data.cutmix": 0.0,
    "model.small_stem": True,
    "optimizer.name": "sgd",  # timm's sgd is Nesterov's
    "optimizer.momentum": 0.9,
    "optimizer.lr": 0.1,
    "optimizer.weight_decay": 5e-4,
    "optimizer.schedule": "multistep",
    "optimizer.milestones": [60, 120, 160],
    "optimizer.gamma": 0.2,
    "optimizer.warmup_epochs": 1,
    "optimizer.decay_norm_bias": True,
}
SETTINGS = {
    **{f"imagenet-{name}": LONG | {"model.name": timm} for name, (timm, _) in NETWORKS.items()},
    **{f"imagenet-v1-{name}": V1 | {"model.name": timm} for name, (timm, _) in NETWORKS.items()},
    **{f"cifar100-{name}": CIFAR | {"model.name": timm} for name, (timm, _) in NETWORKS.items()},
    "imagenet-deit-small": DEIT,
    "imagenet-deit-small-mix": DEIT | {"data.mixup": 0.8, "data.cutmix": 1.0},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name):
    recipe = RECIPES[name]()
    ours = flat(as_json(recipe))
    assert recipe.name == name
    assert {field: ours[field] for field in SETTINGS[name]} == SETTINGS[name]


def test_every_recipe_of_the_papers_tables_is_here_and_has_the_settings_that_stand_beside_the_numbers():
    assert PUBLISHED.keys() <= SETTINGS.keys()
    for name, tables in PUBLISHED.items():
        recipe = as_json(RECIPES[name]())
        for of in tables:
            constant = of.settings["alpha.schedule"] == "constant"
            differs = ["alpha.schedule linear instead of constant"] if constant else []
            assert of.differs(recipe) == differs
            assert of.settings.keys() <= flat(recipe).keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_of_the_papers_size(name):
    import torch

    with torch.device("meta"):
        network = models.build(RECIPES[f"imagenet-{name}"]().model, 3, 1000)
    assert sum(weight.numel() for weight in network.parameters()) / 1e6 == pytest.approx(NETWORKS[name][1], abs=0.06)


def test_deit_small_has_22_million_weights():
    import torch

    with torch.device("meta"):
        network = models.build(RECIPES["imagenet-deit-small"]().model, 3, 1000)
    # Touvron et al. 2021, Table 1.
    assert round(sum(weight.numel() for weight in network.parameters()) / 1e6) == 22
