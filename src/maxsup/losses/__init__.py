"""The losses as modules: `__init__` stores the options, `forward` makes one call into `maxsup.functional`."""

from maxsup.losses.label_smoothing import (
    LabelSmoothingCrossEntropyLoss,
    LabelSmoothingErrorEnhancementLoss,
    LabelSmoothingRegularizationLoss,
)
from maxsup.losses.max_sup import MaxSupCrossEntropyLoss
from maxsup.losses.online_label_smoothing import OnlineLabelSmoothingLoss
from maxsup.losses.penalties import ConfidencePenaltyLoss, LogitPenaltyLoss
from maxsup.losses.zipf_label_smoothing import ZipfLabelSmoothingLoss

__all__ = [
    "ConfidencePenaltyLoss",
    "LabelSmoothingCrossEntropyLoss",
    "LabelSmoothingErrorEnhancementLoss",
    "LabelSmoothingRegularizationLoss",
    "LogitPenaltyLoss",
    "MaxSupCrossEntropyLoss",
    "OnlineLabelSmoothingLoss",
    "ZipfLabelSmoothingLoss",
]
