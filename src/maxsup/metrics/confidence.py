"""How sure a model is, and how often it is right to be: functions of logits (N, K) and labels (N,)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["accuracy", "nll", "top1_confidence"]


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of samples whose largest logit (the lowest index among equals) is the label's; 0-dimensional, float64."""
    _check(logits, labels)
    return (logits.argmax(1) == labels).double().mean()


def nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of the labels, in nats; 0-dimensional, float64."""
    _check(logits, labels)
    return F.cross_entropy(logits.double(), labels)


def top1_confidence(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean probability of the top-1 class where it is right, and where it is wrong; 0-dimensional, float64.

    The second is the paper's overconfidence. NaN where there is no such sample.
    """
    _check(logits, labels)
    top = logits.double().softmax(1).amax(1)
    right = logits.argmax(1) == labels
    return top[right].mean(), top[~right].mean()


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise ValueError(
            f"logits must be (N, K) and labels (N,) with N > 0, got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
