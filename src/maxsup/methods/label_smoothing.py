"""Label smoothing as a penalty on the true class's logit (Eq. 1-5)."""

from __future__ import annotations

from torch import Tensor

from maxsup.methods.common import mean_of_present, target_logit


def label_smoothing_penalty(log_q: Tensor, target: Tensor) -> Tensor:
    """z_gt − z̄ per row; Σ_k y_k z_k − z̄ for probability targets (Eq. 27): (N, K) -> (N,)."""
    return target_logit(log_q, target) - mean_of_present(log_q)
