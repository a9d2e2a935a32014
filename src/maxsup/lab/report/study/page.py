"""The files of a study's report: summary.json, summary.md, report.html and its figure."""

from __future__ import annotations

from pathlib import Path

import jinja2

from maxsup._version import __version__
from maxsup.lab import records
from maxsup.lab.records import Json
from maxsup.lab.report import figures, gallery
from maxsup.lab.report.figures import Picture
from maxsup.lab.report.figures import study as drawing
from maxsup.lab.report.study.summary import summarize_study
from maxsup.lab.report.study.tables import grids, groups
from maxsup.lab.report.study.verdict import REHEARSAL


def write_study_report(directory: Path) -> list[Path]:
    """Writes summary.json, summary.md, report.html and the figure into a study's folder; returns the paths.

    Raises:
        RecordError: if `directory` holds no study, or one of its comparisons is missing.
    """
    summary = summarize_study(directory)
    records.write_json(directory / "summary.json", summary)
    records.write_text(directory / "summary.md", markdown(summary))
    drawn = picture(summary)
    records.write_text(directory / "report.html", page(summary, drawn))
    files = [directory / name for name in ("summary.json", "summary.md", "report.html")]
    return files + figures.save([drawn], directory)


def heading(summary: Json) -> str:
    """The study's title, with what must not be overlooked before it."""
    title = f"{summary['table']}: {summary['title']}"
    return f"{REHEARSAL} of {title}" if summary["rehearsal"] else title


def picture(summary: Json) -> Picture:
    """Ours and the paper's as points; of a rehearsal ours alone, since the paper's would be far away."""
    rehearsal, caption = summary["rehearsal"], "mean over the seeds and its 95% t-interval"
    if summary["published"]:
        caption += "; the paper's numbers are not drawn" if rehearsal else "; the paper's mean and ± as printed"
    caption = f"{REHEARSAL}: {caption}." if rehearsal else f"{caption[0].upper()}{caption[1:]}."
    figure = drawing.cells(summary)
    return Picture("cells", summary["table"], caption, figures.svg(figure), figure)


def markdown(summary: Json) -> str:
    """The verdict and the tables in GitHub's Markdown."""
    parts = [f"# {heading(summary)}", " ".join(summary["verdict"])]
    for grid in grids(summary):
        lines = [grid.heads, ["---", *["---:"] * (len(grid.heads) - 1)], *grid.texts()]
        parts.append(f"**{grid.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def page(summary: Json, drawn: Picture) -> str:
    """The report as one self-contained HTML page, which links to the comparisons' reports."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("maxsup.lab.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("study/page.html.j2").render(
        heading=heading(summary),
        version=__version__,
        summary=summary,
        grids=grids(summary),
        figure_after=len(groups(summary)),
        picture=drawn,
        svg=gallery.embedded(drawn),
    )
