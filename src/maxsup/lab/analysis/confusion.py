"""Which classes a model takes for which, and which three it confuses most."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Counts = NDArray[np.int64]


def confusion_matrix(logits: Tensor, labels: Tensor) -> Counts:
    """Counts (K, K) of logits (N, K) by label (row) and largest logit (column; the lowest index among equals)."""
    classes = logits.shape[1]
    return torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2).view(classes, classes).numpy()


def most_confused(counts: Counts) -> tuple[int, int, int]:
    """The three classes, in order of index, with the most confusions among them; the first such three of equals.

    Every triple is looked at, in O(K³) time and O(K²) memory.

    Args:
        counts: (K, K), K ≥ 3; the diagonal does not count.

    Raises:
        ValueError: if `counts` is not square or has fewer than three classes.
    """
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or len(counts) < 3:
        raise ValueError(f"counts must be (K, K) with K of at least 3, got {counts.shape}")
    pairs = counts + counts.T
    best, found = -1, (0, 1, 2)
    for a in range(len(counts) - 2):
        # Of b < c, both after a: the confusions of all three pairs.
        row = pairs[a, a + 1 :]
        sums = np.where(
            np.triu(np.ones_like(pairs[a + 1 :, a + 1 :]), 1), pairs[a + 1 :, a + 1 :] + row + row[:, None], -1
        )
        place = int(sums.argmax())
        if sums.flat[place] > best:
            best = int(sums.flat[place])
            b, c = divmod(place, len(row))
            found = (a, a + 1 + b, a + 1 + c)
    return found
