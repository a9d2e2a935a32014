"""Label smoothing on logits (Eq. 4): z_gt − z̄."""

from __future__ import annotations

from torch import Tensor

from maxsup.methods.rows import Rows


def label_smoothing(rows: Rows) -> Tensor:
    """z_gt − z̄ per sample, (N,); with probabilities Σ_k t_k z_k − z̄ (Eq. 27)."""
    return rows.of_target() - rows.mean()
