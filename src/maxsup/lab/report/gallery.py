"""The pictures of a report, in its order, each ready to stand in the page or in a file of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass

from maxsup.lab.records import Comparison
from maxsup.lab.report import figures


@dataclass(frozen=True)
class Figure:
    """A picture: its title and caption, the SVG element, and the stem of its file's name.

    Where it could not be made, `svg` is empty and `note` says why.
    """

    title: str
    caption: str
    svg: str
    name: str
    note: str = ""


def collect(comparison: Comparison) -> list[Figure]:
    """Every picture that the records allow, and a note in the place of each that they do not."""
    return [training_curves(comparison)]


def training_curves(comparison: Comparison) -> Figure:
    """Loss and validation over the epochs."""
    title, name = "Training", "training-curves"
    if not any(run.epochs for run in comparison.runs):
        return Figure(title, "", "", name, note="No run has finished an epoch.")
    caption = (
        "Training loss, validation NLL and validation accuracy over the epochs: mean over the seeds, and a band from "
        "the lowest to the highest."
    )
    return Figure(title, caption, figures.training_curves(comparison), name)


def embedded(figure: Figure) -> str:
    """The SVG for a page that holds several: its ids get the figure's name as a prefix, the element its title."""
    ids = set(re.findall(r'\bid="([^"]+)"', figure.svg))
    svg = re.sub(
        r'(\bid="|href="#|url\(#)([^")]+)',
        lambda found: f"{found[1]}{figure.name}-{found[2]}" if found[2] in ids else found[0],
        figure.svg,
    )
    return svg.replace("<svg", f'<svg role="img" aria-labelledby="figure-{figure.name}-title"', 1)
