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


def write_and_print_report(directory: Path, reference: str | None = None) -> None:
    """Writes a comparison's report and prints its tables, its legend and its verdict."""
    from maxsup.lab import records, report

    written = report.write_report(directory, reference)
    summary = report.summarize(records.read_comparison(directory), reference)
    console = Console()
    for table in report.rich_tables(summary, console.width):
        console.print(table)
    console.print(report.legend(summary), style="dim", highlight=False)
    console.print("\n" + " ".join(summary["verdict"]) + "\n", highlight=False)
    print("written: " + ", ".join(str(path) for path in written))


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
    print("written: " + ", ".join(str(path) for path in written))


def errors(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each run that failed."""
    return [f"{outcome.run.path}: {outcome.error}" for outcome in outcomes if outcome.error is not None]


def exit_code(problems: Sequence[str]) -> int:
    """Prints what went wrong; 1 if anything did, else 0."""
    for problem in problems:
        print(f"maxsup: {problem}", file=sys.stderr)
    return 1 if problems else 0
