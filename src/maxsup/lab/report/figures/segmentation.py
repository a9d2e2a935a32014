"""What the fine-tuned networks see: images, labels and predictions side by side, and the IoU of each class."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, image
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from maxsup.lab.records import Json
from maxsup.lab.report.figures.style import FONT_SIZE, WIDTH, drawing, legend, method_marker, method_style

IGNORE = 255
BACKGROUND, UNLABELLED = (0.16, 0.16, 0.18), (1.0, 1.0, 1.0)
# Classes that a legend of colours has room for, and that a figure of IoUs does.
MOST_NAMED, MOST_CLASSES = 24, 40
LARGEST_SIDE = 1.3
HEAD, LINE = 0.35, FONT_SIZE * 1.35 / 72

Pixels = NDArray[np.uint8]


def palette(class_names: Sequence[str]) -> NDArray[np.float64]:
    """A colour for each class, (256, 3): a dark one for a background, then distinct ones; white where no label is."""
    colours = np.ones((256, 3))
    shown = [c for c, name in enumerate(class_names) if name != "background"]
    for place, c in enumerate(shown):
        if len(shown) <= 20:
            # Its strong colours first, and then their pale neighbours.
            colours[c] = colormaps["tab20"]((2 * place) % 20 + (2 * place) // 20)[:3]
        else:
            # Hues by the golden ratio lie far from their neighbours; three levels of brightness part the near ones.
            colours[c] = hsv_to_rgb(((place * 0.618034) % 1, 0.9, (0.95, 0.75, 0.55)[place % 3]))
    for c, name in enumerate(class_names):
        if name == "background":
            colours[c] = BACKGROUND
    colours[IGNORE] = UNLABELLED
    return colours


def gallery(methods: Sequence[str], galleries: Mapping[str, Json]) -> Figure:
    """Rows: test images; columns: the image, its labels, and each method's prediction with its share of right pixels.

    `galleries` holds, by method, what ``segment-*/gallery.json`` of one of its runs does; all show the same images.
    """
    first = next(iter(galleries.values()))
    names, pictures = first["class_names"], first["pictures"]
    colours = palette(names)
    columns = 2 + len(galleries)
    side = min(WIDTH / columns, LARGEST_SIDE)
    labelled = len(names) <= MOST_NAMED
    per_row = max(1, int(side * columns / 1.35))
    legend_height = 1.1 * LINE * -(-len(names) // per_row) + 0.25 if labelled else 0.05
    truths = [_pixels(of["labels"]) for of in pictures]
    heights = [side * truth.shape[0] / truth.shape[1] for truth in truths]
    cell_heights = [height + LINE for height in heights]
    with drawing():
        figure = Figure(figsize=(side * columns, HEAD + sum(cell_heights) + legend_height))
        width, height = figure.get_size_inches()
        for column, title in enumerate(["image", "labels", *galleries]):
            wrapped = "\n".join(textwrap.wrap(title, max(8, int(side * 72 / (FONT_SIZE * 0.6)))))
            style = {"color": method_style(methods, title)["color"]} if title in galleries else {}
            figure.text(
                (column + 0.48) * side / width,
                1 - 0.3 * HEAD / height,
                wrapped,
                ha="center",
                va="center",
                fontweight="bold",
                **style,
            )
        top = height - HEAD
        for row, (picture, truth) in enumerate(zip(pictures, truths, strict=True)):
            predicted = [_pixels(of["pictures"][row]["prediction"]) for of in galleries.values()]
            shown: list[Any] = [_pixels(picture["image"]), colours[truth], *(colours[of] for of in predicted)]
            texts = ["", "", *(_share(of, truth) for of in predicted)]
            for column, (pixels, text) in enumerate(zip(shown, texts, strict=True)):
                box = (
                    column * side / width,
                    (top - heights[row]) / height,
                    0.96 * side / width,
                    0.96 * heights[row] / height,
                )
                _cell(figure.add_axes(box), pixels, text)
            top -= cell_heights[row]
        if labelled:
            patches = [Patch(facecolor=colours[c], label=name) for c, name in enumerate(names)]
            figure.legend(handles=patches, loc="lower center", ncols=per_row, frameon=False, handlelength=1.0)
        return figure


def _pixels(png: str) -> Pixels:
    pixels: NDArray[np.float32] = image.imread(io.BytesIO(base64.b64decode(png)), format="png")
    return np.rint(pixels * 255).astype(np.uint8)


def _share(predicted: Pixels, truth: Pixels) -> str:
    counted = truth != IGNORE
    return f"{100 * float((predicted == truth)[counted].mean()):.0f}%" if counted.any() else ""


def _cell(axes: Axes, pixels: NDArray[Any], text: str) -> None:
    grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if pixels.ndim == 2 else {}
    axes.imshow(pixels, interpolation="nearest", aspect="auto", **grey)  # type: ignore[arg-type]
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(text, labelpad=1)
    for spine in axes.spines.values():
        spine.set_visible(False)


def class_iou(
    methods: Sequence[str], class_names: Sequence[str], ious: Mapping[str, Sequence[Sequence[float]]]
) -> Figure:
    """The IoU of each class, a row each: a method's mean over its seeds, and a line from the least to the largest.

    `ious` holds, by method, a row of IoUs a seed, NaN where one is undefined. With more than `MOST_CLASSES` classes,
    those are shown on which the methods' means differ most.
    """
    values = {method: np.array(rows, dtype=np.float64) for method, rows in ious.items()}
    means = {method: _mean(rows) for method, rows in values.items()}
    order = np.arange(len(class_names))
    if len(order) > MOST_CLASSES:
        spread = np.ptp(np.stack(list(means.values())), axis=0)
        order = np.sort(np.argsort(-np.nan_to_num(spread), kind="stable")[:MOST_CLASSES])
    offsets = np.linspace(-0.3, 0.3, len(values)) if len(values) > 1 else np.zeros(1)
    with drawing():
        figure = Figure(figsize=(WIDTH, 0.7 + len(order) * max(0.22, 0.1 * len(values))), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(order))
        for offset, (method, rows) in zip(offsets, values.items(), strict=True):
            colour, marker = method_style(methods, method)["color"], method_marker(methods, method)
            chosen = 100 * rows[:, order]
            with np.errstate(all="ignore"):
                least, largest = np.fmin.reduce(chosen), np.fmax.reduce(chosen)
            axes.hlines(places + offset, least, largest, color=colour, linewidth=1)
            axes.plot(
                100 * means[method][order], places + offset, linestyle="", marker=marker, color=colour, label=method
            )
        axes.set_yticks(places, [class_names[int(c)] for c in order])
        axes.invert_yaxis()
        axes.grid(axis="y", alpha=0.2)
        axes.set_xlabel("IoU in %")
        legend(figure)
        return figure


def _mean(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each column over what is no NaN; NaN where nothing is."""
    count = np.isfinite(rows).sum(axis=0)
    means = np.full(rows.shape[1], np.nan)
    np.divide(np.nansum(rows, axis=0), count, out=means, where=count > 0)
    return means
