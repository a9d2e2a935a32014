"""report.html and the summary's files."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2

from maxsup._version import __version__
from maxsup.lab import records
from maxsup.lab.records import Comparison, Json
from maxsup.lab.report import figures, formats, gallery, tables
from maxsup.lab.report.fields import flat
from maxsup.lab.report.figures import Pictures
from maxsup.lab.report.summary import summarize


def write_report(directory: Path, reference: str | None = None) -> list[Path]:
    """Writes summary.json, .csv, .md, .tex, the figures and report.html into a comparison's folder; returns the paths.

    Differences are taken from the method `reference`, or from the first. Runs that are missing, unfinished, diverged,
    failed or damaged, and damaged records beside a run, are named in the report; they never stop it.

    Raises:
        RecordError: if `directory` holds no comparison.
        UnknownNameError: if `reference` is no method of the comparison.
    """
    comparison = records.read_comparison(directory)
    summary = summarize(comparison, reference)
    records.write_json(directory / "summary.json", summary)
    drawn = figures.all_figures(comparison)
    texts = {
        "summary.csv": formats.csv_text(summary),
        "summary.md": formats.markdown(summary),
        "summary.tex": formats.latex(summary),
        "report.html": page(comparison, summary, drawn),
    }
    for name, text in texts.items():
        records.write_text(directory / name, text)
    return [directory / name for name in ("summary.json", *texts)] + figures.save(drawn.pictures, directory)


def page(comparison: Comparison, summary: Json, drawn: Pictures) -> str:
    """The report as one self-contained HTML page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("maxsup.lab.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        name=comparison.recipe["name"],
        version=__version__,
        comparison=comparison,
        summary=summary,
        glance=tables.glance(summary),
        grids=tables.grids(summary),
        tests=tables.tests(summary),
        published=tables.published(summary),
        meanings={
            group["name"]: {tables.MARK: tables.mark(summary["level"]), **tables.meanings([group])}
            for group in summary["groups"]
            if group["tables"]
        },
        pictures=[(picture, gallery.embedded(picture)) for picture in drawn.pictures],
        not_drawn=drawn.notes,
        runs=tables.runs(comparison, summary),
        recipe={name: json.dumps(value) for name, value in flat(comparison.recipe).items()},
        settings=_settings(comparison),
    )


def _settings(comparison: Comparison) -> list[tuple[str, Json]]:
    """Every combination of hardware, versions and commit that runs were made with, and which; usually one."""
    found: list[tuple[list[str], Json]] = []
    for run in comparison.runs:
        setting = flat(
            {
                key: run.info[key]
                for key in ("git_commit", "git_dirty", "source_sha256", "hardware", "versions")
                if key in run.info
            }
        )
        of = f"{run.method} seed {run.seed}"
        if not setting:
            continue
        same = next((runs for runs, other in found if other == setting), None)
        if same is None:
            found.append(([of], setting))
        else:
            same.append(of)
    return [
        ("all runs" if len(found) == 1 else ", ".join(runs), {name: json.dumps(value) for name, value in of.items()})
        for runs, of in found
    ]
