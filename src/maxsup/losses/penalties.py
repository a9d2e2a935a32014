"""Penalties that need no target: of the logits' size, and of confidence."""

from __future__ import annotations

from torch import Tensor

from maxsup import functional
from maxsup._batch import check_number
from maxsup.losses.base import Loss
from maxsup.methods.common import Number


class LogitPenaltyLoss(Loss):
    """`maxsup.functional.logit_penalty_cross_entropy` as a module.

    Args:
        alpha: strength, at least 0 (β of the publication); kept in the buffer `alpha`, assignable.
        weight, ignore_index, reduction, impl, inplace: as in `MaxSupCrossEntropyLoss`.
    """

    def __init__(
        self,
        alpha: float = 2e-3,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        impl: str = "auto",
        inplace: bool = False,
    ) -> None:
        super().__init__(
            alpha, weight=weight, ignore_index=ignore_index, reduction=reduction, impl=impl, inplace=inplace
        )

    def forward(self, input: Tensor, target: Tensor, *, num_items: Number | None = None) -> Tensor:
        """The loss of logits `input` at `target`."""
        return functional.logit_penalty_cross_entropy(
            input, target, self.alpha, num_items=num_items, **self._options(), **self._implementation()
        )


class ConfidencePenaltyLoss(Loss):
    """`maxsup.functional.confidence_penalty_cross_entropy` as a module.

    Args:
        alpha: strength, at least 0 (β of the publication); kept in the buffer `alpha`, assignable.
        threshold: Γ of the hinge in nats, or None for the plain penalty.
        weight, ignore_index, reduction: as in `MaxSupCrossEntropyLoss`.
    """

    def __init__(
        self,
        alpha: float = 0.1,
        *,
        threshold: float | None = None,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(alpha, weight=weight, ignore_index=ignore_index, reduction=reduction)
        self.threshold = None if threshold is None else check_number("threshold", threshold)

    def forward(self, input: Tensor, target: Tensor, *, num_items: Number | None = None) -> Tensor:
        """The loss of logits `input` at `target`."""
        return functional.confidence_penalty_cross_entropy(
            input, target, self.alpha, threshold=self.threshold, num_items=num_items, **self._options()
        )

    def extra_repr(self) -> str:
        """As of every loss, and the threshold if there is one."""
        threshold = "" if self.threshold is None else f", threshold={self.threshold:g}"
        return super().extra_repr() + threshold
