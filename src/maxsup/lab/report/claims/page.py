"""The files of the claims: claims.json, claims.md and claims.html."""

from __future__ import annotations

from pathlib import Path

import jinja2

from maxsup._version import __version__
from maxsup.lab import records
from maxsup.lab.records import Json
from maxsup.lab.report.claims import tables
from maxsup.lab.report.tables import Grid

TITLE = "The paper's claims, tested"


def write_claims(summary: Json, out: Path) -> list[Path]:
    """Writes claims.json, claims.md and claims.html into the folder `out`; returns the paths."""
    records.write_json(out / "claims.json", summary)
    records.write_text(out / "claims.md", markdown(summary))
    records.write_text(out / "claims.html", page(summary))
    return [out / name for name in ("claims.json", "claims.md", "claims.html")]


def markdown(summary: Json) -> str:
    """Verdicts and tables in GitHub's Markdown."""
    parts = [f"# {TITLE}", tables.headline(summary), _table(tables.glance(summary)), "## How it is decided"]
    parts.append(_list(tables.basis(summary)))
    for place, topic in enumerate(summary["topics"]):
        parts += [f"## {place + 1}. {topic['title']}", _table(tables.topic_grid(summary, place))]
        parts.append(_list(tables.notes(summary, place)))
        for words, commands in tables.to_measure(summary, place):
            parts += [f"{words}:", "```\n" + "\n".join(commands) + "\n```"]
    parts += ["## Comparisons", _table(tables.comparisons(summary))]
    if summary["unusable"]:
        parts += ["## Records that could not be used", _list(summary["unusable"])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(grid: Grid) -> str:
    aligned = ["---" if grid.is_text(column) else "---:" for column in range(len(grid.heads))]
    lines = [grid.heads, aligned, *grid.texts()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def page(summary: Json) -> str:
    """The same as one self-contained HTML page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("maxsup.lab.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    topics = range(len(summary["topics"]))
    return environment.get_template("claims/page.html.j2").render(
        title=TITLE,
        version=__version__,
        headline=tables.headline(summary),
        basis=tables.basis(summary),
        glance=tables.glance(summary),
        topics=[
            (tables.topic_grid(summary, place), tables.notes(summary, place), tables.to_measure(summary, place))
            for place in topics
        ],
        comparisons=tables.comparisons(summary),
        unusable=summary["unusable"],
    )
