"""Max Suppression: penalise the top-1 logit (Eq. 6-9)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maxsup.methods.common import (
    cross_entropy,
    first_maximum,
    in_function_transform,
    mean_and_whether_whole,
    mean_of_present,
)


def max_sup_penalty(logits: Tensor, log_q: Tensor) -> Tensor:
    """z_max − z̄ per row: (N, K) -> (N,).

    The difference is the same for logits and log-probabilities, so it costs one backward pass with the cross-entropy.
    argmax gives the lowest index among equal maxima, and gather sends the whole sub-gradient there (amax would
    spread it). It has to look at the logits: rounding can make two log-probabilities equal whose logits are not.
    """
    top = first_maximum(logits).unsqueeze(1)
    return log_q.gather(1, top).squeeze(1) - mean_of_present(log_q)


def max_sup_terms(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and penalty per row: (N, K) and class indices (N,) or probabilities (N, K) -> (N,), (N,)."""
    if target.dim() == 2 or in_function_transform():
        log_q = logits.log_softmax(1)
        return cross_entropy(log_q, target), max_sup_penalty(logits, log_q)
    function = _FusedTerms if torch.compiler.is_compiling() else _Terms
    terms: tuple[Tensor, Tensor] = function.apply(logits, target)
    return terms


# Both functions below have the upstream gradients a, b (N,) of the two terms and the gradient
#     d/dz_k = a (q_k - y_k) + b ([k = top] - 1/K),
# where K counts, and the 1/K goes to, the classes whose logit is not -inf.


class _Terms(torch.autograd.Function):
    """`max_sup_terms` for eager mode: two tensors of (N, K) are made, the least that log-softmax allows."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        log_q = logits.log_softmax(1)
        picked = torch.stack((target, first_maximum(logits)), 1)
        mean, ctx.whole = mean_and_whether_whole(log_q)
        ctx.save_for_backward(logits, target, log_q, picked)
        true, top = log_q.gather(1, picked).unbind(1)
        return -true, top - mean

    @staticmethod
    def backward(ctx: Any, a: Tensor, b: Tensor) -> tuple[Tensor, None]:
        logits, target, log_q, picked = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a second derivative, which needs operations that autograd can follow
            plain = cross_entropy(log_q := logits.log_softmax(1), target), max_sup_penalty(logits, log_q)
            return torch.autograd.grad(plain, logits, (a, b), create_graph=True)[0], None
        a, b = a.unsqueeze(1), b.unsqueeze(1)
        gradient = log_q.exp().mul_(a)
        if ctx.whole:
            gradient.sub_(b / log_q.shape[1])
        else:
            present = log_q != -torch.inf
            gradient.sub_(torch.where(present, b / present.sum(1, keepdim=True), 0.0))
        return gradient.scatter_add_(1, picked, torch.cat((-a, b), 1)), None


class _FusedTerms(torch.autograd.Function):
    """`max_sup_terms` for the compiler: comparisons in place of gather and scatter, so that each direction is one loop.

    A compiler fuses arithmetic into the pass that reads the logits; what it cannot fuse is an index.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        classes = logits.shape[1]
        column = torch.arange(classes, device=logits.device)
        maximum = logits.amax(1, keepdim=True)
        top = torch.where(logits == maximum, column, classes).amin(1)
        maximum = maximum.squeeze(1)
        log_sum = (logits - maximum.unsqueeze(1)).exp().sum(1).log() + maximum
        present = logits != -torch.inf
        mean = torch.where(present, logits, 0.0).sum(1) / present.sum(1)
        ctx.save_for_backward(logits, target, log_sum, top)
        return log_sum - logits.gather(1, target.unsqueeze(1)).squeeze(1), maximum - mean

    @staticmethod
    def backward(ctx: Any, a: Tensor, b: Tensor) -> tuple[Tensor, None]:
        logits, target, log_sum, top = ctx.saved_tensors
        column = torch.arange(logits.shape[1], device=logits.device)
        present = logits != -torch.inf
        share = (b / present.sum(1)).unsqueeze(1)
        a, b = a.unsqueeze(1), b.unsqueeze(1)
        gradient = a * ((logits - log_sum.unsqueeze(1)).exp() - (column == target.unsqueeze(1)).to(logits.dtype))
        gradient = gradient + torch.where(column == top.unsqueeze(1), b, 0.0) - torch.where(present, share, 0.0)
        return gradient, None
