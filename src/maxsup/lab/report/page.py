"""report.html and the summary's files."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2

from maxsup._version import __version__
from maxsup.lab import records
from maxsup.lab.records import Comparison, Json
from maxsup.lab.report import figures, tables
from maxsup.lab.report.summary import summarize


def write_report(directory: Path) -> list[Path]:
    """Writes summary.json, .csv, .md, .tex, the figures and report.html into a comparison's folder; returns the paths.

    Runs that are missing, unfinished, diverged, failed or damaged are named in the report; they never stop it.

    Raises:
        RecordError: if `directory` holds no comparison.
    """
    comparison = records.read_comparison(directory)
    summary = summarize(comparison)
    records.write_json(directory / "summary.json", summary)
    curves = figures.training_curves(comparison)
    texts = {
        "summary.csv": tables.csv_text(summary),
        "summary.md": tables.markdown(summary),
        "summary.tex": tables.latex(summary),
        "training-curves.svg": figures.standalone(curves),
        "report.html": page(comparison, summary, curves),
    }
    for name, text in texts.items():
        records.write_text(directory / name, text)
    return [directory / name for name in ("summary.json", *texts)]


def page(comparison: Comparison, summary: Json, curves: str) -> str:
    """The report as one self-contained HTML page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("maxsup.lab.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Every combination of hardware, versions and commit that the runs were made with; usually one.
    settings: list[Json] = []
    for run in comparison.runs:
        setting: Json = {
            key: run.info[key]
            for key in ("hardware", "versions", "git_commit", "git_dirty", "source_sha256")
            if key in run.info
        }
        if setting and setting not in settings:
            settings.append(setting)
    return environment.get_template("page.html.j2").render(
        name=comparison.recipe["name"],
        version=__version__,
        comparison=comparison,
        grids=tables.grids(summary),
        legend=tables.legend(),
        curves=curves,
        recipe=json.dumps(comparison.recipe, indent=2),
        settings=[json.dumps(setting, indent=2) for setting in settings],
        reference=summary["reference"],
    )
