"""Figures as SVG text; deterministic, with one colour per method everywhere."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from maxsup.lab.records import Comparison

# Okabe and Ito's palette: distinct for colour-blind readers, and dark enough on both backgrounds and in print.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7F7F7F", "#A6761D")
DASHES = ("-", "--", "-.", ":")

CURVES = (
    ("train_loss", "training loss"),
    ("validation_nll", "validation NLL"),
    ("validation_accuracy", "validation accuracy"),
)

_STYLE: Any = {
    "svg.hashsalt": "maxsup",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def method_style(methods: Sequence[str], method: str) -> dict[str, str]:
    """Colour and dash of a method, by its place in the comparison."""
    place = list(methods).index(method)
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": DASHES[place // len(COLOURS) % len(DASHES)]}


def training_curves(comparison: Comparison) -> str:
    """Loss and validation over the epochs: mean over the seeds, and a band from the least to the largest."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.6, 2.9), layout="constrained")
        for axes, (key, title) in zip(figure.subplots(1, len(CURVES)), CURVES, strict=True):
            for method in comparison.methods:
                curves = [
                    [np.nan if row[key] is None else row[key] for row in run.epochs]
                    for run in comparison.of_method(method)
                    if run.epochs
                ]
                if not curves:
                    continue
                # Runs may have ended early; each epoch's mean is over the runs that reached it.
                longest = max(map(len, curves))
                padded = np.array([[*curve, *[np.nan] * (longest - len(curve))] for curve in curves])
                epochs = np.arange(1, longest + 1)
                shown = ~np.isnan(padded).all(axis=0)
                columns = padded[:, shown]
                style = method_style(comparison.methods, method)
                axes.plot(epochs[shown], np.nanmean(columns, axis=0), label=method, linewidth=1.4, **style)
                axes.fill_between(
                    epochs[shown],
                    np.nanmin(columns, axis=0),
                    np.nanmax(columns, axis=0),
                    color=style["color"],
                    alpha=0.18,
                    linewidth=0,
                )
            axes.set_xlabel("epoch")
            axes.set_title(title)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
        return svg(figure)


def svg(figure: Figure) -> str:
    """The figure as an SVG element, without XML header and date; lines and text take the page's colour."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def standalone(element: str) -> str:
    """An SVG element as a file of its own: on white, for papers and for readers with a dark background."""
    start = element.index(">") + 1
    return f'{element[:start]}\n <rect width="100%" height="100%" fill="white"/>{element[start:]}'
