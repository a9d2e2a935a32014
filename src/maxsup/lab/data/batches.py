"""Batches of images for training and evaluation, in one process or one of several."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from maxsup.lab.data.augment import augment, draw
from maxsup.lab.data.order import batch_slices, even_share, shuffled
from maxsup.lab.data.splits import Split
from maxsup.lab.recipes import Data


def training_batches(
    split: Split,
    data: Data,
    batch_size: int,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world: int = 1,
    num_classes: int | None = None,
    normalization: tuple[Tensor, Tensor] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order, augmented, as process `rank` of `world` sees it.

    The order and what happens to an image depend on `seed` and on the image's position in the epoch alone: the batches
    of all processes together are those of one process. In memory, images are augmented on the device that holds them.

    Args:
        split: the training images.
        data: the recipe's augmentation.
        batch_size: images of one step, of all processes together.
        seed: of this epoch.
        device: where the batches shall be.
        rank: this process.
        world: how many processes there are; all get the same number of batches, and shares of a last, smaller batch
            may differ by one image.
        num_classes: needed where labels become probabilities.
        normalization: mean and standard deviation per channel, (C, 1, 1), needed where images become floats.

    Returns:
        images (n, C, H, W), uint8 in 0..255, and labels (n,), int64.

    Raises:
        ValueError: for a rank outside 0..world-1, or a batch that gives each process fewer than two images.
    """
    generator = torch.Generator(split.labels.device).manual_seed(seed)
    order = shuffled(len(split), generator)
    draws = draw(data, len(order), generator)
    for positions in batch_slices(len(order), batch_size, rank, world):
        indices = order[positions]
        images = augment(split.images[indices], data, draws[positions])
        yield images.to(device, non_blocking=True), split.labels[indices].to(device, non_blocking=True)


def evaluation_batches(
    split: Split, batch_size: int, *, device: torch.device | str = "cpu", rank: int = 0, world: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
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
    """
    share = even_share(len(split), rank, world)
    for start in range(share.start, share.stop, batch_size):
        batch = slice(start, min(start + batch_size, share.stop))
        yield split.images[batch].to(device, non_blocking=True), split.labels[batch].to(device, non_blocking=True)
