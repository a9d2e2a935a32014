"""Zipf label smoothing (Liang et al. 2022): the other classes' shares fall with their rank among dense votes."""

from __future__ import annotations

import torch
from torch import Tensor


def votes(dense_logits: Tensor) -> Tensor:
    """How many positions have each class as their argmax: (N, K, P) -> (N, K)."""
    choice = dense_logits.argmax(1)
    counts = torch.zeros(dense_logits.shape[:2], device=dense_logits.device)
    return counts.scatter_add(1, choice, torch.ones_like(choice, dtype=counts.dtype))


def ranks(scores: Tensor) -> Tensor:
    """1 + the number of classes with a higher score, so that equals share the better rank: (N, K) -> (N, K)."""
    scores = scores.contiguous()
    ascending = scores.sort(1).values.contiguous()
    return 1 + scores.shape[1] - torch.searchsorted(ascending, scores, right=True)


def zipf_penalty(logits: Tensor, target: Tensor, scores: Tensor) -> Tensor:
    """KL(P ‖ Q) over the classes that are neither the target nor absent: (N, K), (N,), (N, K) -> (N,).

    Q is the softmax of their logits, so the target's logit gets no gradient; P is proportional to 1 / rank of the
    score among all K classes, detached.
    """
    others = (logits != -torch.inf).scatter(1, target.unsqueeze(1), False)
    # A row without other classes has nothing to shape; zeros keep its softmax from being 0/0.
    alone = ~others.any(1, keepdim=True)
    log_q = torch.where(others, logits, -torch.inf).masked_fill(alone, 0.0).log_softmax(1)
    shares = torch.where(others, 1.0 / ranks(scores.detach()).to(logits.dtype), 0.0)
    p = shares / shares.sum(1, keepdim=True).clamp_min(torch.finfo(shares.dtype).tiny)
    return torch.where(others, torch.xlogy(p, p) - p * torch.where(others, log_q, 0.0), 0.0).sum(1)
