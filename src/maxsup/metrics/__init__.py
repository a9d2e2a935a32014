"""Measures of representation, confidence and pictures: functions of tensors, and mergeable state for large data."""

from maxsup.metrics import confidence
from maxsup.metrics.calibration import (
    Reliability,
    TemperatureFit,
    brier,
    expected_calibration_error,
    fit_temperature,
    reliability,
)
from maxsup.metrics.collapse import (
    NeuralCollapse,
    NeuralCollapseResult,
    neural_collapse,
    variability_collapse_index,
)
from maxsup.metrics.confidence import ErrorEnhancement, accuracy, error_enhancement_share, nll, top1_confidence
from maxsup.metrics.localization import Localization, localization
from maxsup.metrics.representation import ClassSeparation, ClassSeparationResult, class_separation
from maxsup.metrics.selective import (
    RiskCoverage,
    aurc,
    choose_p,
    coverage_at_risk,
    logit_normalization,
    max_probability,
    risk_coverage,
)
from maxsup.metrics.training import diagnostics

__all__ = [
    "ClassSeparation",
    "ClassSeparationResult",
    "ErrorEnhancement",
    "Localization",
    "NeuralCollapse",
    "NeuralCollapseResult",
    "Reliability",
    "RiskCoverage",
    "TemperatureFit",
    "accuracy",
    "aurc",
    "brier",
    "choose_p",
    "class_separation",
    "confidence",
    "coverage_at_risk",
    "diagnostics",
    "error_enhancement_share",
    "expected_calibration_error",
    "fit_temperature",
    "localization",
    "logit_normalization",
    "max_probability",
    "neural_collapse",
    "nll",
    "reliability",
    "risk_coverage",
    "top1_confidence",
    "variability_collapse_index",
]
