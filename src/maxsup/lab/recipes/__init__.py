"""Recipes: everything that decides a run's result, except the method and the seed.

A recipe is a function that returns a `Recipe`; a variant is `dataclasses.replace`. `RECIPES` is the one list of them.
"""

from __future__ import annotations

from collections.abc import Callable

from maxsup.lab.recipes import cifar, deit, glyphs, imagenet, small
from maxsup.lab.recipes.settings import NEUTRAL, Alpha, Data, Model, Optimizer, Recipe, as_json, with_defaults

__all__ = ["NEUTRAL", "RECIPES", "Alpha", "Data", "Model", "Optimizer", "Recipe", "as_json", "with_defaults"]


def _by_name(*functions: Callable[[], Recipe]) -> dict[str, Callable[[], Recipe]]:
    return {function.__name__.replace("_", "-"): function for function in functions}


RECIPES = _by_name(
    small.digits_convnet,
    small.fashion_mnist_resnet18,
    small.fashion_scenes_resnet18,
    small.fashion_scenes_vit,
    cifar.cifar100_resnet18,
    cifar.cifar100_resnet50,
    cifar.cifar100_resnet101,
    cifar.cifar100_mobilenetv2,
    imagenet.imagenet_resnet18,
    imagenet.imagenet_resnet50,
    imagenet.imagenet_resnet101,
    imagenet.imagenet_mobilenetv2,
    imagenet.imagenet_v1_resnet18,
    imagenet.imagenet_v1_resnet50,
    imagenet.imagenet_v1_resnet101,
    imagenet.imagenet_v1_mobilenetv2,
    deit.imagenet_deit_small,
    deit.imagenet_deit_small_mix,
    glyphs.glyphs_resnet18,
    glyphs.glyphs_mobilenetv2,
    glyphs.glyphs_deit,
)
