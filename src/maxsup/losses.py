"""The methods as modules: `__init__` stores, `forward` makes one call to `maxsup.functional`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maxsup import functional

__all__ = ["LabelSmoothingCrossEntropyLoss", "MaxSupCrossEntropyLoss"]


class _WeightedLoss(nn.Module):
    """A loss with a weight `alpha`, kept as a buffer: a schedule changes it in place and nothing recompiles."""

    alpha: Tensor
    weight: Tensor | None
    largest_alpha = float("inf")

    def __init__(
        self, alpha: float, *, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__()
        functional._check_alpha(alpha, self.largest_alpha)
        if reduction not in functional.REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(functional.REDUCTIONS)}, got {reduction!r}")
        if weight is not None and bool(torch.isnan(weight).any()):
            raise ValueError("weight must hold numbers, got NaN")
        self.register_buffer("alpha", torch.tensor(float(alpha)))
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = reduction

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"alpha={float(self.alpha):g}, ignore_index={self.ignore_index}, reduction={self.reduction!r}"


class MaxSupCrossEntropyLoss(_WeightedLoss):
    """`maxsup.functional.max_sup_cross_entropy` as a module: the replacement for
    `nn.CrossEntropyLoss(label_smoothing=alpha)`.

    Args:
        alpha: weight of the penalty, finite and at least 0. Kept as a buffer, which `maxsup.schedules` steps.
        weight, ignore_index, reduction, label_smoothing: as in `torch.nn.CrossEntropyLoss`.

    Example:
        >>> criterion = MaxSupCrossEntropyLoss(alpha=0.1)
        >>> criterion(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]))
        tensor(0.5076)
    """

    def __init__(
        self,
        alpha: float = 0.1,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(alpha, weight=weight, ignore_index=ignore_index, reduction=reduction)
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Logits (N, C), (C,) or (N, C, d1, …) and a target to the loss."""
        return functional.max_sup_cross_entropy(
            input,
            target,
            self.alpha,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class LabelSmoothingCrossEntropyLoss(_WeightedLoss):
    """`maxsup.functional.label_smoothing_cross_entropy` as a module, with an `alpha` that a schedule can step.

    Args:
        alpha: weight of the penalty, from 0 to 1.
        weight, ignore_index, reduction: as in `torch.nn.CrossEntropyLoss`.
    """

    largest_alpha = 1.0

    def __init__(
        self,
        alpha: float = 0.1,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(alpha, weight=weight, ignore_index=ignore_index, reduction=reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Logits (N, C), (C,) or (N, C, d1, …) and a target to the loss."""
        return functional.label_smoothing_cross_entropy(
            input,
            target,
            self.alpha,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )
