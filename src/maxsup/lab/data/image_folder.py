"""A folder of images, one folder a class, as torchvision's ImageFolder has it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from maxsup.lab.data.masks import IMAGES, read_image
from maxsup.lab.data.splits import DataSet, Split, hold_out, resize, with_channels
from maxsup.lab.records import DataError

LAYOUT = "DIR/train/CLASS/NAME.png and, optionally, DIR/val and DIR/test of the same kind"


def load_image_folder(data_dir: Path | None = None, image_size: int | None = None) -> DataSet:
    """Your images: DIR/train/CLASS/NAME.png (or .jpg, …), DIR/val, DIR/test; needs --data.image-size.

    The classes are the names of train's folders, in order; images may lie deeper in them. A fifth of train, stratified,
    stands in for a validation folder that is missing, and another for a missing test folder; where there is val and no
    test, as in ImageNet, val is the test split, and validation images are held out of train. The images are grey if
    all files are, and RGB otherwise; each has its shorter side resized to `image_size` and its centre kept.

    Raises:
        ValueError: if `image_size` is None.
        DataError: if a folder is missing, a class has too few images or is unknown to train, or a file is unreadable;
            it names the folder or the file.
    """
    if image_size is None:
        raise ValueError("image-folder: data.image_size must be given; files have sizes of their own")
    if data_dir is None:
        raise DataError(f"image-folder: --data-dir must name a folder DIR with {LAYOUT}")
    folders = {name: data_dir / name for name in ("train", "val", "test") if (data_dir / name).is_dir()}
    if "train" not in folders:
        raise DataError(f"{data_dir / 'train'}: missing; an image folder has {LAYOUT}")
    classes = sorted(path.name for path in folders["train"].iterdir() if path.is_dir())
    if len(classes) < 2:
        raise DataError(f"{folders['train']}: {len(classes)} folders of classes, where a data set needs 2")
    for folder in folders.values():
        strange = sorted({path.name for path in folder.iterdir() if path.is_dir()} - set(classes))
        if strange:
            raise DataError(f"{folder / strange[0]}: no class of {folders['train']}")
    read = {name: _read(folder, classes, image_size) for name, folder in folders.items()}
    channels = max(len(image) for images, _ in read.values() for image in images)
    found = {name: _split(images, labels, channels) for name, (images, labels) in read.items()}
    train, fifth = found["train"], round(len(found["train"]) / 5)
    test = found.get("test", found.get("val"))
    if test is None:
        train, test = hold_out(train, fifth)
    if "val" in found and "test" in found:
        validation = found["val"]
    else:
        train, validation = hold_out(train, fifth)
    return DataSet("image-folder", tuple(classes), train, validation, test)


def _read(folder: Path, classes: list[str], image_size: int) -> tuple[list[Tensor], list[int]]:
    """The images (C, image_size, image_size) of a folder, in order of name, and their labels."""
    images: list[Tensor] = []
    labels: list[int] = []
    # Of train, each split may have to get one.
    least = 5 if folder.name == "train" else 1
    for label, name in enumerate(classes):
        files = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in IMAGES)
        if len(files) < least:
            raise DataError(f"{folder / name}: {len(files)} images, where a class needs {least} here")
        for file in files:
            grey, pixels = read_image(file)
            image = torch.from_numpy(pixels[None] if grey else pixels.transpose(2, 0, 1).copy())
            images.append(resize(image.unsqueeze(0), image_size)[0])
            labels.append(label)
    return images, labels


def _split(images: list[Tensor], labels: list[int], channels: int) -> Split:
    stacked = torch.stack([with_channels(image.unsqueeze(0), channels)[0] for image in images])
    return Split(stacked, torch.tensor(labels))
