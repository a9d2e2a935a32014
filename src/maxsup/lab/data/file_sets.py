"""From listed image files to a data set: checked, split, and in memory or streamed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maxsup.lab.data.checked import check, refuse_too_many, stamp_of
from maxsup.lab.data.sources import Files, Memory, Shards, opened
from maxsup.lab.data.splits import AnySplit, DataSet, Split, hold_out, resize, with_channels
from maxsup.lab.data.streamed import Streamed
from maxsup.lab.data.view import View
from maxsup.lab.recipes import Data
from maxsup.lab.records import DataError

# More bytes of pixels than this are streamed rather than held: a share of a common machine's memory, or of a GPU's.
IN_MEMORY = 2 * 1024**3


@dataclass(frozen=True)
class Listed:
    """The image files of one split: where they are, their labels (N,), and the paths that change when they do."""

    source: Files | Shards
    labels: Tensor
    paths: tuple[Path, ...]


def streams(data: Data, images: int, image_size: int) -> bool:
    """Whether `images` files are to be read during training; raises ValueError for what memory does not offer."""
    if data.streaming != "auto":
        if data.streaming == "off":
            refuse_in_memory(data, "with data.streaming off")
        return data.streaming == "on"
    asks = data.on_workers or data.eval_crop != 1 or data.interpolation != "bilinear"
    return asks or images * 3 * image_size**2 > IN_MEMORY


def refuse_in_memory(data: Data, why: str) -> None:
    """Raises ValueError for an option that only streamed images have."""
    if data.eval_crop != 1:
        raise ValueError(f"data.eval_crop {data.eval_crop} is for streamed images; these are in memory {why}")
    if data.interpolation != "bilinear" and not data.random_resized_crop:
        raise ValueError(
            f"data.interpolation {data.interpolation} is for streamed images or random_resized_crop; these are in "
            f"memory {why}"
        )
    if data.loader_workers is not None and not data.on_workers:
        raise ValueError(f"data.loader_workers is for images that are decoded in training; these are in memory {why}")


def in_memory(listed: dict[str, Listed], image_size: int, limit: float) -> tuple[dict[str, Split], list[str]]:
    """The splits with images of `image_size` × `image_size`, grey only if all are, and the unreadable files."""
    images: dict[str, list[Tensor]] = {name: [] for name in listed}
    labels: dict[str, list[int]] = {name: [] for name in listed}
    problems = []
    for name, of in listed.items():
        for index, label in enumerate(of.labels.tolist()):
            try:
                image = opened(of.source, index)
            except DataError as error:
                problems.append(str(error))
                continue
            grey = image.mode in ("1", "L")
            pixels = torch.from_numpy(np.array(image.convert("L" if grey else "RGB")))
            pixels = pixels[None] if grey else pixels.permute(2, 0, 1).contiguous()
            images[name].append(resize(pixels.unsqueeze(0), image_size)[0])
            labels[name].append(label)
    refuse_too_many(problems, sum(len(of.labels) for of in listed.values()), limit)
    channels = max(len(image) for split in images.values() for image in split)
    splits = {
        name: Split(
            torch.stack([with_channels(image.unsqueeze(0), channels)[0] for image in images[name]]),
            torch.tensor(labels[name]),
        )
        for name in listed
    }
    return splits, problems


def streamed(listed: dict[str, Listed], image_size: int, data: Data) -> tuple[dict[str, Streamed], list[str]]:
    """The splits, to be read when needed, and the unreadable files, which are left out."""
    found = {name: check(of.source, stamp_of([of.source.names.digest()], of.paths)) for name, of in listed.items()}
    problems = [reason for of in found.values() for reason in of.unreadable.values()]
    refuse_too_many(problems, sum(len(of.labels) for of in listed.values()), data.unreadable_limit)
    view = View(
        size=(image_size, image_size),
        channels=1 if all(of.grey for of in found.values()) else 3,
        interpolation=data.interpolation,
        crop=data.eval_crop,
    )
    splits = {}
    for name, of in listed.items():
        indices = np.delete(np.arange(len(of.labels)), list(found[name].unreadable))
        kept = torch.from_numpy(indices)
        splits[name] = Streamed(of.source, kept, of.labels[kept], view, data.loader_workers)
    return splits, problems


def data_set(
    name: str,
    class_names: Sequence[str],
    listed: dict[str, Listed],
    image_size: int,
    data: Data,
    *,
    held_out: int | None = None,
    always_streamed: bool = False,
) -> DataSet:
    """The data set of listed `train` and, where there are any, `val` and `test` files.

    Where there is val and no test, as in ImageNet, val is the test split, and validation images are held out of train,
    stratified: `data.held_out`, or else `held_out`, or else a fifth. A missing test split is a fifth of train.

    Raises:
        ValueError: for options that contradict each other or do not apply.
        DataError: if too many files are unreadable, or a class is left without an image.
    """
    complete = "val" in listed and "test" in listed
    if complete and data.held_out is not None:
        raise ValueError(f"data.held_out: {name} has its own validation split here, so that nothing is held out")
    if always_streamed and data.streaming == "off":
        raise ValueError(f"data.streaming: {name} is streamed; off is for an image-folder")
    found: dict[str, AnySplit] = {}
    if always_streamed or streams(data, sum(len(of.labels) for of in listed.values()), image_size):
        parts, problems = streamed(listed, image_size, data)
        found.update(parts)
    else:
        refuse_in_memory(data, "(data.streaming on would stream them)")
        held, problems = in_memory(listed, image_size, data.unreadable_limit)
        found.update(held)
    for part, split in found.items():
        absent = sorted(set(range(len(class_names))) - set(split.labels.unique().tolist()))
        if absent:
            raise DataError(f"{name}: no readable image of {class_names[absent[0]]!r} in {part} ({len(absent)} such)")
    train = found["train"]
    fifth = round(len(train) / 5)
    test = found.get("test", found.get("val"))
    if test is None:
        train, test = hold_out(train, fifth)
    if complete:
        validation = found["val"]
    else:
        size = data.held_out or held_out or fifth
        if size >= len(train):
            raise ValueError(f"data.held_out must be below the {len(train)} training images, got {size}")
        train, validation = hold_out(train, size)
    return DataSet(name, tuple(class_names), train, validation, test, tuple(problems))


def with_workers(split: AnySplit, data: Data) -> AnySplit:
    """Training images in memory as streamed ones, for augmentation image by image; others as they are."""
    if not data.on_workers or isinstance(split, Streamed):
        return split
    if split.channels not in (1, 3):
        raise ValueError(
            f"data.random_resized_crop and data.rand_augment need grey or RGB images; these have {split.channels} "
            "channels"
        )
    size = (split.images.shape[2], split.images.shape[3])
    view = View(size, split.channels)
    return Streamed(Memory(split.images), torch.arange(len(split)), split.labels, view, data.loader_workers)


def check_options(of: DataSet, data: Data) -> None:
    """Raises ValueError for options of files that were given for a data set that has none."""
    if data.streaming == "on":
        raise ValueError(f"data.streaming: {of.name} is held in memory; image-folder, imagenet and webdataset are not")
    if data.held_out is not None:
        raise ValueError(f"data.held_out: {of.name} has its own validation split, so that nothing is held out")
    refuse_in_memory(data, f"({of.name} always is)")


def with_normalization(of: DataSet, data: Data) -> DataSet:
    """The data set with the constants that `data.normalize` asks for."""
    if data.normalize == "data":
        return of
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    if of.channels != 3:
        raise ValueError(f"data.normalize imagenet is for RGB images; those of {of.name} have {of.channels} channel")
    return replace(of, constants=(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
