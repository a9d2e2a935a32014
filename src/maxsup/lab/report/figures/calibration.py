"""Whether confidence can be trusted: reliability diagrams, and the risk of what a model answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from maxsup.lab.records import Json
from maxsup.lab.report.figures.curves import mean_and_band
from maxsup.lab.report.figures.style import WIDTH, drawing, legend, method_marker, method_style

# A bin with fewer images, over all seeds, has no accuracy worth a point.
LEAST = 10


def pooled(bins: Sequence[Json]) -> tuple[list[float], list[float], list[float]]:
    """Bins of several runs as one: mean confidence, accuracy and share of the images, of bins of `LEAST` and more."""
    count = np.array([of["count"] for of in bins], dtype=float)
    weights, total = count.sum(axis=0), count.sum()
    kept = weights >= min(LEAST, weights.max())

    def mean(name: str) -> list[float]:
        values = np.array([[x or 0.0 for x in of[name]] for of in bins])
        return list((values * count).sum(axis=0)[kept] / weights[kept])

    return mean("confidence"), mean("accuracy"), list(weights[kept] / total)


def reliability(methods: Sequence[str], curves: Mapping[str, Sequence[Json]]) -> Figure:
    """Accuracy against confidence in bins of the largest probability, before and after temperature scaling.

    The bins of a method's runs are pooled. Below: how many of the test images a bin has. `curves` holds the records'
    `curves` of each method's runs.
    """
    with drawing():
        figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
        lowest = 1.0
        for column, (key, title) in enumerate(
            (("reliability", "as trained"), ("reliability_scaled", "after temperature scaling"))
        ):
            above, below = panels[:, column]
            above.plot([0, 1], [0, 1], color="#7F7F7F", linewidth=0.8, linestyle=(0, (1, 2)), label="_perfect")
            for method, runs in curves.items():
                confidence, accuracy, share = pooled([run[key] for run in runs])
                style = {**method_style(methods, method), "marker": method_marker(methods, method)}
                lowest = min(lowest, *confidence, *accuracy)
                above.plot(confidence, accuracy, label=method, **style)
                below.plot(confidence, share, **style)
            above.set_title(title)
            below.set_yscale("log")
            below.set_xlabel("confidence (largest probability)")
        # The points' part of the diagonal, from corner to corner.
        limits = math.floor(10 * lowest - 0.2) / 10 if lowest > 0.1 else -0.02, 1.02
        panels[0, 0].set_xlim(limits)
        panels[0, 0].set_ylim(limits)
        panels[0, 0].set_ylabel("accuracy")
        panels[1, 0].set_ylabel("share of\nthe images")
        legend(figure, panels[0, 0])
        return figure


SCORES = (("max_probability", "largest probability"), ("logit_norm", "logit normalisation"))


def risk_coverage(methods: Sequence[str], curves: Mapping[str, Sequence[Json]]) -> Figure:
    """Errors among the answered test images against the share answered, most confident first.

    Mean over the seeds, and a band from the least to the largest. `curves` holds the records' `curves` of each
    method's runs.
    """
    with drawing():
        figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        first = 1.0  # the coverage up to which no run makes an error
        for axes, (score, title) in zip(panels, SCORES, strict=True):
            for method, runs in curves.items():
                grid = np.asarray(runs[0]["risk_coverage"]["coverage"])
                risks = [np.interp(grid, run["risk_coverage"]["coverage"], run["risk_coverage"][score]) for run in runs]
                first = min([first, *(grid[risk > 0][0] for risk in risks if risk[-1] > 0)])
                mean_and_band(axes, 100 * grid, [list(100 * risk) for risk in risks], methods, method)
            axes.set_title(f"confidence: {title}")
            axes.set_xlabel("coverage: images answered, in %")
        panels[0].set_ylim(bottom=0)
        for axes in panels:
            axes.set_xlim(left=min(90.0, 100 * math.floor(10 * first) / 10), right=100)
        panels[0].set_ylabel("risk: errors among them, in %")
        legend(figure)
        return figure
