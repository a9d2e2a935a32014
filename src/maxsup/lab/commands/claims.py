"""`maxsup claims`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from maxsup.lab.commands.printing import exit_code
from maxsup.lab.options import Claims
from maxsup.lab.parsing import parse
from maxsup.lab.records import Json


def claims(arguments: Sequence[str]) -> int:
    """Says what finished comparisons show of each of the paper's claims."""
    options = parse(Claims, "claims", arguments)
    from maxsup.lab.report.claims import headline, summarize_claims, write_claims

    summary = summarize_claims(options.directory)
    written = write_claims(summary, options.out or options.directory)
    console = Console()
    console.print(_table(summary))
    console.print("\n" + headline(summary) + "\n", highlight=False)
    print("written: " + ", ".join(str(path) for path in written))
    return exit_code([f"{line}; left out" for line in summary["unusable"]])


def _table(summary: Json) -> Table:
    """The verdict of each claim, with the number of its rows that gave it."""
    from maxsup.lab.report.claims.tables import numbered

    shown = Table()
    for head in ("", "claim", "verdict", "rows"):
        shown.add_column(head)
    for number, claim in numbered(summary):
        given, total = claim["counts"].get(claim["verdict"], 0), len(claim["rows"])
        shown.add_row(number, claim["statement"], claim["verdict"], f"{given} of {total}" if given else "")
    return shown
