"""Training curves, and accuracy against the spread within a class: from the runs' own records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from maxsup.lab.records import Comparison
from maxsup.lab.report.figures.style import BAND, WIDTH, drawing, legend, method_marker, method_style

CURVES = (
    ("train_loss", "training loss"),
    ("validation_nll", "validation NLL in nats"),
    ("validation_accuracy", "validation accuracy in %"),
)


def mean_and_band(
    axes: Axes, x: ArrayLike, curves: Sequence[Sequence[float]], methods: Sequence[str], method: str
) -> None:
    """Draws the mean of `curves` over the seeds, and a band from the least to the largest.

    Curves are as long as `x` or shorter, and may hold NaN: each point's mean is over the runs that have it.
    """
    of_x = np.asarray(x, dtype=float)
    padded = np.full((len(curves), len(of_x)), np.nan)
    for row, curve in zip(padded, curves, strict=True):
        row[: len(curve)] = curve
    shown = ~np.isnan(padded).all(axis=0)
    columns = padded[:, shown]
    style = method_style(methods, method)
    axes.plot(of_x[shown], np.nanmean(columns, axis=0), label=method, **style)
    if len(curves) > 1:
        low, high = np.nanmin(columns, axis=0), np.nanmax(columns, axis=0)
        axes.fill_between(of_x[shown], low, high, color=style["color"], alpha=BAND, linewidth=0)


def training_curves(comparison: Comparison) -> Figure:
    """Loss and validation over the epochs: mean over the seeds, and a band from the least to the largest."""
    with drawing():
        figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
        for axes, (key, title) in zip(figure.subplots(1, len(CURVES)), CURVES, strict=True):
            scale = 100 if title.endswith("%") else 1
            for method in comparison.methods:
                curves = [
                    [np.nan if row[key] is None else scale * row[key] for row in run.epochs]
                    for run in comparison.of_method(method)
                    if run.epochs
                ]
                if curves:
                    epochs = np.arange(1, max(map(len, curves)) + 1)
                    mean_and_band(axes, epochs, curves, comparison.methods, method)
            axes.set_xlabel("epoch")
            axes.set_title(title)
            axes.xaxis.get_major_locator().set_params(integer=True)
        legend(figure)
        return figure


def spread_points(comparison: Comparison, split: str) -> dict[str, list[tuple[float, float]]]:
    """(d_within on `split`, accuracy on the test images in %) of every finished run, by method."""
    points: dict[str, list[tuple[float, float]]] = {}
    for run in comparison.runs:
        measures = run.result.get("measures", {})
        x = measures.get(split, {}).get("d_within")
        y = measures.get("test", {}).get("accuracy")
        if run.status == "finished" and x is not None and y is not None:
            points.setdefault(run.method, []).append((x, 100 * y))
    return points


def accuracy_against_spread(comparison: Comparison) -> Figure:
    """Test accuracy against the mean cosine distance within a class: one point a seed, and each method's mean."""
    with drawing():
        figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, split in zip(panels, ("train", "test"), strict=True):
            for method, points in spread_points(comparison, split).items():
                colour = method_style(comparison.methods, method)["color"]
                marker = method_marker(comparison.methods, method)
                x, y = np.array(points).T
                axes.plot(x, y, linestyle="", marker=marker, color=colour, alpha=0.6, markeredgewidth=0)
                axes.plot(
                    [x.mean()],
                    [y.mean()],
                    linestyle="",
                    marker=marker,
                    markersize=9,
                    color=colour,
                    markeredgecolor="black",
                    markeredgewidth=0.8,
                    label=method,
                )
            axes.set_xlabel(
                f"$d_\\mathrm{{within}}$, {'training' if split == 'train' else split} images (cosine distance)"
            )
            axes.margins(0.08)
        panels[0].set_ylabel("test accuracy in %")
        legend(figure)
        return figure
