"""Batches of images for training and evaluation, in one process or one of several."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maxsup.lab.data.augment import Draws, augment, draw
from maxsup.lab.data.loader import Wait
from maxsup.lab.data.mixing import FloatAugmentation
from maxsup.lab.data.order import batch_slices, epoch_length, epoch_order, even_share, paired
from maxsup.lab.data.randomness import seed_of, seeds
from maxsup.lab.data.splits import Split
from maxsup.lab.data.streamed import Streamed
from maxsup.lab.recipes import Data

# Purposes of seeds, beside those of mixing.py.
_WORKERS, _DRAWS = 0, 4
# So many bytes of images in memory are taken and augmented at once, of several batches if they are small: on a GPU each
# of its operations takes the host as long as one of the network's.
_TAKEN_BYTES = 1 << 24


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
    slices = _slices(len(order), data, batch_size, rank, world)
    positions: list[slice | Tensor] = [paired(part) if data.mixes else part for part in slices]
    draws = draw(data, len(order), torch.Generator(home).manual_seed(seed_of(seed, _DRAWS, 0)))
    wait = Wait(device)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        floats = None
        made = _augmented(split, data, order, positions, draws, seed, device, wait)
        for number, (images, labels) in enumerate(made):
            if data.random_erasing or data.mixes:
                if floats is None:
                    floats = FloatAugmentation(data, len(order), images.shape[1:], seed, num_classes, normalization)
                batch = range(number * batch_size, min((number + 1) * batch_size, len(order)))
                images, labels = floats(images, labels, _numbers(positions[number]), batch, number)
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    return Batches(len(slices), batches(), wait)


def training_batches_number(images: int, data: Data, batch_size: int, *, world: int = 1) -> int:
    """How many batches `training_batches` makes of as many images: its `len`, before there is an epoch.

    Raises:
        ValueError: as `training_batches`, for a batch size that does not do.
    """
    return len(_slices(epoch_length(images, data.repeats), data, batch_size, 0, world))


def _slices(n: int, data: Data, batch_size: int, rank: int, world: int) -> list[slice]:
    """A process's positions among the `n` of an epoch, batch by batch; whole ones that can be mixed in pairs."""
    slices = list(batch_slices(n, batch_size, rank, world))
    if not data.mixes:
        return slices
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


def _augmented(
    split: Split | Streamed,
    data: Data,
    order: Tensor,
    positions: list[slice | Tensor],
    draws: Draws,
    seed: int,
    device: torch.device,
    wait: Wait,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The images and labels at positions of an epoch, batch by batch, before what happens to whole batches."""
    if isinstance(split, Split):
        largest = max((len(_numbers(part)) for part in positions), default=1)
        at_once = max(1, _TAKEN_BYTES // (largest * max(1, split.images[:1].nbytes)))
        for start in range(0, len(positions), at_once):
            parts = positions[start : start + at_once]
            sizes, joined = [len(_numbers(part)) for part in parts], _joined(parts, order.device)
            indices = order[joined]
            images = augment(split.images[indices], data, draws[joined])
            yield from zip(images.split(sizes), split.labels[indices].split(sizes), strict=True)
        return
    indices_of = [order[part] for part in positions]
    chance = seeds(seed, _WORKERS, len(order))
    chances = [chance[_numbers(part)] for part in positions]
    read = split.training(indices_of, chances, data, device, wait)
    for part, indices, images in zip(positions, indices_of, read, strict=True):
        drawn = draws[_joined([part], device)]
        yield augment(images, data, drawn), split.labels[indices].to(device, non_blocking=True)


def _joined(parts: list[slice | Tensor], device: torch.device) -> slice | Tensor:
    """The positions of batches, one after the other."""
    first, last = parts[0], parts[-1]
    if isinstance(first, slice) and isinstance(last, slice) and (len(parts) == 1 or first.step == 1):
        return slice(first.start, last.stop, first.step)
    return torch.from_numpy(np.concatenate([_numbers(part) for part in parts])).to(device, non_blocking=True)


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
