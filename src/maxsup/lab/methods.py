"""The methods that the lab compares: the one dict from a name to the loss it trains with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

import maxsup


@dataclass(frozen=True)
class Method:
    """A method: one line about it, its loss for (alpha, number of classes), and whether alpha follows a schedule."""

    summary: str
    build: Callable[[float, int], nn.Module]
    scheduled: bool = False


METHODS: dict[str, Method] = {
    "cross-entropy": Method("plain cross-entropy, the baseline", lambda alpha, classes: nn.CrossEntropyLoss()),
    "label-smoothing": Method(
        "cross-entropy + alpha (z_gt - mean z): PyTorch's label smoothing",
        lambda alpha, classes: maxsup.LabelSmoothingCrossEntropyLoss(alpha),
        scheduled=True,
    ),
    "max-sup": Method(
        "cross-entropy + alpha (z_max - mean z): penalises the top-1 logit instead of the true one",
        lambda alpha, classes: maxsup.MaxSupCrossEntropyLoss(alpha),
        scheduled=True,
    ),
}
