"""What every figure shares: one look per method, the look of axes and legends, and the formats SVG and PDF."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette without yellow and black, then grey, brown and violet: distinct for colour-blind readers,
# and dark enough on white and light enough on black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7F7F7F", "#A6761D", "#785EF0")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d")

# A method looks the same in every figure of every comparison, whatever stands beside it: colour, dash and marker
# belong to its name. Variants of one idea share a colour and differ in dash and marker; dashes also part the lines of
# different methods where they lie on each other, and in print without colours.
_LOOKS = {
    "cross-entropy": (COLOURS[0], "-", "o"),
    "label-smoothing": (COLOURS[1], "--", "s"),
    "max-sup": (COLOURS[2], "-", "^"),
    "online-label-smoothing": (COLOURS[3], "-.", "D"),
    "zipf-label-smoothing": (COLOURS[4], ":", "v"),
    "logit-penalty": (COLOURS[5], "--", "P"),
    "confidence-penalty": (COLOURS[6], "-", "X"),
    "confidence-penalty-hinge": (COLOURS[6], "--", "<"),
    "ls-regularization": (COLOURS[7], "-.", ">"),
    "ls-regularization-eq5": (COLOURS[7], ":", "p"),
    "ls-error-enhancement": (COLOURS[8], "-", "h"),
    "ls-error-enhancement-eq5": (COLOURS[8], "--", "*"),
    "ls-error-enhancement-max": (COLOURS[8], ":", "d"),
}

# The width of a page of text in a paper, in inches; at this size no text is below 8 points.
WIDTH = 7.0
FONT_SIZE = 8
# Opacity of a band over seeds.
BAND = 0.18

_STYLE: Any = {
    "svg.hashsalt": "maxsup",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # TrueType: many journals refuse Type 3
    "font.size": FONT_SIZE,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "axes.titlesize": FONT_SIZE + 1,
    "axes.labelsize": FONT_SIZE,
    "xtick.labelsize": FONT_SIZE,
    "ytick.labelsize": FONT_SIZE,
    "legend.fontsize": FONT_SIZE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
}


@contextmanager
def drawing() -> Iterator[None]:
    """The figures' look for what is drawn or saved inside; matplotlib's own settings stay as they were."""
    with mpl.rc_context(_STYLE):
        yield


def _look(methods: Sequence[str], method: str) -> tuple[str, str, str]:
    if method in _LOOKS:
        return _LOOKS[method]
    taken = {look[:2] for look in _LOOKS.values()}
    free = [(colour, dash) for dash in DASHES for colour in COLOURS if (colour, dash) not in taken]
    place = [name for name in methods if name not in _LOOKS].index(method)
    return (*free[place % len(free)], MARKERS[place % len(MARKERS)])


def method_style(methods: Sequence[str], method: str) -> dict[str, Any]:
    """Colour and dash of a method; a name that the lab does not know gets the next that is free in `methods`."""
    colour, dash, _ = _look(methods, method)
    return {"color": colour, "linestyle": dash}


def method_marker(methods: Sequence[str], method: str) -> str:
    """The marker that goes with a method's colour."""
    return _look(methods, method)[2]


def legend(figure: Figure, axes: Axes | None = None) -> None:
    """One legend of `axes` (the first with entries by default) under the whole figure, in as many columns as fit.

    The figure grows by the legend's rows beyond the first, so that many methods leave the panels their size.
    """
    for source in figure.axes if axes is None else [axes]:
        handles, labels = source.get_legend_handles_labels()
        if handles:
            column = 0.55 + max(map(len, labels)) * FONT_SIZE * 0.6 / 72
            columns = max(1, min(len(labels), int(figure.get_figwidth() / column)))
            rows = math.ceil(len(labels) / columns)
            figure.set_figheight(figure.get_figheight() + (rows - 1) * FONT_SIZE * 1.6 / 72)
            figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=2.6)
            return


def svg(figure: Figure) -> str:
    """The figure as an SVG element, without XML header and date; lines and text take the page's colour.

    Groups and images lose their ids, which no part refers to and which figures share: on a page an id stands once.
    """
    out = io.StringIO()
    with drawing():
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return re.sub(r'(<g) id="[\w.]+_\d+"|(<image\b[^>]*?) id="image\w+"', r"\1\2", text[text.index("<svg") :])


def pdf(figure: Figure) -> bytes:
    """The figure as a PDF file on white, without a date, fonts embedded."""
    out = io.BytesIO()
    with drawing():
        figure.savefig(out, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return out.getvalue()


def standalone(element: str) -> str:
    """An SVG element as a file of its own: on white, for papers and for readers with a dark background."""
    start = element.index(">") + 1
    return f'{element[:start]}\n <rect width="100%" height="100%" fill="white"/>{element[start:]}'
