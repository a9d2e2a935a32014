"""Data sets by name, with fixed splits; images are uint8 tensors in memory.

A loader takes the folder with the data set's files (None where the user gave none) and the side to which images are
resized (None for their own), and returns a `DataSet`. Its first docstring line is what `maxsup list` shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from maxsup.lab.data.batches import augment, training_batches
from maxsup.lab.data.digits import load_digits
from maxsup.lab.data.fashion_mnist import load_fashion_mnist
from maxsup.lab.data.splits import DataSet, Split, stratified
from maxsup.lab.names import lookup
from maxsup.lab.recipes import Data
from maxsup.lab.records import DataError

__all__ = ["DATA_SETS", "DataError", "DataSet", "Split", "augment", "load", "training_batches"]

DATA_SETS: dict[str, Callable[[Path | None, int | None], DataSet]] = {
    "digits": load_digits,
    "fashion-mnist": load_fashion_mnist,
}


def load(data: Data, data_dir: Path | None = None) -> DataSet:
    """The data set of a recipe: resized, its classes chosen, its training images cut to `train_size`, in this order.

    Raises:
        UnknownNameError: for a name that is not in `DATA_SETS`.
        DataError: if files are absent or damaged, or `train_size` exceeds what there is.
        ValueError: if `data.classes` names a class that the data set lacks, or one twice.
    """
    chosen = lookup("data set", data.name, DATA_SETS)(data_dir, data.image_size)
    if data.classes is not None:
        chosen = chosen.of_classes(data.classes)
    if data.train_size is None:
        return chosen
    if data.train_size > len(chosen.train):
        raise DataError(f"data.train_size {data.train_size} exceeds the {len(chosen.train)} images of {data.name}")
    train = chosen.train.take(stratified(chosen.train.labels, data.train_size))
    return dataclasses.replace(chosen, train=train)
