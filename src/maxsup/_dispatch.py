"""The three ways to a loss: cross_entropy itself where alpha is 0, a fused kernel, or rows of PyTorch, reduced once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from maxsup._batch import Batch, check_choice, check_number, prepare
from maxsup.kernels.choice import IMPLEMENTATIONS, fused_loss, use_triton
from maxsup.kernels.terms import Terms
from maxsup.methods.common import Number, readable
from maxsup.methods.picked import Pick, penalty, picked_cross_entropy

# The loss of each row, of a batch and alpha.
Rows = Callable[[Batch, Number], Tensor]


def picked_rows(pick: Pick) -> Rows:
    """Rows of cross-entropy + alpha · (z_p − z̄), the logit p being the one that the method picks."""

    def rows(batch: Batch, alpha: Number) -> Tensor:
        if batch.probabilities and batch.weight is not None:  # which act within the cross-entropy
            log_q = batch.logits.log_softmax(1)
            return batch.cross_entropy(log_q) + alpha * penalty(batch.logits, log_q, batch.target, pick)
        return picked_cross_entropy(batch.logits, batch.target, alpha, pick)

    return rows


def penalised_loss(
    penalty: Callable[[Batch, Tensor], Tensor], input: Tensor, target: Tensor, alpha: Number, *options: Any, **more: Any
) -> Tensor:
    """Cross-entropy + alpha · penalty, the penalty being a function of the batch and its log-probabilities."""

    def rows(batch: Batch, alpha: Number) -> Tensor:
        log_q = batch.logits.log_softmax(1)
        return batch.cross_entropy(log_q) + alpha * penalty(batch, log_q)

    return reduced_loss(rows, input, target, alpha, *options, **more)


def reduced_loss(
    rows: Rows,
    input: Tensor,
    target: Tensor,
    alpha: Number,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    num_items: Number | None,
    *,
    highest: float = math.inf,
    probabilities: bool = True,
    shortcut: bool = True,
    weigh: bool = True,
    label_smoothing: float = 0.0,
    terms: Callable[[Number], Terms] | None = None,
    impl: str = "torch",
    inplace: bool = False,
) -> Tensor:
    """The reduced loss of `rows`.

    `shortcut` says whether `cross_entropy`, with `label_smoothing`, may take its place where alpha is 0, `weigh`
    whether the class weights are still to be applied, and `terms` what the kernel computes for alpha.
    """
    alpha = check_number("alpha", alpha, high=highest)
    check_choice("impl", impl, IMPLEMENTATIONS)
    if shortcut and num_items is None and _is_zero(alpha) and impl != "triton" and not inplace:
        return F.cross_entropy(
            input,
            target,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    if isinstance(alpha, Tensor) and torch.is_grad_enabled():
        alpha = alpha.clone()  # a schedule may write into it before the backward pass
    fused = None if terms is None else terms(alpha)
    if fused is not None and use_triton(impl, input, target, fused, weight, inplace=inplace):
        return fused_loss(input, target, fused, weight, ignore_index, reduction, num_items, inplace=inplace)
    batch = prepare(input, target, weight, ignore_index, reduction, num_items, probabilities=probabilities)
    loss = rows(batch, alpha)
    return batch.reduce(batch.weigh(loss) if weigh else loss, reduction, num_items)


def _is_zero(alpha: Number) -> bool:
    """Whether alpha is certainly 0, as far as that can be known for free; then cross_entropy itself does the work."""
    if isinstance(alpha, Tensor):
        return not alpha.requires_grad and readable(alpha) and float(alpha) == 0.0
    return alpha == 0
