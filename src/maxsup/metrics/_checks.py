"""What the measures ask of their arguments."""

from __future__ import annotations

import torch
from torch import Tensor


def check_features(features: Tensor, labels: Tensor) -> None:
    """Raises unless features are floating point (N, D) and labels integers (N,)."""
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(
            f"features must be floating point of shape (N, D), got {features.dtype}, {tuple(features.shape)}"
        )
    _check_integers(labels, len(features))


def check_label_range(labels: Tensor, num_classes: int) -> None:
    """Raises unless each of the labels (N,), N > 0, is from 0 to num_classes − 1."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must be from 0 to {num_classes - 1}, got {low if low < 0 else high}")


def check_logits(logits: Tensor, *, finite: bool = False) -> None:
    """Raises unless logits are floating point (N, K), N and K > 0, with a finite maximum in each row and no NaN.

    A logit of −inf is a class that is left out; `finite` refuses those too.
    """
    if logits.ndim != 2 or logits.numel() == 0 or not logits.is_floating_point():
        raise ValueError(
            f"logits must be floating point of shape (N, K) with N and K > 0, got {logits.dtype}, {tuple(logits.shape)}"
        )
    # The maximum is NaN where any of the row is.
    if not bool((logits if finite else logits.amax(1)).isfinite().all()):
        raise ValueError(f"logits must be finite{'' if finite else ' or −inf'}, got NaN or infinity")


def check_logits_and_labels(logits: Tensor, labels: Tensor, *, finite: bool = False) -> None:
    """`check_logits`, and raises unless labels are integers (N,) from 0 to K − 1."""
    check_logits(logits, finite=finite)
    _check_integers(labels, len(logits))
    check_label_range(labels, logits.shape[1])


def _check_integers(labels: Tensor, length: int) -> None:
    if labels.shape != (length,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers of shape ({length},), got {labels.dtype}, {tuple(labels.shape)}")
