"""What corrupted test images cost, by severity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from maxsup.lab.records import Json
from maxsup.lab.report.figures.curves import mean_and_band
from maxsup.lab.report.figures.style import WIDTH, drawing, legend

PANELS = (("error", "error in %", 100), ("nll", "NLL in nats", 1), ("ece", "ECE", 1))


def severity_curves(methods: Sequence[str], corruptions: Mapping[str, Sequence[Json]]) -> Figure:
    """Error, NLL and ECE against the severity, each the mean over the kinds of corruption; 0 is the clean images.

    Mean over the seeds, and a band from the least to the largest. `corruptions` holds the records of each method's
    runs.
    """
    with drawing():
        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        panels = figure.subplots(1, len(PANELS))
        for axes, (key, title, scale) in zip(panels, PANELS, strict=True):
            for method, runs in corruptions.items():
                found = [[scale * value for value in (run["clean"][key], *run["by_severity"][key])] for run in runs]
                mean_and_band(axes, range(len(found[0])), found, methods, method)
            axes.set_title(title)
            axes.set_xlabel("severity")
            axes.set_ylim(bottom=0)
            axes.xaxis.get_major_locator().set_params(integer=True)
        legend(figure)
        return figure
