"""A folder of images, one folder a class, as torchvision's ImageFolder has it."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from maxsup.lab.data.file_sets import Listed, data_set
from maxsup.lab.data.masks import IMAGES
from maxsup.lab.data.sources import Files
from maxsup.lab.data.splits import DataSet
from maxsup.lab.recipes import Data
from maxsup.lab.records import DataError

LAYOUT = "DIR/train/CLASS/NAME.png and, optionally, DIR/val and DIR/test of the same kind"


def load_image_folder(data_dir: Path | None = None, image_size: int | None = None, data: Data | None = None) -> DataSet:
    """Your images: DIR/train/CLASS/NAME.png (or .jpg, …), DIR/val, DIR/test; needs --data.image-size.

    The classes are the names of train's folders, in order; images may lie deeper in them. A fifth of train, stratified,
    stands in for a validation folder that is missing, and another for a missing test folder; where there is val and no
    test, as in ImageNet, val is the test split, and validation images are held out of train. The images are grey if
    all files are, and RGB otherwise; each has its shorter side resized and its centre kept. Unreadable files are left
    out and listed in the data set's `problems`, up to `data.unreadable_limit`.

    Raises:
        ValueError: if `image_size` is None, or an option does not apply.
        DataError: if a folder is missing, a class has too few images or is unknown to train, or too many files are
            unreadable; it names the folder or the files.
    """
    if image_size is None:
        raise ValueError("image-folder: data.image_size must be given; files have sizes of their own")
    if data_dir is None:
        raise DataError(f"image-folder: --data-dir must name a folder DIR with {LAYOUT}")
    folders = {name: data_dir / name for name in ("train", "val", "test") if (data_dir / name).is_dir()}
    if "train" not in folders:
        raise DataError(f"{data_dir / 'train'}: missing; an image folder has {LAYOUT}")
    classes = class_folders(folders["train"])
    # Of train, each split may have to get one.
    listed = {name: list_classes(folder, classes, 5 if name == "train" else 1) for name, folder in folders.items()}
    return data_set("image-folder", classes, listed, image_size, data or Data())


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in `folder`, in order.

    Raises:
        DataError: if there are fewer than two.
    """
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if len(classes) < 2:
        raise DataError(f"{folder}: {len(classes)} folders of classes, where a data set needs 2")
    return classes


def list_classes(folder: Path, classes: list[str], least: int) -> Listed:
    """The image files of a folder of classes, class by class, in order of name.

    Raises:
        DataError: if a class has fewer than `least`, or a folder is none of `classes`; it names the folder.
    """
    strange = sorted({entry.name for entry in os.scandir(folder) if entry.is_dir()} - set(classes))
    if strange:
        raise DataError(f"{folder / strange[0]}: no class of {folder.parent / 'train'}")
    names: list[str] = []
    counts: list[int] = []
    paths = [folder]
    for name in classes:
        found: list[str] = []
        # os.walk: for a million files, a path object each would take longer than the listing.
        for parent, _, files in os.walk(folder / name, followlinks=True):
            paths.append(Path(parent))
            inside = os.path.relpath(parent, folder)
            found += [f"{inside}/{file}" for file in files if os.path.splitext(file)[1].lower() in IMAGES]  # noqa: PTH122
        if len(found) < least:
            raise DataError(f"{folder / name}: {len(found)} images, where a class needs {least} here")
        names += sorted(found)
        counts.append(len(found))
    labels = torch.repeat_interleave(torch.arange(len(classes)), torch.tensor(counts))
    return Listed(Files(folder, names), labels, tuple(paths))
