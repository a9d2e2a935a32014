"""The two parts of label smoothing (Eq. 5, Table 1); the whole is in `picked`."""

from __future__ import annotations

import torch
from torch import Tensor

from maxsup.methods.common import target_logit, without_absent


def regularization(logits: Tensor, target: Tensor, form: str) -> Tensor:
    """Σ (z_gt − z_m) over z_m < z_gt, divided by K ("classes") or by the number of terms ("terms"); >= 0."""
    excess = _excess(logits, target)
    return _divided((-excess).relu(), excess < 0, logits, form)


def error_enhancement(logits: Tensor, target: Tensor, form: str) -> Tensor:
    """Σ (z_gt − z_n) over z_n > z_gt, divided likewise, or z_gt − z_max ("max"); <= 0."""
    if form == "max":
        top = logits.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)
        return target_logit(logits, target) - top
    excess = _excess(logits, target)
    return -_divided(excess.relu(), excess > 0, logits, form)


def _excess(logits: Tensor, target: Tensor) -> Tensor:
    """z_k − z_gt, 0 for absent classes, (N, K). From the logits: log-probabilities may round into ties."""
    difference = logits - target_logit(logits, target).unsqueeze(1)
    return without_absent(difference)


def _divided(terms: Tensor, counted: Tensor, logits: Tensor, form: str) -> Tensor:
    if form == "classes":
        return terms.sum(1) / (logits != -torch.inf).sum(1)
    # An empty sum is 0, not 0/0.
    return terms.sum(1) / counted.sum(1).clamp_min(1)
