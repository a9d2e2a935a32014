"""Measures of representation and confidence: pure functions of tensors, and mergeable state where data can be large."""

from maxsup.metrics import confidence
from maxsup.metrics.representation import ClassSeparation, ClassSeparationResult, class_separation

__all__ = ["ClassSeparation", "ClassSeparationResult", "class_separation", "confidence"]
