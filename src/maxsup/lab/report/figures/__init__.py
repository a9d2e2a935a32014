"""Figures from records: each module's functions draw, `all_figures` draws all, `svg`, `pdf` and `save` write.

Figures are deterministic, and a method looks the same in all of them.
"""

from maxsup.lab.records import Comparison
from maxsup.lab.report.figures import curves
from maxsup.lab.report.figures.pictures import Picture, Pictures, all_figures, save
from maxsup.lab.report.figures.style import method_style, pdf, standalone, svg

__all__ = ["Picture", "Pictures", "all_figures", "method_style", "pdf", "save", "standalone", "svg", "training_curves"]


def training_curves(comparison: Comparison) -> str:
    """Loss and validation over the epochs as an SVG element: mean over the seeds, and a band around it."""
    return svg(curves.training_curves(comparison))
