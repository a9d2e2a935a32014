"""The methods that the lab compares: the one dict from a name to the loss it trains with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

import maxsup
from maxsup.lab.names import lookup
from maxsup.lab.recipes.distillation import PREFIX


@dataclass(frozen=True)
class Method:
    """A method: one line about it, its loss for (alpha, number of classes), and what training has to do for it."""

    summary: str
    build: Callable[[float, int], nn.Module]
    scheduled: bool = False
    """Whether the recipe's alpha, with its schedule, is the method's; other methods keep a weight of their own."""
    dense: bool = False
    """Whether the loss takes the logits at every position of the last feature map."""


def check_method(name: str) -> None:
    """Raises UnknownNameError for what is neither a method nor, by its name, that of a student."""
    if not name.startswith(PREFIX):
        lookup("method", name, METHODS)


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
    "online-label-smoothing": Method(
        "half the target is the mean prediction for its class in the last epoch (Zhang et al. 2021)",
        lambda alpha, classes: maxsup.OnlineLabelSmoothingLoss(classes),
    ),
    "zipf-label-smoothing": Method(
        "0.1 KL to a Zipf distribution over the classes that positions vote for (Liang et al. 2022)",
        lambda alpha, classes: maxsup.ZipfLabelSmoothingLoss(upsample=2),
        dense=True,
    ),
    "logit-penalty": Method(
        "cross-entropy + 0.002 ‖z‖²/2 (Kornblith et al. 2021)",
        lambda alpha, classes: maxsup.LogitPenaltyLoss(),
    ),
    "confidence-penalty": Method(
        "cross-entropy - 0.1 H(q): rewards entropy (Pereyra et al. 2017)",
        lambda alpha, classes: maxsup.ConfidencePenaltyLoss(),
    ),
    "confidence-penalty-hinge": Method(
        "the same, only where the entropy is below half that of a uniform prediction",
        lambda alpha, classes: maxsup.ConfidencePenaltyLoss(threshold=math.log(classes) / 2),
    ),
    "ls-regularization": Method(
        "label smoothing's pull on the logits below z_gt alone, averaged over them (Table 1)",
        lambda alpha, classes: maxsup.LabelSmoothingRegularizationLoss(alpha, form="terms"),
        scheduled=True,
    ),
    "ls-regularization-eq5": Method(
        "the same, divided by the number of classes (Eq. 5)",
        lambda alpha, classes: maxsup.LabelSmoothingRegularizationLoss(alpha, form="classes"),
        scheduled=True,
    ),
    "ls-error-enhancement": Method(
        "label smoothing's pull on the logits above z_gt alone, averaged over them (Table 1)",
        lambda alpha, classes: maxsup.LabelSmoothingErrorEnhancementLoss(alpha, form="terms"),
        scheduled=True,
    ),
    "ls-error-enhancement-eq5": Method(
        "the same, divided by the number of classes (Eq. 5)",
        lambda alpha, classes: maxsup.LabelSmoothingErrorEnhancementLoss(alpha, form="classes"),
        scheduled=True,
    ),
    "ls-error-enhancement-max": Method(
        "cross-entropy + alpha (z_gt - z_max) (Table 1, second row of error enhancement)",
        lambda alpha, classes: maxsup.LabelSmoothingErrorEnhancementLoss(alpha, form="max"),
        scheduled=True,
    ),
}
