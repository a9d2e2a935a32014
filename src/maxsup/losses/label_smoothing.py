"""Label smoothing and its two parts."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from maxsup import functional
from maxsup._batch import check_choice
from maxsup.losses.base import Loss
from maxsup.methods.common import Number


class LabelSmoothingCrossEntropyLoss(Loss):
    """`maxsup.functional.label_smoothing_cross_entropy` as a module.

    Args:
        alpha: strength, in [0, 1]; kept in the buffer `alpha`, assignable.
        weight, ignore_index, reduction, impl, inplace: as in `MaxSupCrossEntropyLoss`.

    Example:
        >>> import torch
        >>> loss = LabelSmoothingCrossEntropyLoss(alpha=0.1)
        >>> loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([1]))
        tensor(1.4076)
    """

    bounds: ClassVar[dict[str, float]] = {"alpha": 1.0}

    def __init__(
        self,
        alpha: float = 0.1,
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
        return functional.label_smoothing_cross_entropy(
            input, target, self.alpha, num_items=num_items, **self._options(), **self._implementation()
        )


class LabelSmoothingRegularizationLoss(Loss):
    """`maxsup.functional.label_smoothing_regularization_cross_entropy` as a module.

    Args:
        alpha: strength, at least 0; kept in the buffer `alpha`, assignable.
        form: what divides the sum: ``"terms"`` (Table 1) or ``"classes"`` (Eq. 5).
        weight, ignore_index, reduction: as in `MaxSupCrossEntropyLoss`.
    """

    def __init__(
        self,
        alpha: float = 0.1,
        *,
        form: Literal["terms", "classes"] = "terms",
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(alpha, weight=weight, ignore_index=ignore_index, reduction=reduction)
        check_choice("form", form, ("terms", "classes"))
        self.form = form

    def forward(self, input: Tensor, target: Tensor, *, num_items: Number | None = None) -> Tensor:
        """The loss of logits `input` at class indices `target`."""
        return functional.label_smoothing_regularization_cross_entropy(
            input, target, self.alpha, form=self.form, num_items=num_items, **self._options()
        )

    def extra_repr(self) -> str:
        """As of every loss, and the form."""
        return f"{super().extra_repr()}, form={self.form!r}"


class LabelSmoothingErrorEnhancementLoss(Loss):
    """`maxsup.functional.label_smoothing_error_enhancement_cross_entropy` as a module.

    Args:
        alpha: strength, at least 0; kept in the buffer `alpha`, assignable.
        form: ``"terms"`` or ``"max"`` (the two rows of Table 1), or ``"classes"`` (Eq. 5).
        weight, ignore_index, reduction: as in `MaxSupCrossEntropyLoss`.
    """

    def __init__(
        self,
        alpha: float = 0.1,
        *,
        form: Literal["terms", "classes", "max"] = "terms",
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(alpha, weight=weight, ignore_index=ignore_index, reduction=reduction)
        check_choice("form", form, ("terms", "classes", "max"))
        self.form = form

    def forward(self, input: Tensor, target: Tensor, *, num_items: Number | None = None) -> Tensor:
        """The loss of logits `input` at class indices `target`."""
        return functional.label_smoothing_error_enhancement_cross_entropy(
            input, target, self.alpha, form=self.form, num_items=num_items, **self._options()
        )

    def extra_repr(self) -> str:
        """As of every loss, and the form."""
        return f"{super().extra_repr()}, form={self.form!r}"
