"""The training batches of a fine-tuning: which images come at which iteration is a function of the seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maxsup.lab.data.splits import with_channels
from maxsup.lab.segmentation.augment import augment_batch, augment_one, draw
from maxsup.lab.segmentation.data import Files, Pixels
from maxsup.lab.segmentation.recipes import Augmentation

Batches = Iterator[tuple[Tensor, Tensor]]


def chosen(seed: int, n: int, batch_size: int, iteration: int) -> list[int]:
    """The images of a batch: the places of one endless row of random orders of all `n`, cut into batches.

    >>> sorted(chosen(0, 6, 3, 0) + chosen(0, 6, 3, 1))
    [0, 1, 2, 3, 4, 5]
    """
    places = range(iteration * batch_size, (iteration + 1) * batch_size)
    return [int(_order(seed, n, place // n)[place % n]) for place in places]


@lru_cache(maxsize=2)
def _order(seed: int, n: int, epoch: int) -> NDArray[np.int64]:
    order: NDArray[np.int64] = np.random.default_rng((seed, epoch)).permutation(n)
    return order


def batches(
    split: Pixels,
    how: Augmentation,
    batch_size: int,
    seed: int,
    iterations: range,
    device: torch.device,
    *,
    rank: int = 0,
    processes: int = 1,
    workers: int = 0,
) -> Batches:
    """The augmented batches of `iterations`: images (n, C, S, S) and labels (n, S, S), uint8, on `device`.

    Process `rank` of `processes` gets its share of each batch. Files are read by `workers` processes, none by default;
    their number changes nothing.

    Raises:
        ValueError: if `how` asks of arrays what only files have, or of files what only arrays have.
    """
    share = slice(rank, None, processes)
    if isinstance(split, Files):
        yield from _from_files(split, how, _Keys(len(split), batch_size, seed, iterations, share), device, workers)
        return
    if how.photometric or how.resize is not None or how.most_of_one_class < 1:
        raise ValueError("augmentation.resize, most_of_one_class and photometric are for images from files alone")
    where = split.images.device
    for iteration in iterations:
        # Pinned, so that the host need not wait for the GPU.
        mine = torch.tensor(chosen(seed, len(split), batch_size, iteration)[share], pin_memory=where.type == "cuda")
        # Of the whole batch, so that the processes together see what one alone would.
        draws = draw(batch_size, how, torch.Generator(where).manual_seed(_seed(seed, iteration)))
        taken = split.take(mine.to(where, non_blocking=True))
        images, labels = augment_batch(taken.images, taken.labels, how.crop, draws[share])
        yield images.to(device), labels.to(device)


def _seed(*parts: int) -> int:
    """One seed of 63 bits from several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


class _Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Pairs by (index, seed of the augmentation)."""

    def __init__(self, split: Files, how: Augmentation) -> None:
        self.split = split
        self.how = how

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        index, seed = key
        return augment_one(*self.split.pair(index), self.how, seed)


def _collate(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    channels = max(len(image) for image, _ in pairs)
    images = [with_channels(image.unsqueeze(0), channels)[0] for image, _ in pairs]
    return torch.stack(images), torch.stack([labels for _, labels in pairs])


class _Keys:
    """What `_Augmented` takes, a list a batch: made as they are asked for, since a long training has millions."""

    def __init__(self, n: int, batch_size: int, seed: int, iterations: range, share: slice) -> None:
        self.n, self.batch_size, self.seed, self.iterations, self.share = n, batch_size, seed, iterations, share

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for iteration in self.iterations:
            indices = chosen(self.seed, self.n, self.batch_size, iteration)
            keys = [(index, _seed(self.seed, iteration, place)) for place, index in enumerate(indices)]
            yield keys[self.share]


def _from_files(split: Files, how: Augmentation, keys: _Keys, device: torch.device, workers: int) -> Batches:
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        _Augmented(split, how),
        batch_sampler=keys,
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
        # Of its own: it would take a number of the one that dropout uses.
        generator=torch.Generator(),
    )
    for images, labels in loader:
        yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
