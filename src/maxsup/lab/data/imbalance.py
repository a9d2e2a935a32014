"""Long-tailed training splits: the number of a class's images falls exponentially with its index."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from maxsup.lab.data.splits import SPLIT_SEED, DataSet
from maxsup.lab.recipes import Data
from maxsup.lab.records import DataError

# Beside the seed of the splits: not the order by which `train_size` chose.
_KEPT = 2


def with_imbalance(data_set: DataSet, data: Data) -> DataSet:
    """The data set with the training images that `data.imbalance` leaves; validation and test stay as they are.

    The images that a factor leaves in a class are among those that a smaller factor leaves there, and the same at every
    call. None leaves everything as it is.

    Raises:
        DataError: if a class would have no training image.
    """
    if data.imbalance is None:
        return data_set
    labels = data_set.train.labels
    available = labels.bincount(minlength=data_set.num_classes).tolist()
    counts = long_tailed(available, data.imbalance)
    if 0 in counts:
        raise DataError(
            f"data.imbalance {data.imbalance:g} leaves no training image of {data_set.class_names[counts.index(0)]!r}; "
            f"the {len(labels)} images of {data_set.name} have {min(available)} to {max(available)} a class"
        )
    order = torch.from_numpy(np.random.default_rng([SPLIT_SEED, _KEPT]).permutation(len(labels)))
    kept = [order[labels[order] == c][:count] for c, count in enumerate(counts)]
    return dataclasses.replace(data_set, train=data_set.train.take(torch.cat(kept).sort().values))


def long_tailed(available: Sequence[int], factor: float) -> list[int]:
    """How many images each of K classes keeps: N·factor^(-c/(K-1)), rounded down, of class c = 0 … K-1.

    N is the largest number for which every class has enough; in a balanced set all images of class 0. This is the
    profile of CIFAR-10-LT and CIFAR-100-LT (Cao et al., NeurIPS 2019, arXiv:1906.07413).

    >>> long_tailed([100, 100, 100], 25)
    [100, 20, 4]
    """
    last = max(len(available) - 1, 1)
    shares = [factor ** (-c / last) for c in range(len(available))]
    largest = min(count / share for count, share in zip(available, shares, strict=True))
    # What is whole but for the rounding of the products counts as whole.
    return [int(largest * share + 1e-9) for share in shares]
