"""Batches of training images, augmented on the device that trains."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from maxsup.lab.data.splits import Split
from maxsup.lab.recipes import Data


def augment(images: Tensor, data: Data, generator: torch.Generator) -> Tensor:
    """Random crop and flip of a batch (N, C, H, W), each image on its own, on the images' device."""
    n, _, height, width = images.shape
    if data.pad_crop:
        pad = data.pad_crop
        padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
        shifts = torch.randint(2 * pad + 1, (2, n, 1), generator=generator, device=images.device)
        rows = (shifts[0] + torch.arange(height, device=images.device)).view(n, 1, height, 1)
        columns = (shifts[1] + torch.arange(width, device=images.device)).view(n, 1, 1, width)
        index = torch.arange(n, device=images.device).view(n, 1, 1, 1)
        channel = torch.arange(images.shape[1], device=images.device).view(1, -1, 1, 1)
        images = padded[index, channel, rows, columns]
    if data.flip:
        mirrored = torch.rand(n, generator=generator, device=images.device) < 0.5
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    return images


def training_batches(
    split: Split, data: Data, batch_size: int, *, seed: int, device: torch.device, rank: int = 0, world: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order, augmented; a last batch of a single image is left out (batch norm needs two).

    Of each batch of `batch_size` images the process `rank` of `world` gets every `world`-th.
    """
    generator = torch.Generator(device).manual_seed(seed)
    order = torch.randperm(len(split), generator=generator, device=device)
    for indices in order.split(batch_size):
        if len(indices) > 1:
            yield (
                augment(split.images[indices], data, generator)[rank::world],
                split.labels[indices[rank::world]],
            )


def evaluation_batches(
    split: Split, batch_size: int, *, device: torch.device, rank: int = 0, world: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """The split in its order; of each batch the process `rank` of `world` gets every `world`-th image."""
    for images, labels in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        yield images[rank::world].to(device), labels[rank::world].to(device)
