"""Online label smoothing (Zhang et al. 2021): the smoothed label of a class is what the model predicted for it."""

from __future__ import annotations

import torch
from torch import Tensor

from maxsup.methods.common import target_logit, without_absent


def online_label_smoothing_penalty(log_q: Tensor, target: Tensor, table: Tensor) -> Tensor:
    """−Σ_k S[y, k] log q_k + log q_y per row: what turns CE into the soft loss; (N, K), (N,), (K, K) -> (N,)."""
    return target_logit(log_q, target) - (table[target] * without_absent(log_q)).sum(1)


def correct_predictions(logits: Tensor, log_q: Tensor, target: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """(q, 0 where the prediction is wrong or the row ignored; whether it is right): (N, K), (N,).

    A row that overflowed is never right: one NaN would stay in its class's sum for good.
    """
    right = (logits.argmax(1) == target) & log_q.gather(1, target.unsqueeze(1)).squeeze(1).isfinite()
    if keep is not None:
        right = right & keep
    return torch.where(right.unsqueeze(1), log_q.exp(), 0.0).detach(), right


def first_table(classes: int, smoothing: float) -> Tensor:
    """(1 − s) I + s/K: label smoothing as a table."""
    return (1.0 - smoothing) * torch.eye(classes) + smoothing / classes


def next_table(sums: Tensor, counts: Tensor) -> Tensor:
    """S[c] = A[c] / n[c]; a class without a right prediction gets the uniform row."""
    classes = sums.shape[0]
    seen = counts.unsqueeze(1) > 0
    return torch.where(seen, sums / counts.clamp_min(1).unsqueeze(1), 1.0 / classes)
