"""Data sets by name, with fixed splits; images are uint8 tensors in memory, or files that are read when needed.

A loader takes the folder with the data set's files (None where the user gave none) and the side to which images are
resized (None for their own), and returns a `DataSet`; those of `FROM_FILES` also take the recipe's `Data`. Its first
docstring line is what `maxsup list` shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from maxsup.lab.data.batches import Batches, evaluation_batches, training_batches, training_batches_number
from maxsup.lab.data.cifar import load_cifar10, load_cifar100
from maxsup.lab.data.digits import load_digits
from maxsup.lab.data.fashion_mnist import load_fashion_mnist
from maxsup.lab.data.fashion_scenes import load_fashion_scenes
from maxsup.lab.data.file_sets import check_options, with_normalization, with_workers
from maxsup.lab.data.glyphs.stored import load_glyphs, load_glyphs_large
from maxsup.lab.data.image_folder import load_image_folder
from maxsup.lab.data.imagenet import load_imagenet
from maxsup.lab.data.imbalance import with_imbalance
from maxsup.lab.data.label_noise import with_label_noise
from maxsup.lab.data.masks import load_masked_folder
from maxsup.lab.data.splits import AnySplit, DataSet, Split, stratified
from maxsup.lab.data.streamed import Streamed
from maxsup.lab.data.webdataset import load_webdataset
from maxsup.lab.names import lookup
from maxsup.lab.recipes import Data
from maxsup.lab.records import DataError

__all__ = [
    "DATA_SETS",
    "FROM_FILES",
    "MASKED",
    "AnySplit",
    "Batches",
    "DataError",
    "DataSet",
    "Split",
    "Streamed",
    "check_folder",
    "choose",
    "evaluation_batches",
    "load",
    "training_batches",
    "training_batches_number",
]

DATA_SETS: dict[str, Callable[..., DataSet]] = {
    "digits": load_digits,
    "fashion-mnist": load_fashion_mnist,
    "fashion-scenes": load_fashion_scenes,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "glyphs": load_glyphs,
    "glyphs-large": load_glyphs_large,
    "image-folder": load_image_folder,
    "imagenet": load_imagenet,
    "webdataset": load_webdataset,
    "masked-folder": load_masked_folder,
}

# Those that can be streamed.
FROM_FILES = ("image-folder", "imagenet", "webdataset")
# Those in memory that are published without a validation split.
_HELD_OUT = ("cifar10", "cifar100")

# Those whose images have masks: to look for masks would be to load the images.
MASKED = ("fashion-scenes", "masked-folder")


def check_folder(data_dir: Path | None) -> None:
    """Raises DataError if a folder is named that is not there: another place with such data is not what was meant."""
    if data_dir is not None and not data_dir.is_dir():
        raise DataError(f"--data-dir {data_dir}: {'not a folder' if data_dir.exists() else 'no such folder'}")


def load(data: Data, data_dir: Path | None = None) -> DataSet:
    """The data set of a recipe: resized, its classes chosen, its training images as `choose` takes them.

    Raises:
        UnknownNameError: for a name that is not in `DATA_SETS`.
        DataError: if files are absent or damaged, `train_size` exceeds what there is, or the imbalance leaves a class
            without a training image.
        ValueError: if `data.classes` names a class that the data set lacks, or one twice, or for an option that does
            not apply to the data set.
    """
    loader = lookup("data set", data.name, DATA_SETS)
    check_folder(data_dir)
    takes_data = data.name in (*FROM_FILES, *_HELD_OUT)
    loaded = loader(data_dir, data.image_size, data) if takes_data else loader(data_dir, data.image_size)
    if data.name not in FROM_FILES:
        check_options(loaded, dataclasses.replace(data, held_out=None) if data.name in _HELD_OUT else data)
    chosen = with_normalization(choose(loaded, data), data)
    return dataclasses.replace(chosen, train=with_workers(chosen.train, data))


def choose(data_set: DataSet, data: Data) -> DataSet:
    """The classes and the training images of `data_set` that `data` asks for; raises as `load` does.

    First the classes, then `train_size` images of them, then the imbalance, then the wrong labels.
    """
    if data.classes is not None:
        data_set = data_set.of_classes(data.classes)
    return with_label_noise(with_imbalance(_of_size(data_set, data), data), data)


def _of_size(data_set: DataSet, data: Data) -> DataSet:
    """The data set with `train_size` training images."""
    if data.train_size is None:
        return data_set
    if data.train_size > len(data_set.train):
        raise DataError(
            f"data.train_size {data.train_size} exceeds the {len(data_set.train)} images of {data_set.name}"
        )
    train = data_set.train.take(stratified(data_set.train.labels, data.train_size))
    return dataclasses.replace(data_set, train=train)
