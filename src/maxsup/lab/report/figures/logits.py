"""How large the logits are (Fig. 2 of the paper): densities per method, and the share near zero."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from maxsup.lab.records import Json
from maxsup.lab.report.figures.style import WIDTH, drawing, legend, method_marker, method_style

Array = NDArray[np.float64]

KINDS = (("all", "all logits"), ("top1", "largest logit"), ("true", "logit of the true class"))
# A share of fewer images than this is noise and is not drawn.
LEAST = 10


def summed(histograms: Sequence[Json], widths: Sequence[float]) -> tuple[float, int, NDArray[np.int64]]:
    """Adds histograms whose bins start at multiples of their widths; returns width, first bin and counts.

    Widths are powers of two, so that the bins of a finer one fall into those of a coarser one.
    """
    width = max(widths)
    total: dict[int, int] = {}
    for histogram, own in zip(histograms, widths, strict=True):
        ratio = round(width / own)
        for place, count in enumerate(histogram["count"], start=histogram["first"]):
            total[place // ratio] = total.get(place // ratio, 0) + count
    first, last = min(total), max(total)
    return width, first, np.array([total.get(place, 0) for place in range(first, last + 1)])


def polygon(width: float, first: int, counts: NDArray[np.int64]) -> tuple[Array, Array]:
    """A frequency polygon: bin centres and densities, with an empty bin at each end; its integral is 1.

    Bins are joined up to Scott's width for polygons, 2.15 σ n^(−1/5) (Scott 1985), with σ from the quartiles; the
    least is `width`.
    """
    n = counts.sum()
    cumulated = np.cumsum(counts) / n
    quartiles = width * (np.searchsorted(cumulated, (0.25, 0.75)) + first + 0.5)
    sigma = float(quartiles[1] - quartiles[0]) / 1.349
    best = 2.15 * sigma * n**-0.2
    ratio = 2 ** max(0, math.floor(math.log2(best / width))) if best > 0 else 1
    joined_width = width * ratio
    low = first // ratio
    joined = np.bincount((np.arange(len(counts)) + first) // ratio - low, weights=counts)
    places = np.arange(low - 1, low + len(joined) + 1)
    density: Array = np.array([0.0, *joined, 0.0]) / (float(n) * joined_width)
    centres: Array = (places.astype(np.float64) + 0.5) * joined_width
    return centres, density


def logit_densities(methods: Sequence[str], curves: Mapping[str, Sequence[Json]]) -> Figure:
    """Densities of all logits, of the largest and of the true class's, over the test images of all seeds.

    The fourth panel: the share of logits near zero against the largest probability, as counted by `maxsup analyze`.
    `curves` holds the records' `curves` of each method's runs.
    """
    with drawing():
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        panels = figure.subplots(2, 2).flatten()
        for axes, (kind, title) in zip(panels[:3], KINDS, strict=True):
            for method, runs in curves.items():
                densities = [run["logit_density"] for run in runs]
                parts = [of[kind] for of in densities]
                x, y = polygon(*summed(parts, [of["width"] for of in densities]))
                axes.plot(x, y, label=method, **method_style(methods, method))
            axes.set_title(title)
            axes.set_xlabel("logit")
            axes.set_ylabel("density")
            axes.set_ylim(bottom=0)
        _near_zero(panels[3], methods, curves)
        legend(figure, panels[0])
        return figure


def _near_zero(axes: Axes, methods: Sequence[str], curves: Mapping[str, Sequence[Json]]) -> None:
    bound = None
    for method, runs in curves.items():
        parts = [run["near_zero"] for run in runs]
        bound = parts[0]["bound"]
        edges = np.array(parts[0]["top1_edges"])
        counts = np.array([part["count"] for part in parts]).sum(axis=0)
        near = np.array([[(s or 0) * n for s, n in zip(part["share"], part["count"], strict=True)] for part in parts])
        shown = counts >= LEAST
        share = near.sum(axis=0)[shown] / counts[shown]
        style = {**method_style(methods, method), "marker": method_marker(methods, method)}
        axes.plot((edges[:-1] + edges[1:])[shown] / 2, share, **style)
    axes.set_title(f"logits below {bound} in magnitude")
    axes.set_xlabel("largest probability")
    axes.set_ylabel("share of the image's logits")
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_ylim(bottom=0)
