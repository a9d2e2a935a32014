"""Penultimate features on the plane of three class templates (Fig. 1, 4 and 5 of the paper)."""

from __future__ import annotations

import math
import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maxsup.lab.records import Json
from maxsup.lab.report.figures.style import WIDTH, drawing

# Classes, not methods: Tol's high-contrast colours, none of which a method has, and three markers.
CLASS_LOOKS = (("#004488", "o"), ("#DDAA33", "s"), ("#BB5566", "^"))
COLUMNS = 4
SPLITS = (("train", "training"), ("validation", "validation"))


def projection(record: Json) -> Figure:
    """Rows: training and validation images; columns: methods, four side by side at most.

    A cross on a class's colour is its template; `record` is what ``analysis/projection.json`` holds.
    """
    methods: Json = record["methods"]
    columns = min(COLUMNS, len(methods))
    blocks = math.ceil(len(methods) / columns)
    with drawing():
        side = min(WIDTH / columns, 2.4)
        figure = Figure(figsize=(columns * side, 2 * blocks * side + 0.45), layout="constrained")
        panels = figure.subplots(2 * blocks, columns, squeeze=False)
        for place, (method, of) in enumerate(methods.items()):
            block, column = divmod(place, columns)
            limits = _square(of)
            for row, (split, name) in enumerate(SPLITS):
                axes = panels[2 * block + row, column]
                _panel(axes, of["templates"], of[split], record["classes"])
                axes.set_xlim(limits[0])
                axes.set_ylim(limits[1])
                if row == 0:
                    axes.set_title("\n".join(textwrap.wrap(method, 18)))
                if column == 0:
                    axes.set_ylabel(f"{name} images\nsecond direction")
                if row == 1:
                    axes.set_xlabel("first direction")
        for place in range(len(methods), blocks * columns):
            for row in range(2):
                panels[2 * (place // columns) + row, place % columns].set_axis_off()
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, columns + 1), frameon=False)
        return figure


def _panel(axes: Axes, templates: list[list[float]], split: Json, classes: list[str]) -> None:
    points, labels = np.array(split["points"]).reshape(-1, 2), np.array(split["labels"])
    for c, (name, (colour, marker)) in enumerate(zip(classes, CLASS_LOOKS, strict=True)):
        x, y = points[labels == c].T
        axes.plot(
            x,
            y,
            linestyle="",
            marker=marker,
            color=colour,
            alpha=0.5,
            markersize=3,
            markeredgewidth=0,
            label=f"class {name}",
        )
    corners = np.array([*templates, templates[0]])
    axes.plot(*corners.T, color="#7F7F7F", linewidth=0.8, linestyle=(0, (4, 3)))
    for c, (colour, _) in enumerate(CLASS_LOOKS):
        x, y = templates[c]
        axes.plot(
            [x],
            [y],
            linestyle="",
            marker="P",
            markersize=8,
            color=colour,
            markeredgecolor="black",
            markeredgewidth=0.8,
            label="class templates" if c == 0 else None,
        )
    axes.set_aspect("equal")
    axes.locator_params(nbins=4)


def _square(of: Json) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of both axes around all that a method shows: one scale, so that its two splits can be compared."""
    every = np.array([*of["templates"], *(point for split, _ in SPLITS for point in of[split]["points"])])
    low, high = every.min(axis=0), every.max(axis=0)
    half = 0.54 * float((high - low).max())
    (x, y) = (low + high) / 2
    return (x - half, x + half), (y - half, y + half)
