"""Batches of images for training and evaluation, in one process or one of several."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maxsup.lab.data.augment import augment, draw
from maxsup.lab.data.loader import Wait
from maxsup.lab.data.mixing import FloatAugmentation
from maxsup.lab.data.order import batch_slices, epoch_order, even_share, paired
from maxsup.lab.data.randomness import seed_of, seeds
from maxsup.lab.data.splits import Split
from maxsup.lab.data.streamed import Streamed
from maxsup.lab.recipes import Data

# Purposes of seeds, beside those of mixing.py.
_WORKERS, _DRAWS = 0, 4


class Batches:
    """The batches of one pass over a split; `len` tells how many, iterating makes them."""

    def __init__(self, number: int, batches: Iterator[tuple[Tensor, Tensor]], wait: Wait) -> None:
        self._number = number
        self._batches = batches
        self._wait = wait

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._batches

    def __next__(self) -> tuple[Tensor, Tensor]:
        return next(self._batches)

    def waited(self) -> float:
        """Seconds so far that the device stood still for want of streamed images; 0 for images in memory.

        On a GPU the time between its last work on one batch and its first on the next, so far as the next was not
        there; to know it, the host waits for the GPU.
        """
        return self._wait.seconds()


def training_batches(
    split: Split | Streamed,
    data: Data,
    batch_size: int,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world: int = 1,
    num_classes: int | None = None,
    normalization: tuple[Tensor, Tensor] | None = None,
) -> Batches:
    """One epoch in random order, augmented, as process `rank` of `world` sees it.

    The order and what happens to an image depend on `seed` and on the image's position in the epoch alone: the batches
    of all processes together are those of one process, whatever the number of processes that decode. Images in memory
    are augmented on the device that holds them, streamed ones by the processes that decode them and then on `device`.

    Args:
        split: the training images.
        data: the recipe's augmentation.
        batch_size: images of one step, of all processes together. With mixup or cutmix, which work on whole batches
            alone, a last, smaller batch is left out.
        seed: of this epoch.
        device: where the batches shall be.
        rank: this process.
        world: how many processes there are; all get the same number of batches, and shares of a last, smaller batch
            may differ by one image.
        num_classes: needed with mixup or cutmix, where labels become probabilities.
        normalization: mean and standard deviation per channel, (C, 1, 1), of images scaled to 0..1; needed with random
            erasing, mixup or cutmix, where images become floats.

    Returns:
        images (n, C, H, W) and labels. Images are uint8 in 0..255, or float32 of mean 0 and deviation 1 with random
        erasing, mixup or cutmix. Labels are int64 (n,), or float32 probabilities (n, num_classes) with mixup or cutmix.

    Raises:
        ValueError: for a rank outside 0..world-1, a batch that gives each process fewer than two images, an argument
            that is needed and None, images in memory with an augmentation that `load` must prepare, or with mixup or
            cutmix a batch size that is no multiple of 2·world or exceeds the epoch.
        DataError: for a streamed image that is unreadable; it names it.
    """
    device = torch.device(device)
    if isinstance(split, Split) and data.on_workers:
        raise ValueError("data.random_resized_crop and data.rand_augment need a split from maxsup.lab.data.load")
    home = split.labels.device if isinstance(split, Split) else device
    generator = torch.Generator(split.labels.device).manual_seed(seed)
    order = epoch_order(len(split), data.repeats, generator)
    slices = list(batch_slices(len(order), batch_size, rank, world))
    if data.mixes:
        slices = _whole(slices, len(order), batch_size, world)
    positions: list[slice | Tensor] = [paired(part) if data.mixes else part for part in slices]
    draws = draw(data, len(order), torch.Generator(home).manual_seed(seed_of(seed, _DRAWS, 0)))
    wait = Wait(device)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        floats = None
        for number, (images, labels) in enumerate(_read(split, data, order, positions, seed, device, wait)):
            own = positions[number]
            images = augment(images, data, draws[own if isinstance(own, slice) else own.to(home)])
            if data.random_erasing or data.mixes:
                if floats is None:
                    floats = FloatAugmentation(data, len(order), images.shape[1:], seed, num_classes, normalization)
                batch = range(number * batch_size, min((number + 1) * batch_size, len(order)))
                images, labels = floats(images, labels, _numbers(own), batch, number)
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    return Batches(len(slices), batches(), wait)


def _whole(slices: list[slice], n: int, batch_size: int, world: int) -> list[slice]:
    """The slices of whole batches, which can be mixed in pairs."""
    if batch_size % (2 * world):
        raise ValueError(
            f"batch_size must be a multiple of {2 * world} with mixup or cutmix, two images for each of {world} "
            f"processes, got {batch_size}"
        )
    if batch_size > n:
        raise ValueError(f"batch_size {batch_size} exceeds the {n} images of an epoch: mixup and cutmix need a batch")
    return slices[: n // batch_size]


def _numbers(positions: slice | Tensor) -> NDArray[np.int64]:
    if isinstance(positions, slice):
        return np.arange(positions.start, positions.stop, positions.step)
    return positions.numpy()


def _read(
    split: Split | Streamed,
    data: Data,
    order: Tensor,
    positions: list[slice | Tensor],
    seed: int,
    device: torch.device,
    wait: Wait,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The images and labels at positions of an epoch, before what happens to batches."""
    if isinstance(split, Split):
        for part in positions:
            indices = order[part if isinstance(part, slice) else part.to(order.device)]
            yield split.images[indices], split.labels[indices]
        return
    indices_of = [order[part] for part in positions]
    chance = seeds(seed, _WORKERS, len(order))
    chances = [chance[_numbers(part)] for part in positions]
    for indices, images in zip(indices_of, split.training(indices_of, chances, data, device, wait), strict=True):
        yield images, split.labels[indices].to(device, non_blocking=True)


def evaluation_batches(
    split: Split | Streamed, batch_size: int, *, device: torch.device | str = "cpu", rank: int = 0, world: int = 1
) -> Batches:
    """Every image of process `rank`'s share, once and in order.

    The shares are disjoint and contiguous (`even_share`): joined in order of rank, they are the whole split in order.
    A share is empty where there are more processes than images.

    Args:
        split: the images.
        batch_size: images at a time, of this process.
        device: where the batches shall be.
        rank: this process.
        world: how many processes there are.

    Returns:
        images (n, C, H, W), uint8 in 0..255, and labels (n,), int64.

    Raises:
        ValueError: for a rank outside 0..world-1.
        DataError: for a streamed image that is unreadable; it names it.
    """
    device = torch.device(device)
    share = even_share(len(split), rank, world)
    ranges = [range(i, min(i + batch_size, share.stop)) for i in range(share.start, share.stop, batch_size)]
    wait = Wait(device)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        read = (
            (split.images[part.start : part.stop] for part in ranges)
            if isinstance(split, Split)
            else split.evaluation(ranges, device, wait)
        )
        for part, images in zip(ranges, read, strict=True):
            labels = split.labels[part.start : part.stop]
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    return Batches(len(ranges), batches(), wait)
