"""The losses as modules: `__init__` stores the options, `forward` makes one call into `maxsup.functional`."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from maxsup import functional
from maxsup._batch import REDUCTIONS, check_number, check_weight

__all__ = ["LabelSmoothingCrossEntropyLoss", "MaxSupCrossEntropyLoss"]


class _Loss(nn.Module):
    """Options common to all losses; the numbers in `bounds` are 0-dim buffers.

    Buffers, because a compiled step reads them at run time: a new value recompiles nothing, and `state_dict` has it.
    Assigning a number (``loss.alpha = 0.2``) checks it and writes into the buffer.
    """

    bounds: ClassVar[dict[str, float]] = {}  # name -> highest value accepted; the lowest is 0
    weight: Tensor | None

    def __init__(
        self,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        **numbers: float,
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        for name, value in numbers.items():
            check_number(name, value, high=self.bounds[name])
            self.register_buffer(name, torch.tensor(float(value)))
        self.register_buffer("weight", None if weight is None else check_weight(weight))
        self.ignore_index = ignore_index
        self.reduction = reduction

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.bounds and name in self._buffers and not isinstance(value, Tensor):
            check_number(name, value, high=self.bounds[name])
            buffer = self._buffers[name]
            assert buffer is not None
            buffer.fill_(value)
        else:
            super().__setattr__(name, value)

    def extra_repr(self) -> str:
        """The numbers and the options that differ from their defaults."""
        parts = [f"{name}={float(getattr(self, name)):g}" for name in self.bounds]
        if self.weight is not None:
            parts.append(f"weight=<{len(self.weight)} classes>")
        if self.ignore_index != -100:
            parts.append(f"ignore_index={self.ignore_index}")
        if self.reduction != "mean":
            parts.append(f"reduction={self.reduction!r}")
        return ", ".join(parts)


class MaxSupCrossEntropyLoss(_Loss):
    """`maxsup.functional.max_sup_cross_entropy` as a module; replaces ``nn.CrossEntropyLoss(label_smoothing=0.1)``.

    Args:
        alpha: strength of the penalty, at least 0; kept in the buffer `alpha`, assignable (``loss.alpha = 0.2``).
        weight: one weight per class.
        ignore_index: class index of the samples to leave out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: smoothing of the cross-entropy part, in [0, 1].

    Example:
        >>> loss = MaxSupCrossEntropyLoss(alpha=0.1)
        >>> loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]))
        tensor(0.5076)
    """

    bounds: ClassVar[dict[str, float]] = {"alpha": math.inf}
    alpha: Tensor

    def __init__(
        self,
        alpha: float = 0.1,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction, alpha=alpha)
        check_number("label_smoothing", label_smoothing, high=1.0)
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor, *, num_items: float | Tensor | None = None) -> Tensor:
        """The loss of logits `input` at `target`."""
        return functional.max_sup_cross_entropy(
            input,
            target,
            self.alpha,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            num_items=num_items,
        )

    def extra_repr(self) -> str:
        """As the base class, with the smoothing if there is any."""
        smoothing = f", label_smoothing={self.label_smoothing:g}" if self.label_smoothing else ""
        return super().extra_repr() + smoothing


class LabelSmoothingCrossEntropyLoss(_Loss):
    """`maxsup.functional.label_smoothing_cross_entropy` as a module.

    Args:
        alpha: strength, in [0, 1]; kept in the buffer `alpha`, assignable.
        weight: one weight per class.
        ignore_index: class index of the samples to leave out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Example:
        >>> loss = LabelSmoothingCrossEntropyLoss(alpha=0.1)
        >>> loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([1]))
        tensor(1.4076)
    """

    bounds: ClassVar[dict[str, float]] = {"alpha": 1.0}
    alpha: Tensor

    def __init__(
        self,
        alpha: float = 0.1,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction, alpha=alpha)

    def forward(self, input: Tensor, target: Tensor, *, num_items: float | Tensor | None = None) -> Tensor:
        """The loss of logits `input` at `target`."""
        return functional.label_smoothing_cross_entropy(
            input,
            target,
            self.alpha,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            num_items=num_items,
        )
