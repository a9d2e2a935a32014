"""Samples that a score cannot tell apart."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_over_ties(score: Tensor, values: Tensor) -> Tensor:
    """`values` (N,), float64, each replaced by its mean over the samples of the same `score` (N,), which is sorted."""
    _, group, count = torch.unique_consecutive(score, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(count), dtype=torch.float64, device=values.device).index_add_(0, group, values)
    return sums.div_(count)[group]


def last_of_ties(score: Tensor) -> Tensor:
    """Whether each sample of the sorted `score` (N,) is the last of its equals."""
    return torch.cat((score[1:] != score[:-1], score.new_ones(1, dtype=torch.bool)))
