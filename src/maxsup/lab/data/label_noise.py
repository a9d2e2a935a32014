"""Wrong labels in the training split: which images get one, and which.

They belong to the data set, as its splits do: every method and every seed trains on the same labels. The labels of
validation and test stay right.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from maxsup.lab.data.splits import SPLIT_SEED, DataSet, stratified
from maxsup.lab.recipes import Data

# Beside the seed of the splits: which wrong label an image gets does not depend on whether it gets one.
_WRONG = 1


def with_label_noise(data_set: DataSet, data: Data) -> DataSet:
    """The data set with `data.label_noise` of its training labels flipped, and the right ones in `clean_labels`.

    A rate of 0 leaves everything as it is.
    """
    if data.label_noise == 0:
        return data_set
    clean = data_set.train.labels
    noisy = flipped(clean, data.label_noise, data_set.num_classes, pair=data.noise_kind == "pair")
    return dataclasses.replace(data_set, train=dataclasses.replace(data_set.train, labels=noisy), clean_labels=clean)


def flipped(labels: Tensor, rate: float, num_classes: int, *, pair: bool = False) -> Tensor:
    """The labels (N,), int64, of which round(rate·N) are wrong, each class's share of them to within one image.

    The same at every call; the labels that are wrong at some rate are so, with the same class, at every higher rate.

    Symmetric noise draws the wrong label uniformly from the K - 1 other classes, so that `rate` is the share of wrong
    labels. (Where the literature draws from all K classes, a rate r leaves a share r/K of the labels right that were
    drawn.) Pair noise takes class c + 1, and class 0 for the last: Han et al., Co-teaching, NeurIPS 2018.

    >>> flipped(torch.tensor([0, 1, 2, 0, 1, 2]), 0.5, 3, pair=True).bincount().tolist()
    [2, 2, 2]
    """
    steps = np.ones(len(labels), dtype=np.int64)
    if not pair:
        steps = np.random.default_rng([SPLIT_SEED, _WRONG]).integers(1, num_classes, len(labels))
    chosen = stratified(labels, round(rate * len(labels)))
    noisy = labels.clone()
    noisy[chosen] = (labels[chosen] + torch.from_numpy(steps)[chosen]) % num_classes
    return noisy
