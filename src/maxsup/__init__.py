"""MaxSup and its peers: drop-in replacements for label smoothing in PyTorch."""

from maxsup import functional, losses, metrics, schedules
from maxsup._version import __version__
from maxsup.losses import (
    ConfidencePenaltyLoss,
    LabelSmoothingCrossEntropyLoss,
    LabelSmoothingErrorEnhancementLoss,
    LabelSmoothingRegularizationLoss,
    LogitPenaltyLoss,
    MaxSupCrossEntropyLoss,
    OnlineLabelSmoothingLoss,
    ZipfLabelSmoothingLoss,
)
from maxsup.metrics import diagnostics

__all__ = [
    "ConfidencePenaltyLoss",
    "LabelSmoothingCrossEntropyLoss",
    "LabelSmoothingErrorEnhancementLoss",
    "LabelSmoothingRegularizationLoss",
    "LogitPenaltyLoss",
    "MaxSupCrossEntropyLoss",
    "OnlineLabelSmoothingLoss",
    "ZipfLabelSmoothingLoss",
    "__version__",
    "diagnostics",
    "functional",
    "losses",
    "metrics",
    "schedules",
]
