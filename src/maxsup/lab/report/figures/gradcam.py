"""Where the networks look: a gallery of Grad-CAM maps (Fig. 3), and how the maps overlap with masks (§5.4)."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from maxsup.lab.records import Json
from maxsup.lab.report.figures.curves import mean_and_band
from maxsup.lab.report.figures.style import FONT_SIZE, WIDTH, drawing, legend, method_style

RIGHT, WRONG = "✓", "✗"
WRONG_COLOUR = "#B2182B"

# In inches: the column of the methods' names, and the least and largest side of an image.
NAMES, LEAST_SIDE, LARGEST_SIDE = 1.25, 0.56, 1.1
LINE = FONT_SIZE * 1.25 / 72

OVERLAPS = (("precision", "precision"), ("recall", "recall"), ("iou", "intersection over union"))


def gradcam_gallery(methods: Sequence[str], record: Json) -> Figure:
    """Rows: the images, then each method's maps on them; columns: the same images.

    Under a map stand the predicted class, ✓ or ✗, and the confidence; a wrong one also has a dashed frame. `record` is
    what ``analysis/gradcam.json`` holds.
    """
    images = record["images"]
    # Eleven images and more make the figure wider than a page: smaller ones would have no room for their words.
    side = min(max((WIDTH - NAMES) / len(images), LEAST_SIDE), LARGEST_SIDE)
    letters = int(side * 72 / (FONT_SIZE * 0.6))
    first = [(_wrapped(of["label"], letters), of["png"], True) for of in images]
    rows = {"image and its class": first}
    for method, of_method in record["methods"].items():
        rows[method] = []
        for cam, of in zip(of_method["cams"], images, strict=True):
            right = cam["prediction"] == of["label"]
            sign = RIGHT if right else WRONG
            text = f"{_wrapped(cam['prediction'], letters)}\n{sign} {cam['confidence']:.2f}"
            rows[method].append((text, cam["png"], right))
    row_height = side + LINE * (0.6 + max(text.count("\n") + 1 for row in rows.values() for text, _, _ in row))
    with drawing():
        figure = Figure(figsize=(NAMES + side * len(images), len(rows) * row_height + 0.05))
        width, height = figure.get_size_inches()
        for row, (name, cells) in enumerate(rows.items()):
            top = height - 0.05 - row * row_height
            _name(figure, name, (top - side / 2) / height)
            if name in record["methods"]:
                x, half = 0.05 / width, side / 3 / height
                y = (top - side / 2) / height
                figure.add_artist(
                    Line2D([x, x], [y - half, y + half], linewidth=3, color=method_style(methods, name)["color"])
                )
            for column, (text, png, right) in enumerate(cells):
                box = (
                    (NAMES + column * side) / width,
                    (top - side) / height,
                    0.94 * side / width,
                    0.94 * side / height,
                )
                _cell(figure.add_axes(box), text, png, right)
        return figure


def _cell(axes: Axes, text: str, png: str, right: bool) -> None:
    pixels = image.imread(io.BytesIO(base64.b64decode(png)), format="png")
    # Small images keep their pixels; without a colour map a grey image would be drawn in false colours.
    axes.imshow(pixels, cmap="gray" if pixels.ndim == 2 else None, interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(text, labelpad=2, fontweight="normal" if right else "bold")
    for spine in axes.spines.values():
        spine.set(visible=not right, color=WRONG_COLOUR, linewidth=2, linestyle=(0, (3, 1.5)))


def _wrapped(text: str, letters: int) -> str:
    """`text` on two lines at most; a line may also break after a slash."""
    lines = textwrap.wrap(text.replace("/", "/ "), letters, max_lines=2, placeholder="…")
    return "\n".join(line.replace("/ ", "/") for line in lines)


def _name(figure: Figure, name: str, y: float) -> None:
    figure.text(0.14 / figure.get_figwidth(), y, "\n".join(textwrap.wrap(name, 15)), ha="left", va="center")


def overlap_curves(methods: Sequence[str], records: Mapping[str, Sequence[Json]]) -> Figure:
    """Precision, recall and IoU of the maps, cut at a share of their maximum, with the masks of the labelled things.

    Mean over the seeds, and a band from the least to the largest. `records` holds the methods' localization records.
    """
    with drawing():
        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        for axes, (key, title) in zip(figure.subplots(1, 3, sharey=True), OVERLAPS, strict=True):
            for method, runs in records.items():
                mean_and_band(axes, np.array(runs[0]["thresholds"]), [run[key] for run in runs], methods, method)
            axes.set_title(title)
            axes.set_xlabel("threshold / largest value")
            axes.set_ylim(0, 1)
        legend(figure)
        return figure
