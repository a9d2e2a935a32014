"""The order of an epoch's images, and each process's share of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def batch_slices(n: int, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[slice]:
    """The positions of an epoch of `n` images that process `rank` of `world` takes, one slice a global batch.

    Every `world`-th image of a batch is a process's, so that together they see what one process would see. A last batch
    that leaves a process fewer than two images is left out, as batch norm needs two.

    Raises:
        ValueError: for a rank outside 0..world-1, or a batch that gives each process fewer than two images.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank must be from 0 to world - 1 = {world - 1}, got {rank}")
    if batch_size < 2 * world:
        raise ValueError(f"batch_size must be at least 2 for each of {world} processes, got {batch_size}")
    for start in range(0, n, batch_size):
        stop = min(start + batch_size, n)
        if stop - start >= 2 * world:
            yield slice(start + rank, stop, world)


def even_share(n: int, rank: int = 0, world: int = 1) -> range:
    """Which of `n` images process `rank` evaluates: neighbours, so that the shares in order of rank are all in order.

    Raises:
        ValueError: for a rank outside 0..world-1.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank must be from 0 to world - 1 = {world - 1}, got {rank}")
    return range(n * rank // world, n * (rank + 1) // world)


def shuffled(n: int, generator: torch.Generator) -> Tensor:
    """Indices of the images of an epoch in random order, (n,), on the generator's device."""
    return torch.randperm(n, generator=generator, device=generator.device)
