"""The order of an epoch's images, and each process's share of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# timm's RepeatAugSampler, as DeiT's, shortens an epoch to a multiple of this.
_REPEATED_MULTIPLE = 256


def epoch_order(n: int, repeats: int, generator: torch.Generator) -> Tensor:
    """Indices of the images of an epoch in random order, on the generator's device.

    With `repeats`, each image stands there so many times in a row and the list ends after n entries, or the nearest
    multiple of 256 below where there is one: repeated augmentation as timm's RepeatAugSampler has it (Hoffer et al.
    2020, arXiv:1901.09335), before it is dealt out to the processes.
    """
    order = torch.randperm(n, generator=generator, device=generator.device)
    if repeats == 1:
        return order
    length = n // _REPEATED_MULTIPLE * _REPEATED_MULTIPLE or n
    return order[: -(-length // repeats)].repeat_interleave(repeats)[:length]


def batch_slices(n: int, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[slice]:
    """The positions of an epoch of `n` images that process `rank` of `world` takes, one slice a global batch.

    Every `world`-th image of a batch is a process's, so that together they see what one process would see. A last batch
    that leaves a process fewer than two images is left out, as batch norm needs two.

    Raises:
        ValueError: for a rank outside 0..world-1, or a batch that gives each process fewer than two images.
    """
    _check(rank, world)
    if batch_size < 2 * world:
        raise ValueError(f"batch_size must be at least 2 for each of {world} processes, got {batch_size}")
    for start in range(0, n, batch_size):
        stop = min(start + batch_size, n)
        if stop - start >= 2 * world:
            yield slice(start + rank, stop, world)


def paired(positions: slice) -> Tensor:
    """A process's positions in an even batch, ordered so that the first stands opposite the last, and so on inwards.

    Opposite one another are positions half a batch apart, whatever the number of processes that the batch was dealt
    out to: timm's mixup and cutmix mix an image with the one opposite.
    """
    own = torch.arange(positions.start, positions.stop, positions.step)
    half = len(own) // 2
    return torch.cat([own[:half], own[half:].flip(0)])


def even_share(n: int, rank: int = 0, world: int = 1) -> range:
    """Which of `n` images process `rank` evaluates: neighbours, so that the shares in order of rank are all in order.

    Raises:
        ValueError: for a rank outside 0..world-1.
    """
    _check(rank, world)
    return range(n * rank // world, n * (rank + 1) // world)


def _check(rank: int, world: int) -> None:
    if not 0 <= rank < world:
        raise ValueError(f"rank must be from 0 to world - 1 = {world - 1}, got {rank}")
