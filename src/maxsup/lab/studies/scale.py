"""A study made small: fewer epochs and images of the same recipe, for a rehearsal before the machine is hired."""

from __future__ import annotations

import dataclasses
import math

from maxsup.lab.recipes import Recipe


def scaled(recipe: Recipe, scale: float, train_images: int) -> Recipe:
    """`recipe` with `scale` times its epochs and training images, of which there are `train_images`.

    What is counted in epochs shrinks with them: warm-up, milestones and steps of the learning rate. A batch has no more
    images than there are. Everything else stays, so that all the parts of the experiment are exercised.

    Raises:
        ValueError: if `scale` is not above 0 and at most 1.
    """
    if not 0 < scale <= 1:
        raise ValueError(f"scale must be above 0 and at most 1, got {scale}")
    if scale == 1:
        return recipe
    images = max(2 * recipe.accumulate, math.ceil(scale * (recipe.data.train_size or train_images)))
    batch = recipe.batch_size
    if images < batch:
        batch = images - images % (2 * recipe.accumulate)  # parts of as many images, in pairs for mixup
    optimizer = recipe.optimizer
    optimizer = dataclasses.replace(
        optimizer,
        warmup_epochs=round(scale * optimizer.warmup_epochs),
        milestones=tuple(sorted({max(1, round(scale * epoch)) for epoch in optimizer.milestones})),
    )
    if optimizer.schedule == "step":
        optimizer = dataclasses.replace(optimizer, step_epochs=max(1, round(scale * optimizer.step_epochs)))
    return dataclasses.replace(
        recipe,
        epochs=max(1, round(scale * recipe.epochs)),
        batch_size=batch,
        data=dataclasses.replace(recipe.data, train_size=images),
        optimizer=optimizer,
    )


def on_data(recipe: Recipe, name: str) -> Recipe:
    """`recipe` on another data set, without what only image files have: the crop of evaluation and what is held out.

    Its constants of normalisation are then the data's own, and images keep their size. The recipe stays as it is for
    its own data set.
    """
    if name == recipe.data.name:
        return recipe
    from maxsup.lab.data import FROM_FILES

    data = dataclasses.replace(recipe.data, name=name)
    if name not in FROM_FILES:
        interpolation = data.interpolation if data.random_resized_crop else "bilinear"
        data = dataclasses.replace(
            data,
            image_size=None,
            eval_crop=1.0,
            interpolation=interpolation,
            normalize="data",
            streaming="auto",
            held_out=None,
        )
    return dataclasses.replace(recipe, data=data)


# Patches along the side of an image in DeiT, whose number decides what a vision transformer costs.
_GRID = 14
# Images up to this side get the stem for small images: behind the other one nothing of them would be left.
_SMALL = 64


def resized(recipe: Recipe, side: int) -> Recipe:
    """`recipe` for images of `side` × `side`, with a network made for them.

    A vision transformer keeps about its 14 × 14 patches, of fewer pixels; a convolutional network gets the stem for
    small images up to a side of 64.

    Raises:
        ValueError: if `side` is below 8.
    """
    if side < 8:
        raise ValueError(f"image_size must be at least 8, got {side}")
    from maxsup.lab.models import is_vision_transformer

    model = recipe.model
    if is_vision_transformer(model.name):
        patch = max(size for size in range(1, max(2, side // _GRID + 1)) if side % size == 0)
        model = dataclasses.replace(model, image_size=side, patch_size=patch)
    elif model.name != "convnet":
        model = dataclasses.replace(model, small_stem=side <= _SMALL)
    return dataclasses.replace(recipe, model=model, data=dataclasses.replace(recipe.data, image_size=side))
