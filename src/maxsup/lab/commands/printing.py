"""What several commands print: measures, reports, what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from maxsup.lab.records import Json

if TYPE_CHECKING:
    from maxsup.lab.analysis.batch import Outcome


def print_measures(result: Json) -> None:
    """A line for each split of a run's result."""
    for split, measured in result["measures"].items():
        shown = ", ".join(f"{name} {value:.4g}" for name, value in measured.items() if value is not None)
        print(f"{split}: {shown}")


# Groups of tables that every comparison has.
FIRST = ("accuracy", "representation")


def write_and_print_report(directory: Path, reference: str | None = None, *, whole: bool = False) -> None:
    """Writes a comparison's report; prints its first tables, or the `whole` of them, their legend and the verdict."""
    from maxsup.lab import records, report

    written = report.write_report(directory, reference)
    summary = report.summarize(records.read_comparison(directory), reference)
    console = Console()
    groups = [group for group in summary["groups"] if group["tables"]]
    shown = summary | {"groups": [group for group in groups if whole or group["name"] in FIRST]}
    for table in report.rich_tables(shown, console.width):
        console.print(table)
    console.print(report.legend(shown), style="dim", highlight=False)
    console.print("\n" + " ".join(summary["verdict"]) + "\n", highlight=False)
    more = [group["title"] for group in groups if group not in shown["groups"]]
    if more:
        print(f"Not shown here, but in the files and by `maxsup report {directory}`: {', '.join(more)}.\n")
    print_written(written)


def write_and_print_study(directory: Path) -> None:
    """Writes a study's report and prints its tables and its verdict."""
    from maxsup.lab.report import formats, study

    written = study.write_study_report(directory)
    summary = study.summarize_study(directory)
    console = Console()
    print(study.heading(summary))
    for table in formats.rich_grids(study.grids(summary), console.width):
        console.print(table)
    console.print("\n" + " ".join(summary["verdict"]) + "\n", highlight=False)
    print_written(written)


def print_written(paths: Sequence[Path]) -> None:
    """Where files were written, and which: the page first, a picture once however many forms it has."""
    pages = [path for path in paths if path.suffix == ".html"]
    forms: dict[str, list[str]] = {}
    for path in paths:
        if path not in pages:
            forms.setdefault(path.stem, []).append(path.suffix.removeprefix("."))
    others = [f"{stem}.{of[0] if len(of) == 1 else '{' + ','.join(of) + '}'}" for stem, of in forms.items()]
    print(f"written: {', '.join(map(str, pages))}; beside it {', '.join(others)}")


def errors(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each run that failed."""
    return [f"{outcome.run.path}: {outcome.error}" for outcome in outcomes if outcome.error is not None]


def exit_code(problems: Sequence[str]) -> int:
    """Prints what went wrong; 1 if anything did, else 0."""
    for problem in problems:
        print(f"maxsup: {problem}", file=sys.stderr)
    return 1 if problems else 0
