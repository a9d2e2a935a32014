"""A study's cells as points: ours with the interval of the mean, and the paper's."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maxsup.lab.records import Json
from maxsup.lab.report import numbers
from maxsup.lab.report.figures.style import COLOURS, WIDTH, drawing, legend

_PER_ROW = 3
_OURS, _PAPER = COLOURS[0], COLOURS[4]


def cells(summary: Json) -> Figure:
    """A panel for each column of the study: its rows from above, ours and, unless it is a rehearsal, the paper's."""
    columns, rows = summary["columns"], summary["rows"]
    across = min(_PER_ROW, len(columns))
    down = math.ceil(len(columns) / across)
    with drawing():
        figure = Figure(figsize=(WIDTH, down * (0.75 + 0.24 * len(rows)) + 0.3), layout="constrained")
        panels = figure.subplots(down, across, sharey=True, squeeze=False)
        for place, axes in enumerate(panels.flat):
            if place >= len(columns):
                axes.set_axis_off()
                continue
            of = [cell for cell in summary["cells"] if cell["column"] == place]
            measure = columns[place]["measure"]
            _points(axes, [cell for cell in of if cell["mean"] is not None], measure, "ours")
            if not summary["rehearsal"]:
                _points(axes, [cell for cell in of if cell["paper"]["mean"] is not None], measure, "paper")
            group = columns[place].get("group", "")
            axes.set_title(f"{group}\n{columns[place]['title']}" if group else columns[place]["title"])
            if measure["title"] not in (columns[place]["title"], group):
                axes.set_xlabel(measure["title"])
            axes.grid(axis="x", linewidth=0.4, alpha=0.5)
        first = panels[0, 0]
        first.set_yticks(range(len(rows)), rows)
        first.set_ylim(len(rows) - 0.5, -0.5)
        if summary["published"]:  # else there is one kind of points, which the caption names
            legend(figure, max(figure.axes, key=lambda axes: len(axes.get_legend_handles_labels()[0])))
    return figure


def _points(axes: Axes, cells: list[Json], measure: Json, whose: str) -> None:
    """Ours a little above the row's middle with the t-interval, the paper's a little below with its ±."""
    if not cells:
        return
    ours = whose == "ours"
    x, errors = [], []
    for cell in cells:
        of = cell if ours else cell["paper"]
        x.append(numbers.scaled(of["mean"], measure))
        half = (cell["interval"][1] - cell["mean"] if cell["interval"] else 0.0) if ours else of["std"] or 0.0
        errors.append(numbers.scaled(half, measure))
    y = [cell["row"] + (-0.14 if ours else 0.14) for cell in cells]
    style: Any = {"color": _OURS, "marker": "o"}
    if not ours:
        style = {"color": _PAPER, "marker": "D", "markerfacecolor": "none"}
    label = "ours, 95% t-interval of the mean" if ours else "paper, ± its std"
    axes.errorbar(x, y, xerr=errors, linestyle="none", capsize=2, linewidth=1, label=label, **style)
