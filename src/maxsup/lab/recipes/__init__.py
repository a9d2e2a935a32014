"""Recipes: everything that decides a run's result, except the method and the seed.

A recipe is a function that returns a `Recipe`; a variant is `dataclasses.replace`. `RECIPES` is the one list of them.
"""

from __future__ import annotations

from collections.abc import Callable

from maxsup.lab.recipes import glyphs, small
from maxsup.lab.recipes.settings import Alpha, Data, Model, Optimizer, Recipe, as_json

__all__ = ["RECIPES", "Alpha", "Data", "Model", "Optimizer", "Recipe", "as_json"]


def _by_name(*functions: Callable[[], Recipe]) -> dict[str, Callable[[], Recipe]]:
    return {function.__name__.replace("_", "-"): function for function in functions}


RECIPES = _by_name(
    small.digits_convnet,
    small.fashion_mnist_resnet18,
    small.fashion_scenes_resnet18,
    small.fashion_scenes_vit,
    glyphs.glyphs_resnet18,
    glyphs.glyphs_mobilenetv2,
    glyphs.glyphs_deit,
)
