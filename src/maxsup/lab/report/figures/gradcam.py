"""Where the networks look: a gallery of Grad-CAM maps (Fig. 3), and how the maps overlap with masks (§5.4)."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import image
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from maxsup.lab.records import Json
from maxsup.lab.report.figures.curves import mean_and_band
from maxsup.lab.report.figures.style import FONT_SIZE, WIDTH, drawing, legend, method_style

RIGHT, WRONG = "✓", "✗"
WRONG_COLOUR = "#B2182B"

OVERLAPS = (("precision", "precision"), ("recall", "recall"), ("iou", "intersection over union"))


def gradcam_gallery(methods: Sequence[str], record: Json) -> Figure:
    """Rows: the images, then each method's maps on them; columns: the same images.

    Under a map stand its class, ✓ or ✗, and the confidence; a wrong one also has a dashed frame. `record` is what
    ``analysis/gradcam.json`` holds.
    """
    images, of_methods, classes = record["images"], record["methods"], record["classes"]
    names = 1.25  # inches for the methods' names
    side = max(0.72, (WIDTH - names) / max(len(images), 5))
    letters = max(6, int(side * 72 / (FONT_SIZE * 0.62)))
    captions = [
        [textwrap.shorten(classes[cam["prediction"]], 2 * letters, placeholder="…") for cam in of["cams"]]
        for of in of_methods.values()
    ]
    captions.append([textwrap.shorten(classes[of["label"]], 2 * letters, placeholder="…") for of in images])
    lines = 1 + max(len(textwrap.wrap(f"{RIGHT} {text}", letters)) for row in captions for text in row)
    row_height = side + lines * FONT_SIZE * 1.25 / 72
    rows = 1 + len(of_methods)
    with drawing():
        figure = Figure(figsize=(names + side * len(images), rows * row_height + 0.1))
        width, height = figure.get_size_inches()

        def axes_at(row: int, column: int) -> Axes:
            top = height - 0.05 - row * row_height
            box = ((names + column * side) / width, (top - side) / height, side * 0.94 / width, side * 0.94 / height)
            axes = figure.add_axes(box)
            axes.set_xticks([])
            axes.set_yticks([])
            return axes

        for column, of in enumerate(images):
            axes = axes_at(0, column)
            _show(axes, of["png"])
            axes.set_xlabel(_wrapped(classes[of["label"]], letters), labelpad=2)
        _name(figure, "image and its class", "black", (height - 0.05 - side / 2) / height)
        for row, (method, of_method) in enumerate(of_methods.items(), start=1):
            for column, (cam, of) in enumerate(zip(of_method["cams"], images, strict=True)):
                axes = axes_at(row, column)
                _show(axes, cam["png"])
                right = cam["prediction"] == of["label"]
                text = _wrapped(f"{RIGHT if right else WRONG} {classes[cam['prediction']]}", letters)
                axes.set_xlabel(
                    f"{text}\n{cam['confidence']:.2f}", labelpad=2, fontweight="normal" if right else "bold"
                )
                if not right:
                    for spine in axes.spines.values():
                        spine.set(visible=True, color=WRONG_COLOUR, linewidth=2, linestyle=(0, (3, 1.5)))
            colour = method_style(methods, method)["color"]
            _name(figure, method, colour, (height - 0.05 - row * row_height - side / 2) / height)
        return figure


def _show(axes: Axes, png: str) -> None:
    pixels = image.imread(io.BytesIO(base64.b64decode(png)), format="png")
    grey = pixels.ndim == 2
    # Small images keep their pixels; without a colour map a grey image would be drawn in false colours.
    axes.imshow(pixels, cmap="gray" if grey else None, interpolation="nearest", aspect="auto")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _wrapped(text: str, letters: int) -> str:
    return "\n".join(textwrap.wrap(textwrap.shorten(text, 2 * letters, placeholder="…"), letters))


def _name(figure: Figure, name: str, colour: str, y: float) -> None:
    """A row's name beside a bar in the method's colour: the text itself must stay dark enough to read."""
    width = figure.get_figwidth()
    figure.text(0.14 / width, y, "\n".join(textwrap.wrap(name, 15)), ha="left", va="center")
    if colour != "black":
        figure.add_artist(_bar(0.05 / width, y, 0.3 / figure.get_figheight(), colour))


def _bar(x: float, y: float, half: float, colour: str) -> Artist:
    return Line2D([x, x], [y - half, y + half], color=colour, linewidth=3, solid_capstyle="butt")


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
