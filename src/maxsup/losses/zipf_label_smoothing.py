"""Zipf label smoothing."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from maxsup import functional
from maxsup._batch import check_choice
from maxsup.losses.base import Loss
from maxsup.methods.common import Number


class ZipfLabelSmoothingLoss(Loss):
    """`maxsup.functional.zipf_label_smoothing_cross_entropy` as a module.

    Args:
        alpha: strength, at least 0; kept in the buffer `alpha`, assignable.
        ranking: ``"dense"``, or ``"logits"`` to rank by the sample's own logits (not in the publication).
        upsample: bilinear scale of the map of dense logits before the vote.
        weight, ignore_index, reduction: as in `MaxSupCrossEntropyLoss`.
    """

    def __init__(
        self,
        alpha: float = 0.1,
        *,
        ranking: Literal["dense", "logits"] = "dense",
        upsample: int = 1,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(alpha, weight=weight, ignore_index=ignore_index, reduction=reduction)
        check_choice("ranking", ranking, ("dense", "logits"))
        self.ranking = ranking
        self.upsample = upsample

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        dense_logits: Tensor | None = None,
        *,
        num_items: Number | None = None,
    ) -> Tensor:
        """The loss of logits `input` at class indices `target`, with the logits of the positions that vote."""
        return functional.zipf_label_smoothing_cross_entropy(
            input,
            target,
            dense_logits,
            self.alpha,
            ranking=self.ranking,
            upsample=self.upsample,
            num_items=num_items,
            **self._options(),
        )

    def extra_repr(self) -> str:
        """As of every loss, and how the classes are ranked."""
        return f"{super().extra_repr()}, ranking={self.ranking!r}, upsample={self.upsample}"
