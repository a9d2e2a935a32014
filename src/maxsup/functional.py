"""The losses as functions: check the arguments, compute one loss per row, reduce once.

All take `input` (logits) and `target` as `torch.nn.functional.cross_entropy` does: shapes (C,), (N, C) or
(N, C, d1, …), class indices or, where a method defines them, probabilities. `docs/losses.md` has the semantics that
they share.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from maxsup._batch import Number, check_number, prepare
from maxsup.methods.common import readable
from maxsup.methods.label_smoothing import label_smoothing_penalty
from maxsup.methods.max_sup import max_sup_penalty

__all__ = ["label_smoothing_cross_entropy", "max_sup_cross_entropy"]


def max_sup_cross_entropy(
    input: Tensor,
    target: Tensor,
    alpha: Number = 0.1,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    num_items: Number | None = None,
) -> Tensor:
    r"""Cross-entropy with Max Suppression: the top-1 logit is penalised, whichever class it belongs to.

    Per sample, with logits z: ``loss = cross_entropy(z, target) + alpha * (max_k z_k - mean_k z_k)``. The maximum's
    sub-gradient goes to the lowest index that attains it; the mean runs over the logits that are not −inf.

    Args:
        input: logits, (C,), (N, C) or (N, C, d1, …), floating point. 16-bit logits are computed in float32.
        target: class indices, () or (N,) or (N, d1, …); or probabilities in the shape of `input`.
        alpha: strength of the penalty, at least 0. At 0 the result is that of `torch.nn.functional.cross_entropy`. A
            0-dim tensor is not read by the host unless it lies on the CPU.
        weight: one weight per class, (C,). For class indices it scales the sample's whole loss, penalty included; for
            probabilities it acts within the cross-entropy, as in PyTorch, and the penalty stays unweighted.
        ignore_index: class index of the samples to leave out.
        reduction: ``"mean"`` (over the weights of the samples that count), ``"sum"`` or ``"none"``.
        label_smoothing: smoothing of the cross-entropy part, in [0, 1], with PyTorch's meaning.
        num_items: with ``reduction="mean"``, divides the sum instead of the mean's own divisor (gradient accumulation).

    Returns:
        A scalar, or for ``reduction="none"`` a tensor of the target's sample shape, in the dtype of `cross_entropy`.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if a shape or value is not accepted.
        IndexError: if a class index on the CPU is out of range.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> max_sup_cross_entropy(logits, torch.tensor([0]), alpha=0.1)  # 0.4076 + 0.1 * (2 - 1)
        tensor(0.5076)

    Reference:
        Zhou et al., MaxSup: Overcoming Representation Collapse in Label Smoothing, arXiv 2502.15798, Eq. 6-9.
    """
    check_number("alpha", alpha)
    if num_items is None and _is_zero(alpha):
        return F.cross_entropy(
            input,
            target,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    check_number("label_smoothing", label_smoothing, high=1.0)
    batch = prepare(input, target, weight, ignore_index, reduction, num_items)
    log_q = batch.logits.log_softmax(1)
    penalty = max_sup_penalty(batch.logits, log_q)
    if label_smoothing == 0.0:
        loss = batch.weigh(batch.cross_entropy(log_q) + alpha * penalty)
    else:
        # PyTorch's smoothing does not scale with the class weight of the sample.
        smoothed = F.cross_entropy(
            batch.logits, batch.target, weight=batch.weight, reduction="none", label_smoothing=label_smoothing
        )
        loss = smoothed + batch.weigh(alpha * penalty)
    return batch.reduce(loss, reduction, num_items)


def label_smoothing_cross_entropy(
    input: Tensor,
    target: Tensor,
    alpha: Number = 0.1,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    num_items: Number | None = None,
) -> Tensor:
    r"""Cross-entropy with label smoothing, written as what it adds to the loss.

    Per sample, with logits z: ``loss = cross_entropy(z, target) + alpha * (z_gt - mean_k z_k)``, equal to cross-entropy
    against ``(1 - alpha) * y + alpha / K`` and to PyTorch's ``label_smoothing=alpha``, but for two cases: the mean runs
    over the logits that are not −inf, where PyTorch gives inf; and with class indices a class weight scales the
    sample's whole loss, where PyTorch weighs each term of the smoothed sum by its own class.

    Args:
        input: logits, (C,), (N, C) or (N, C, d1, …), floating point. 16-bit logits are computed in float32.
        target: class indices, () or (N,) or (N, d1, …); or probabilities in the shape of `input`, for which
            z_gt is their expectation ``sum_k target_k z_k`` (mixup, CutMix).
        alpha: strength, in [0, 1]. At 0 the result is that of `torch.nn.functional.cross_entropy`.
        weight: one weight per class, (C,); see `max_sup_cross_entropy`.
        ignore_index: class index of the samples to leave out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        num_items: with ``reduction="mean"``, divides the sum instead of the mean's own divisor.

    Returns:
        A scalar, or for ``reduction="none"`` a tensor of the target's sample shape, in the dtype of `cross_entropy`.

    Raises:
        TypeError, ValueError, IndexError: as `max_sup_cross_entropy`.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
        >>> label_smoothing_cross_entropy(logits, torch.tensor([1]), alpha=0.1)  # 1.4076 + 0.1 * (1 - 1)
        tensor(1.4076)

    Reference:
        Szegedy et al., Rethinking the Inception Architecture, CVPR 2016; arXiv 2502.15798, Eq. 1-3.
    """
    check_number("alpha", alpha, high=1.0)
    if num_items is None and _is_zero(alpha):
        return F.cross_entropy(input, target, weight=weight, ignore_index=ignore_index, reduction=reduction)
    batch = prepare(input, target, weight, ignore_index, reduction, num_items)
    log_q = batch.logits.log_softmax(1)
    penalty = label_smoothing_penalty(log_q, batch.target)
    loss = batch.weigh(batch.cross_entropy(log_q) + alpha * penalty)
    return batch.reduce(loss, reduction, num_items)


def _is_zero(alpha: Number) -> bool:
    """Whether alpha is certainly 0, as far as that can be known for free; then cross_entropy itself does the work."""
    if isinstance(alpha, Tensor):
        return not alpha.requires_grad and readable(alpha) and float(alpha) == 0.0
    return alpha == 0
