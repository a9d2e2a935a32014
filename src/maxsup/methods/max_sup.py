"""MaxSup (Eq. 6-9): z_max − z̄."""

from __future__ import annotations

from torch import Tensor

from maxsup.methods.rows import Rows


def max_sup(rows: Rows) -> Tensor:
    """z_max − z̄ per sample, (N,); ∂/∂z_k = 1[k = argmax] − 1/K."""
    return rows.top1() - rows.mean()
