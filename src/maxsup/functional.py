"""The public functions: check the arguments, add the method's penalty to cross-entropy, reduce once.

This file owns `weight`, `ignore_index`, `reduction`, shapes and dtypes for every method; the penalties live in
`maxsup.methods`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from maxsup.methods.label_smoothing import label_smoothing as label_smoothing_penalty
from maxsup.methods.max_sup import max_sup as max_sup_penalty
from maxsup.methods.rows import Rows

__all__ = ["label_smoothing_cross_entropy", "max_sup_cross_entropy"]

REDUCTIONS = ("none", "mean", "sum")


def max_sup_cross_entropy(
    input: Tensor,
    target: Tensor,
    alpha: float | Tensor = 0.1,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Cross-entropy with Max Suppression: per sample, :math:`CE(z, y) + \alpha\,(z_{max} - \bar z)`.

    The penalty acts on the largest logit, right or wrong, where label smoothing acts on the true one. Among equal
    largest logits the lowest index counts, also in the gradient,
    :math:`q_k - y_k + \alpha\,(1[k = \mathrm{argmax}] - 1/K)`. The penalty needs no target, so mixed labels (Mixup,
    CutMix) change the cross-entropy alone.

    Args:
        input: logits (N, C), (C,) or (N, C, d1, …); floating point. −inf marks an absent class: the mean runs over
            the others.
        target: class indices, shaped like `input` without its class dimension, int64; or class probabilities, shaped
            like `input`.
        alpha: weight of the penalty, at least 0; a number or a 0-dimensional tensor. 0 gives
            `torch.nn.functional.cross_entropy` itself.
        weight: weight per class (C,). With class indices it scales the whole loss of a sample, penalty included, so
            that a weight of 2 is the sample twice; with probabilities it acts on the cross-entropy, as in PyTorch, and
            the penalty is not weighted.
        ignore_index: class index whose samples count for nothing; not used with probabilities.
        reduction: "none", "mean" (over the weights of the samples, as in PyTorch) or "sum".
        label_smoothing: smoothing of the cross-entropy's target, as in PyTorch, on top of the penalty.

    Returns:
        A scalar, or the shape of the class indices for "none".

    Raises:
        TypeError: if `input` is not floating point.
        ValueError: if shapes do not fit, or `alpha` or `reduction` is not accepted.
        IndexError: if a class index is out of range (on a CPU).

    Example:
        >>> logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
        >>> target = torch.tensor([0, 2])
        >>> max_sup_cross_entropy(logits, target, alpha=0.1, reduction="none")  # penalties: 2 − 1 and 3 − 1
        tensor([0.5076, 3.2949])

    Reference: Zhou et al., "MaxSup: Overcoming Representation Collapse in Label Smoothing", arXiv 2502.15798.
    """
    return _penalized(
        max_sup_penalty, alpha, input, target, weight, ignore_index, reduction, label_smoothing=label_smoothing
    )


def label_smoothing_cross_entropy(
    input: Tensor,
    target: Tensor,
    alpha: float | Tensor = 0.1,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Label smoothing as a penalty: per sample, :math:`CE(z, y) + \alpha\,(z_{gt} - \bar z)`.

    Equal to `torch.nn.functional.cross_entropy(…, label_smoothing=alpha)` without class weights (Theorem 3.3 of the
    reference), with an `alpha` that may be a tensor and −inf for absent classes. With probabilities the penalty is
    :math:`\sum_k t_k z_k - \bar z`. Class weights scale the whole loss of a sample, which PyTorch's smoothing does not.

    Args, returns and errors as for `max_sup_cross_entropy`, and `alpha` is at most 1.

    Example:
        >>> logits, target = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])
        >>> label_smoothing_cross_entropy(logits, target, alpha=0.1)
        tensor(0.5076)
        >>> torch.nn.functional.cross_entropy(logits, target, label_smoothing=0.1)
        tensor(0.5076)

    Reference: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016; decomposition in
    arXiv 2502.15798, Eq. 2-4.
    """
    return _penalized(label_smoothing_penalty, alpha, input, target, weight, ignore_index, reduction, largest_alpha=1.0)


def _check_alpha(alpha: float | Tensor, largest: float) -> None:
    if isinstance(alpha, Tensor):
        if alpha.ndim:
            raise ValueError(f"alpha must be a number or a 0-dimensional tensor, got shape {tuple(alpha.shape)}")
        return  # its value stays on its device
    if not (0 <= alpha <= largest and math.isfinite(alpha)):
        accepted = f"from 0 to {largest:g}" if math.isfinite(largest) else "finite and at least 0"
        raise ValueError(f"alpha must be {accepted}, got {alpha}")


def _check(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str) -> bool:
    """Checks what does not need the device; returns whether the target holds probabilities."""
    if not input.is_floating_point():
        raise TypeError(f"input must hold floating-point logits, got {input.dtype}")
    if input.ndim < 1:
        raise ValueError("input must have a class dimension: (C,), (N, C) or (N, C, d1, …), got a scalar")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    class_dim = 0 if input.ndim == 1 else 1
    classes = input.shape[class_dim]
    soft = target.is_floating_point()
    expected = input.shape if soft else input.shape[:class_dim] + input.shape[class_dim + 1 :]
    if target.shape != expected:
        kind = "probabilities" if soft else "class indices"
        raise ValueError(
            f"target with {kind} must have shape {tuple(expected)} for input {tuple(input.shape)}, "
            f"got {tuple(target.shape)}"
        )
    if not soft and target.dtype not in (torch.int64, torch.uint8):
        raise TypeError(f"target must hold int64 class indices or floating-point probabilities, got {target.dtype}")
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f"weight must have shape ({classes},), got {tuple(weight.shape)}")
    return soft


def _check_indices(target: Tensor, classes: int, ignored: Tensor) -> None:
    """Names a class index out of range, where looking costs no synchronisation and does not break a graph."""
    if target.device.type != "cpu" or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return
    wrong = ((target < 0) | (target >= classes)) & ~ignored
    if bool(wrong.any()):
        raise IndexError(f"target: class index {int(target[wrong][0])} is outside 0..{classes - 1}")


def _penalized(
    penalty: Callable[[Rows], Tensor],
    alpha: float | Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    *,
    label_smoothing: float = 0.0,
    largest_alpha: float = math.inf,
) -> Tensor:
    """Cross-entropy + alpha · penalty, per sample, weighted and reduced."""
    _check_alpha(alpha, largest_alpha)
    if not isinstance(alpha, Tensor) and alpha == 0:
        return F.cross_entropy(
            input,
            target,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    soft = _check(input, target, weight, ignore_index, reduction)
    class_dim = 0 if input.ndim == 1 else 1
    classes = input.shape[class_dim]
    shape = input.shape[:class_dim] + input.shape[class_dim + 1 :]
    logits = _in_rows(input, class_dim).to(torch.promote_types(input.dtype, torch.float32))
    if soft:
        labels = _in_rows(target, class_dim).to(logits.dtype)
        ignored = torch.zeros((), dtype=torch.bool, device=target.device)
    else:
        flat = target.reshape(-1).long()
        ignored = flat == ignore_index
        _check_indices(flat, classes, ignored)
        labels = flat.masked_fill(ignored, 0)
    rows = Rows(logits, F.log_softmax(logits, dim=1), labels)
    weights = None if weight is None else weight.to(logits.dtype)
    sample_weights = weights[labels] if weights is not None and not soft else None
    if label_smoothing or (soft and weights is not None):
        ce = F.cross_entropy(logits, labels, weight=weights, label_smoothing=label_smoothing, reduction="none")
    else:
        ce = -rows.of_target()
        ce = ce if sample_weights is None else ce * sample_weights
    added = penalty(rows) if sample_weights is None else penalty(rows) * sample_weights
    loss = (ce + alpha * added).masked_fill(ignored, 0.0)
    # cross_entropy keeps the dtype of its input, and autocast runs it in float32.
    dtype = torch.float32 if torch.is_autocast_enabled(input.device.type) else input.dtype
    dtype = torch.promote_types(dtype, torch.float64) if input.dtype == torch.float64 else dtype
    if reduction == "none":
        return loss.reshape(shape).to(dtype)
    total = loss.sum()
    if reduction == "mean":
        if soft:
            total = total / labels.shape[0]
        else:
            kept = (~ignored).to(logits.dtype)
            total = total / (kept if sample_weights is None else kept * sample_weights).sum()
    return total.to(dtype)


def _in_rows(x: Tensor, class_dim: int) -> Tensor:
    """(N, C, d1, …) or (C,) to rows (M, C)."""
    if x.ndim == 2:
        return x
    return x.movedim(class_dim, -1).reshape(-1, x.shape[class_dim])
