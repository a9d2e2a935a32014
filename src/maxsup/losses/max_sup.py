"""MaxSup."""

from __future__ import annotations

from torch import Tensor

from maxsup import functional
from maxsup._batch import check_number
from maxsup.losses.base import Loss
from maxsup.methods.common import Number


class MaxSupCrossEntropyLoss(Loss):
    """`maxsup.functional.max_sup_cross_entropy` as a module; replaces ``nn.CrossEntropyLoss(label_smoothing=0.1)``.

    Args:
        alpha: strength of the penalty, at least 0; kept in the buffer `alpha`, assignable (``loss.alpha = 0.2``).
        weight: one weight per class.
        ignore_index: class index of the samples to leave out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: smoothing of the cross-entropy part, in [0, 1].
        impl, inplace: which implementation, and whether the gradient overwrites the logits; see the function.

    Example:
        >>> import torch
        >>> loss = MaxSupCrossEntropyLoss(alpha=0.1)
        >>> loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]))
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
        impl: str = "auto",
        inplace: bool = False,
    ) -> None:
        super().__init__(
            alpha, weight=weight, ignore_index=ignore_index, reduction=reduction, impl=impl, inplace=inplace
        )
        self.label_smoothing = check_number("label_smoothing", label_smoothing, high=1.0)

    def forward(self, input: Tensor, target: Tensor, *, num_items: Number | None = None) -> Tensor:
        """The loss of logits `input` at `target`."""
        return functional.max_sup_cross_entropy(
            input,
            target,
            self.alpha,
            label_smoothing=self.label_smoothing,
            num_items=num_items,
            **self._options(),
            **self._implementation(),
        )

    def extra_repr(self) -> str:
        """As of every loss, and the smoothing if there is any."""
        smoothing = f", label_smoothing={self.label_smoothing:g}" if self.label_smoothing else ""
        return super().extra_repr() + smoothing
