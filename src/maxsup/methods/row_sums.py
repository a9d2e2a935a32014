"""MaxSup in closed form from sums over the classes, for logits that are never all in one place at one time.

Sums over parts of the classes add up, so that a row may be spread over processes, and no step needs autograd. Per row,
with M = max z, n the number of classes whose logit is not −inf, and K the number of all:

    loss = log Σ exp(z_k − M) − (z_y − M) − α · mean(z_k − M) + smoothing · (z_y − mean z)
    dloss/dz_k = q_k − (1 − smoothing) [k = y] + α ([k = argmax] − 1/n) − smoothing / K

The mean of the penalty runs over the n classes, which alone get the 1/n; the smoothing is PyTorch's, over all K, so
that an absent class makes it inf.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maxsup.methods.common import Number, readable


class Sums(NamedTuple):
    """Sums over the classes, each (N,); those of all parts of the classes are added up."""

    exponentials: Tensor  # of z_k − M
    total: Tensor  # of z_k − M where z_k is not −inf
    present: Tensor  # the number of those
    true: Tensor  # z_y − M, 0 from the parts that have not class y
    found: Tensor  # 1 from the part that has it


def exponentials_(shifted: Tensor) -> Tensor:
    """In place; on a CPU PyTorch's exp2 takes a third of the time of its exp."""
    return shifted.mul_(math.log2(math.e)).exp2_()


def row_sums(logits: Tensor, target: Tensor, maximum: Tensor) -> tuple[Sums, Tensor]:
    """Sums over the classes of `logits` (N, K), and exp(z − M), (N, K).

    `target` counts the columns of `logits`: outside of them y is in another part.
    """
    classes = logits.shape[1]
    shifted = logits - maximum.unsqueeze(1)
    inside = (target >= 0) & (target < classes)
    if classes:
        true = shifted.gather(1, target.clamp(0, classes - 1).unsqueeze(1)).squeeze(1)
        true = torch.where(inside, true, 0.0)
    else:
        true = torch.zeros_like(maximum)
    total = shifted.sum(1)
    if readable(total) and math.isfinite(total.sum()):  # rows without absent classes are the rule
        count = torch.full_like(total, classes)
    else:
        present = shifted != -torch.inf
        total = torch.where(present, shifted, 0.0).sum(1)
        count = present.sum(1).to(total.dtype)
    exponentials = exponentials_(shifted)
    return Sums(exponentials.sum(1), total, count, true, inside.to(total.dtype)), exponentials


def row_losses(sums: Sums, alpha: Number, smoothing: float, classes: Number) -> Tensor:
    """The loss per row, (N,), of K = `classes`; NaN where no part has class y."""
    true = torch.where(sums.found > 0, sums.true, torch.nan)
    loss = sums.exponentials.log() - true - alpha * (sums.total / sums.present)
    if smoothing:
        smoothed = loss + smoothing * (true - sums.total / classes)
        loss = torch.where(sums.present < classes, loss + torch.inf, smoothed)
    return loss


def row_gradients_(
    exponentials: Tensor,
    logits: Tensor,
    target: Tensor,
    top: Tensor,
    sums: Sums,
    factor: Tensor,
    alpha: Number,
    smoothing: float,
    classes: Number,
) -> Tensor:
    """`factor` (N,) times the gradient of the loss per row for the classes of `logits`, (N, K), in place of exp(z − M).

    `target` and `top`, the class of the maximum, count columns as in `row_sums`.
    """
    weight = factor * alpha
    # What is NaN (a class y that nobody has) has to show in the whole row.
    slope = torch.where(sums.found > 0, factor, torch.nan) / sums.exponentials
    gradient = exponentials.mul_(slope.unsqueeze(1))
    share = (weight / sums.present).unsqueeze(1)
    if readable(sums.present) and bool((sums.present == classes).all()):
        gradient.sub_(share)
    else:
        gradient.sub_(torch.where(logits != -torch.inf, share, 0.0))
    if smoothing:
        gradient.sub_((factor * smoothing / classes).unsqueeze(1))
    for column, value in ((target, (smoothing - 1.0) * factor), (top, weight)):
        if logits.shape[1]:
            inside = (column >= 0) & (column < logits.shape[1])
            place = column.clamp(0, logits.shape[1] - 1).unsqueeze(1)
            gradient.scatter_add_(1, place, torch.where(inside, value, 0.0).unsqueeze(1))
    return gradient


def without_derivative(gradient: Tensor, of: str) -> Tensor:
    """The gradient itself, whose derivative is an error that names what it is the gradient `of`."""
    result: Tensor = _Once.apply(gradient, torch.empty(0, requires_grad=True), of)
    return result


class _Once(torch.autograd.Function):
    """`anchor` is there to require a gradient: without one the derivative would be left out in silence."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, anchor: Tensor, of: str) -> Tensor:
        ctx.of = of
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> None:
        raise RuntimeError(f'{ctx.of} has no second derivative: pass all its logits to the loss, with impl="torch"')
