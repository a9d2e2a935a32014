"""What a study costs: runs, images, and GPU hours from a short measured run on the machine at hand."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from maxsup.lab.data import DataSet, Split
from maxsup.lab.data.imbalance import long_tailed
from maxsup.lab.processes import Processes
from maxsup.lab.recipes import Recipe
from maxsup.lab.studies.study import Study
from maxsup.lab.training.run import building

METHOD = "max-sup"

# On a CPU an image costs about the same in any batch, and the recipes' batches would take minutes a step.
CPU_BATCH = 8


@dataclass(frozen=True)
class Images:
    """A data set as far as the cost of training on it goes; `train` images are left when validation has its own."""

    title: str
    train: int
    classes: int
    side: int
    channels: int = 3


IMAGES = {
    "imagenet": Images("ImageNet-1k", 1_281_167, 1000, 224),
    "cifar100": Images("CIFAR-100", 50_000, 100, 32),
    "fashion-mnist": Images("Fashion-MNIST", 55_000, 10, 28, channels=1),
    "glyphs": Images("glyphs", 25_792, 62, 32, channels=1),  # of the packages of docs/glyphs.md
}


@dataclass(frozen=True)
class Speed:
    """Images per second of training, with how many of them in a batch."""

    images_per_second: float
    batch_size: int
    device: str


def images_of(recipe: Recipe) -> Images:
    """The data set of a study's recipe."""
    return IMAGES[recipe.data.name]


def training_images(recipe: Recipe) -> int:
    """How many images an epoch of the recipe has."""
    of, chosen = images_of(recipe), recipe.data
    classes = len(chosen.classes) if chosen.classes is not None else of.classes
    number = chosen.train_size or of.train * classes // of.classes
    return number if chosen.imbalance is None else sum(long_tailed([number // classes] * classes, chosen.imbalance))


def runs(study: Study, seeds: int | None = None) -> int:
    """Runs of a study with so many seeds, or with its own."""
    return sum(_runs(study, seeds).values())


def hours(study: Study, seeds: int | None, speeds: Mapping[str, Speed]) -> float:
    """GPU hours of training; `speeds` by the name of the variant's recipe."""
    made = _runs(study, seeds)
    return sum(
        made[variant.name]
        * variant.recipe.epochs
        * training_images(variant.recipe)
        / speeds[variant.recipe.name].images_per_second
        / 3600
        for variant in study.variants
    )


def _runs(study: Study, seeds: int | None) -> dict[str, int]:
    return {of.name: (len(of.seeds) if seeds is None else seeds) * len(study.methods(of.name)) for of in study.variants}


def measure(recipe: Recipe, *, steps: int = 10, warmup: int = 5) -> Speed:
    """Times `steps` of the recipe's own training steps, with MaxSup, after `warmup` more; nothing is kept.

    The images are synthetic and on the device: reading and augmenting them comes on top. Where the recipe's batch does
    not fit the memory, it is halved until it does.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = recipe.batch_size if device.type == "cuda" else min(recipe.batch_size, CPU_BATCH)
    while True:
        try:
            seconds = _seconds(recipe, batch, device, steps, warmup)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            batch //= 2
        else:
            name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
            return Speed(steps * batch / seconds, batch, name)


def _seconds(recipe: Recipe, batch: int, device: torch.device, steps: int, warmup: int) -> float:
    images = images_of(recipe)
    side = recipe.data.image_size or images.side
    few = Split(torch.randint(0, 256, (2, images.channels, side, side), dtype=torch.uint8), torch.arange(2))
    data = DataSet(images.title, tuple(map(str, range(images.classes))), few, few, few)
    inputs = torch.randint(0, 256, (batch, images.channels, side, side), dtype=torch.uint8, device=device)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, images.classes, (batch,), device=device)
    one = torch.ones((), device=device)
    begin = 0.0
    with building(dataclasses.replace(recipe, batch_size=batch), METHOD, 0, data, Processes(device)) as run:
        run.model.train()
        for step in range(warmup + steps):
            if step == warmup:
                _wait(device)
                begin = time.perf_counter()
            run.step(inputs, labels, one)
            run.optimizer.step()
            run.optimizer.zero_grad()
        _wait(device)
    return time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
