"""How sure a model is, and how often it is right to be: functions of logits (N, K) and labels (N,)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maxsup.functional import label_smoothing_parts
from maxsup.metrics._checks import check_logits_and_labels

__all__ = ["ErrorEnhancement", "accuracy", "error_enhancement_share", "nll", "top1_confidence"]


class ErrorEnhancement(NamedTuple):
    """How much of label smoothing's penalty enhances errors, each a 0-dimensional float64 tensor from 0 to 1."""

    frequency: Tensor
    """Share of samples with a logit above z_gt."""
    share: Tensor
    """Mean over the samples of |error enhancement| / (regularisation + |error enhancement|)."""
    share_wrong: Tensor
    """The same over the wrongly predicted samples; NaN without one."""


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


def error_enhancement_share(logits: Tensor, labels: Tensor) -> ErrorEnhancement:
    r"""How often, and how strongly, label smoothing would enhance the errors of a trained model.

    Label smoothing's penalty is the sum of regularisation R_i = (α/K) Σ_{z_m<z_gt} (z_gt − z_m) ≥ 0 and error
    enhancement E_i = (α/K) Σ_{z_n>z_gt} (z_gt − z_n) ≤ 0 (`maxsup.functional.label_smoothing_parts`). The share of a
    sample is |E_i| / (R_i + |E_i|), whatever α is; 0 where both are 0, since all logits are equal. A sample whose z_gt
    is the maximum has share 0, also where the label shares the maximum with a lower index and so counts as wrong.

    Args:
        logits: (N, K), floating point; −inf leaves a class out.
        labels: (N,), integer, from 0 to K − 1.

    Raises:
        ValueError: if shapes do not fit, there is no sample, a label is out of range, or a logit is NaN or +inf.

    Example:
        >>> logits = torch.tensor([[3.0, 1.0, 0.0], [2.0, 1.0, -2.0]])  # shares 0 and 1 / (3 + 1)
        >>> [float(x) for x in error_enhancement_share(logits, torch.tensor([0, 1]))]
        [0.5, 0.125, 0.25]

    Reference: Zhou et al., "MaxSup: Overcoming Representation Collapse in Label Smoothing", arXiv 2502.15798, Corollary
    3.4.
    """
    check_logits_and_labels(logits, labels)
    parts = label_smoothing_parts(logits.double(), labels.long(), alpha=1.0)
    enhancement = -parts.error_enhancement
    total = parts.regularization + enhancement
    share = torch.where(total > 0, enhancement / total, 0.0)
    wrong = logits.argmax(1) != labels
    return ErrorEnhancement((enhancement > 0).double().mean(), share.mean(), share[wrong].mean())


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise ValueError(
            f"logits must be (N, K) and labels (N,) with N > 0, got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
