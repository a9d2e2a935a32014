"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), in the layout that torchvision reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from maxsup.lab.data.splits import DataSet, Split, hold_out
from maxsup.lab.recipes import Data
from maxsup.lab.records import DataError


def load_cifar10(data_dir: Path | None = None, image_size: int | None = None, data: Data | None = None) -> DataSet:
    """CIFAR-10: 50,000 + 10,000 RGB images, 32×32, 10 classes; 5,000 of the 50,000 held out (data.held_out)."""
    from torchvision.datasets import CIFAR10

    return _load("cifar10", CIFAR10, data_dir, data).resized(image_size)


def load_cifar100(data_dir: Path | None = None, image_size: int | None = None, data: Data | None = None) -> DataSet:
    """CIFAR-100: 50,000 + 10,000 RGB images, 32×32, 100 classes; 5,000 of the 50,000 held out (data.held_out)."""
    from torchvision.datasets import CIFAR100

    return _load("cifar100", CIFAR100, data_dir, data).resized(image_size)


def _load(name: str, kind: Any, data_dir: Path | None, data: Data | None) -> DataSet:
    """The data set in the folder of Python pickles that torchvision's class `kind` reads.

    Raises:
        ValueError: if `data.held_out` is not below the number of training images.
        DataError: if the folder is nowhere and cannot be downloaded, or a file is missing or not the published one; it
            names the folders or the file.
    """
    root = _root(kind, data_dir)
    _check(kind, root / kind.base_folder)
    full, test = (kind(str(root), train=train) for train in (True, False))
    held_out = (data and data.held_out) or len(full) // 10
    if held_out >= len(full):
        raise ValueError(f"data.held_out must be below the {len(full)} training images, got {held_out}")
    train, validation = hold_out(_split(full), held_out)
    return DataSet(name, tuple(str(c).replace("_", "-") for c in full.classes), train, validation, _split(test))


def _root(kind: Any, data_dir: Path | None) -> Path:
    """The first place that has the folder: `data_dir`, torchvision's download."""
    if data_dir is not None and (data_dir / kind.base_folder).is_dir():
        return data_dir
    root = Path.home() / ".cache" / "maxsup"
    if not (root / kind.base_folder).is_dir():
        try:
            kind(str(root), download=True)
        except Exception as error:  # torchvision lets urllib's, http's, tarfile's and its own errors through
            raise DataError(
                f"{kind.__name__}: no folder {kind.base_folder} in --data-dir ({data_dir or 'not given'}), and "
                f"torchvision's download to {root} failed: {error}"
            ) from error
    return root


def _check(kind: Any, folder: Path) -> None:
    """The files are pickles, which run what is in them: none is read that is not the published one."""
    from torchvision.datasets.utils import check_integrity

    for name, md5 in [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]:
        if not (folder / name).is_file():
            raise DataError(f"{folder / name}: missing")
        if not check_integrity(folder / name, md5):
            raise DataError(f"{folder / name}: truncated or damaged; its MD5 sum is not that of the published file")


def _split(of: Any) -> Split:
    return Split(torch.from_numpy(of.data.transpose(0, 3, 1, 2).copy()), torch.tensor(of.targets))
