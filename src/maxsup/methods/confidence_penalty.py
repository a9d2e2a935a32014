"""Confidence penalty (Pereyra et al. 2017), plain and with a hinge."""

from __future__ import annotations

from torch import Tensor

from maxsup.methods.common import Number, without_absent


def confidence_penalty(log_q: Tensor, threshold: Number | None) -> Tensor:
    """−H(q) per row, or max(0, Γ − H(q)) with a threshold Γ: (N, K) -> (N,)."""
    # 0 log 0 = 0: the factor is 0 where q is, in the gradient too.
    negative_entropy = (log_q.exp() * without_absent(log_q)).sum(1)
    if threshold is None:
        return negative_entropy
    return (threshold + negative_entropy).clamp_min(0.0)
