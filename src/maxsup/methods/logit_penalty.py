"""Logit penalty (Kornblith et al. 2021)."""

from __future__ import annotations

from torch import Tensor

from maxsup.methods.common import without_absent


def logit_penalty(logits: Tensor) -> Tensor:
    """‖z‖² / 2 over the logits that are not −inf: (N, K) -> (N,)."""
    return without_absent(logits).square().sum(1) / 2
