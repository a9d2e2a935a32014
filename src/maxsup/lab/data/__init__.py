"""Data sets by name, with fixed splits; images are uint8 tensors in memory.

A loader takes the folder with the data set's files (None where the user gave none) and the side to which images are
resized (None for their own), and returns a `DataSet`. Its first docstring line is what `maxsup list` shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from maxsup.lab.data.batches import evaluation_batches, training_batches
from maxsup.lab.data.cifar import load_cifar10, load_cifar100
from maxsup.lab.data.digits import load_digits
from maxsup.lab.data.fashion_mnist import load_fashion_mnist
from maxsup.lab.data.fashion_scenes import load_fashion_scenes
from maxsup.lab.data.glyphs.stored import load_glyphs, load_glyphs_large
from maxsup.lab.data.image_folder import load_image_folder
from maxsup.lab.data.masks import load_masked_folder
from maxsup.lab.data.splits import DataSet, Split, stratified
from maxsup.lab.names import lookup
from maxsup.lab.recipes import Data
from maxsup.lab.records import DataError

__all__ = [
    "DATA_SETS",
    "MASKED",
    "DataError",
    "DataSet",
    "Split",
    "choose",
    "evaluation_batches",
    "load",
    "training_batches",
]

DATA_SETS: dict[str, Callable[[Path | None, int | None], DataSet]] = {
    "digits": load_digits,
    "fashion-mnist": load_fashion_mnist,
    "fashion-scenes": load_fashion_scenes,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "glyphs": load_glyphs,
    "glyphs-large": load_glyphs_large,
    "image-folder": load_image_folder,
    "masked-folder": load_masked_folder,
}

# Those whose images have masks: to look for masks would be to load the images.
MASKED = ("fashion-scenes", "masked-folder")


def load(data: Data, data_dir: Path | None = None) -> DataSet:
    """The data set of a recipe: resized, its classes chosen, its training images cut to `train_size`, in this order.

    Raises:
        UnknownNameError: for a name that is not in `DATA_SETS`.
        DataError: if files are absent or damaged, or `train_size` exceeds what there is.
        ValueError: if `data.classes` names a class that the data set lacks, or one twice.
    """
    return choose(lookup("data set", data.name, DATA_SETS)(data_dir, data.image_size), data)


def choose(data_set: DataSet, data: Data) -> DataSet:
    """The classes and the training images of `data_set` that `data` asks for; raises as `load` does."""
    if data.classes is not None:
        data_set = data_set.of_classes(data.classes)
    if data.train_size is None:
        return data_set
    if data.train_size > len(data_set.train):
        raise DataError(
            f"data.train_size {data.train_size} exceeds the {len(data_set.train)} images of {data_set.name}"
        )
    train = data_set.train.take(stratified(data_set.train.labels, data.train_size))
    return dataclasses.replace(data_set, train=train)
