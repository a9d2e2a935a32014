"""Cross-entropy + α (z_p − z̄), p being the top-1 class of the row (MaxSup) or the true one (label smoothing).

Both methods need what the softmax computes anyway, so value and gradient are written out here. With upstream gradient g
of a row the gradient is

    d/dz_k = g (q_k − [k = y] + α ([k = p] − 1/K)),

where K counts, and the 1/K goes to, the classes whose logit is not −inf.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from maxsup.methods.common import (
    Number,
    cross_entropy,
    first_maximum,
    in_function_transform,
    maximum_and_place,
    mean_and_whether_whole,
    mean_of_present,
    target_logit,
    without_absent,
)

Pick = Literal["top", "true"]
# On a CPU PyTorch's exp2 takes a third of the time of its exp, in compiled code too.
_LOG2_E = math.log2(math.e)


def picked_cross_entropy(logits: Tensor, target: Tensor, alpha: Number, pick: Pick) -> Tensor:
    """Cross-entropy + α (z_p − z̄) per row: (N, K) and class indices (N,) or probabilities (N, K) -> (N,)."""
    if target.dim() == 2 or in_function_transform():
        return _plain(logits, target, alpha, pick)
    function = _Compiled if torch.compiler.is_compiling() else _Eager
    rows: Tensor = function.apply(logits, target, alpha, pick)
    return rows


def penalty(logits: Tensor, log_q: Tensor, target: Tensor, pick: Pick) -> Tensor:
    """z_p − z̄ per row; for probabilities the true logit is its expectation Σ_k y_k z_k (Eq. 27).

    The difference is the same for logits and log-probabilities, so it costs one backward pass with the cross-entropy.
    The top-1 class has to come from the logits: rounding can make two log-probabilities equal whose logits are not.
    gather sends the whole sub-gradient to one index (amax would spread it over equal maxima).
    """
    if pick == "true":
        return target_logit(log_q, target) - mean_of_present(log_q)
    return log_q.gather(1, first_maximum(logits).unsqueeze(1)).squeeze(1) - mean_of_present(log_q)


def _plain(logits: Tensor, target: Tensor, alpha: Number, pick: Pick) -> Tensor:
    """The formula in operations that autograd, and a second derivative, can follow."""
    log_q = logits.log_softmax(1)
    return cross_entropy(log_q, target) + alpha * penalty(logits, log_q, target, pick)


class _Eager(torch.autograd.Function):
    """For eager mode: one exponential, and two tensors of (N, K) in all: the exponentials and the gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, alpha: Number, pick: Pick) -> Tensor:
        if pick == "top":
            maximum, top = maximum_and_place(logits)
        else:
            maximum, top = logits.amax(1, keepdim=True), None
        shifted = logits - maximum
        mean, ctx.whole = mean_and_whether_whole(shifted)
        true = shifted.gather(1, target.unsqueeze(1)).squeeze(1)
        exponentials = shifted.mul_(_LOG2_E).exp2_()
        total = exponentials.sum(1)
        loss = total.log().sub_(true)
        # Above the mean by: 0 − z̄ for the top-1 class, since the logits are shifted by its own.
        excess = without_absent(true) - mean if top is None else None
        if isinstance(alpha, Tensor):
            ctx.number = None
            excess = -mean if excess is None else excess
            ctx.save_for_backward(logits, target, top, exponentials, total, excess, alpha)
            return loss + alpha * excess
        ctx.number = alpha
        ctx.save_for_backward(logits, target, top, exponentials, total, None, None)
        return loss.sub_(mean, alpha=alpha) if excess is None else loss.add_(excess, alpha=alpha)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        logits, target, top, exponentials, total, excess, alpha = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _Eager._differentiable_backward(ctx, logits, target, alpha, upstream)
        weight = upstream * (ctx.number if alpha is None else alpha)
        gradient = exponentials * (upstream / total).unsqueeze(1)
        if ctx.whole:
            gradient.sub_(weight.unsqueeze(1), alpha=1.0 / gradient.shape[1])
        else:
            present = logits != -torch.inf
            gradient.sub_(torch.where(present, (weight / present.sum(1)).unsqueeze(1), 0.0))
        at_target = -upstream if top is not None else weight - upstream
        gradient.scatter_add_(1, target.unsqueeze(1), at_target.unsqueeze(1))
        if top is not None:
            gradient.scatter_add_(1, top, weight.unsqueeze(1))
        return gradient, None, (upstream * excess).sum() if ctx.needs_input_grad[2] else None, None

    @staticmethod
    def _differentiable_backward(
        ctx: Any, logits: Tensor, target: Tensor, alpha: Tensor | None, upstream: Tensor
    ) -> tuple[Tensor | None, None, Tensor | None, None]:
        """For a second derivative, which needs operations that autograd can follow."""
        pick: Pick = "true" if ctx.saved_tensors[2] is None else "top"
        rows = _plain(logits, target, ctx.number if alpha is None else alpha, pick)
        of: list[Tensor | None] = [None, None]
        for place, tensor in enumerate((logits, alpha)):
            if tensor is not None and tensor.requires_grad:
                (of[place],) = torch.autograd.grad(rows, tensor, upstream, create_graph=True)
        return of[0], None, of[1], None


def _long_on_cpu(logits: Tensor) -> bool:
    return logits.device.type == "cpu" and logits.shape[1] >= 256


def _columns(logits: Tensor) -> Tensor:
    """0, 1, …, K − 1, in the logits' type where it is exact: a loop over one type is what gets vectorised."""
    k = logits.shape[1]
    columns = torch.arange(k, device=logits.device, dtype=logits.dtype if k <= 2**24 else torch.float64)
    # Computed within a loop on a CPU, they take longer than what they are compared with. The running maximum changes
    # nothing, and is no operation that the compiler would move into the loop.
    return columns.cummax(0).values if _long_on_cpu(logits) else columns


class _Compiled(torch.autograd.Function):
    """For the compiler: no index in the way of one loop in each direction.

    A compiler fuses arithmetic into the pass that reads the logits; what it cannot fuse is an index. So the top-1 class
    is found by comparison. The two special classes of a row get their gradient by comparison as well, but for long rows
    on a CPU, where adding to them afterwards is cheaper.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, alpha: Number, pick: Pick) -> Tensor:
        maximum = logits.amax(1, keepdim=True)
        shifted = logits - maximum
        present = logits != -torch.inf
        count = torch.where(present, 1.0, 0.0).sum(1)
        mean = torch.where(present, shifted, 0.0).sum(1) / count
        true = shifted.gather(1, target.unsqueeze(1)).squeeze(1)
        total = (shifted * _LOG2_E).exp2().sum(1)
        if pick == "true":
            picked, excess = target, without_absent(true) - mean
        else:
            last = logits.shape[1] - 1  # for NaN, which equals nothing
            picked = torch.where(logits == maximum, _columns(logits), float(last)).amin(1).long()
            excess = -mean
        ctx.number = None if isinstance(alpha, Tensor) else alpha
        # Apart from the maximum, to which it would be rounded where the logits are large.
        log_total = total.log()
        ctx.save_for_backward(
            logits, target, picked, maximum, log_total, count, excess, alpha if isinstance(alpha, Tensor) else None
        )
        return log_total - true + alpha * excess

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, Tensor | None, None]:
        logits, target, picked, maximum, log_total, count, excess, alpha = ctx.saved_tensors
        weight = upstream * (ctx.number if alpha is None else alpha)
        share = (weight / count).unsqueeze(1)
        gradient = upstream.unsqueeze(1) * ((logits - maximum - log_total.unsqueeze(1)) * _LOG2_E).exp2()
        gradient = gradient - torch.where(logits != -torch.inf, share, 0.0)
        if _long_on_cpu(logits):
            special = torch.stack((target, picked), 1), torch.stack((-upstream, weight), 1)
            gradient = gradient.scatter_add(1, *special)
        else:
            columns = torch.arange(logits.shape[1], device=logits.device)
            gradient = gradient - torch.where(columns == target.unsqueeze(1), upstream.unsqueeze(1), 0.0)
            gradient = gradient + torch.where(columns == picked.unsqueeze(1), weight.unsqueeze(1), 0.0)
        return gradient, None, (upstream * excess).sum() if ctx.needs_input_grad[2] else None, None
