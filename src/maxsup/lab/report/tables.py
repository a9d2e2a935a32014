"""The summary as tables: for the terminal, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass

from rich.table import Table

from maxsup.lab.records import Json
from maxsup.lab.report.summary import MEASURES, Measure

PLUS_MINUS = "±"


@dataclass(frozen=True)
class Grid:
    """A table of text: a title, column heads and rows; the first column names the method."""

    title: str
    heads: list[str]
    rows: list[list[str]]


def _digits(spread: float | None, percent: bool) -> int:
    """Decimals that show two significant digits of `spread`, within what a reader can use."""
    least, most = (1, 3) if percent else (3, 5)
    if not spread or not math.isfinite(spread):
        return least + 1
    rounded = float(f"{spread:.1e}")  # 0.99… shows as 1.0, and needs a digit less than 0.98
    return min(most, max(least, 1 - math.floor(math.log10(rounded))))


def _scaled(value: float, measure: Measure) -> float:
    return 100 * value if measure.percent else value


def _with_n(text: str, n: int, usual: int) -> str:
    """Says n where a cell rests on fewer values than its row (a measure can be undefined for some runs)."""
    return text if n in (0, usual) else f"{text} (n={n})"


def mean_and_std(entry: Json, measure: Measure, usual_n: int) -> str:
    """`mean ± std` of a summary's entry; the mean alone for one run; a dash for none."""
    if entry["mean"] is None:
        return "–"
    mean = _scaled(entry["mean"], measure)
    if entry["std"] is None:
        return _with_n(f"{mean:.{_digits(None, measure.percent)}f}", entry["n"], usual_n)
    std = _scaled(entry["std"], measure)
    digits = _digits(std, measure.percent)
    return _with_n(f"{mean:.{digits}f} {PLUS_MINUS} {std:.{digits}f}", entry["n"], usual_n)


def difference(entry: Json, measure: Measure, usual_n: int) -> str:
    """`mean [low, high]` of a paired difference; the mean alone for one pair; a dash for none."""
    of = entry["difference"]
    if of["mean"] is None:
        return "–"
    mean = _scaled(of["mean"], measure)
    if of["interval"] is None:
        return _with_n(f"{mean:+.{_digits(None, measure.percent)}f}", of["n"], usual_n)
    digits = _digits(_scaled(of["std"], measure), measure.percent)
    low, high = (_scaled(x, measure) for x in of["interval"])
    return _with_n(f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]", of["n"], usual_n)


def _finished(of_method: Json) -> str:
    runs = of_method["runs"]
    others = [f"{count} {state}" for state, count in runs.items() if state != "finished"]
    return ", ".join([str(runs.get("finished", 0)), *others])


def grids(summary: Json) -> list[Grid]:
    """The two tables of a comparison: the methods, and their paired differences from the first."""
    name, reference = summary["recipe"]["name"], summary["reference"]
    methods = summary["methods"]
    titles = [measure.title for measure in MEASURES]
    values = Grid(f"{name}: mean {PLUS_MINUS} std (ddof 1) over seeds", ["method", "n", *titles], [])
    differences = Grid(
        f"{name}: paired difference from {reference}, mean [95% interval]", ["method", "pairs", *titles], []
    )
    for method, of in methods.items():
        entries = [(of["measures"][measure.key], measure) for measure in MEASURES]
        n = of["runs"].get("finished", 0)
        values.rows.append([method, _finished(of), *(mean_and_std(entry, m, n) for entry, m in entries)])
        if method != reference:
            pairs = max(entry["difference"]["n"] for entry, _ in entries)
            differences.rows.append([method, str(pairs), *(difference(entry, m, pairs) for entry, m in entries)])
    return [values, differences] if differences.rows else [values]


def legend() -> str:
    """What every column means, as one paragraph."""
    columns = "; ".join(f"{m.title}: {m.meaning}" for m in MEASURES)
    return f"n: finished runs; {columns}."


def rich_tables(summary: Json, width: int = 80) -> list[Table]:
    """The tables for a terminal of `width` columns: measures as rows, and as many methods side by side as fit."""
    tables = []
    for grid in grids(summary):
        cell = max(len(cell) for row in grid.rows for cell in row) + 3
        together = max(1, (width - max(map(len, grid.heads)) - 4) // cell)
        for first in range(0, len(grid.rows), together):
            table = Table(title=grid.title if first == 0 else None, title_justify="left")
            table.add_column("")
            rows = grid.rows[first : first + together]
            for row in rows:
                table.add_column(row[0], justify="right")
            for column, head in enumerate(grid.heads[1:], start=1):
                table.add_row(head, *(row[column] for row in rows))
            tables.append(table)
    return tables


def markdown(summary: Json) -> str:
    """The tables in GitHub's Markdown."""
    parts = []
    for grid in grids(summary):
        lines = [grid.heads, ["---", *["---:"] * (len(grid.heads) - 1)], *grid.rows]
        parts.append(f"**{grid.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join([*parts, legend()]) + "\n"


def csv_text(summary: Json) -> str:
    """One line per method and measure, unrounded, fractions as fractions; empty cells where undefined."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = ["method", "measure", "n", "mean", "std", "low", "high"]
    writer.writerow([*heads, *(f"difference_{head}" for head in heads[2:])])
    for method, of in summary["methods"].items():
        for measure in MEASURES:
            entry = of["measures"][measure.key]
            cells = [method, measure.key]
            for part in (entry, entry.get("difference")):
                if part is None:
                    cells += [""] * 5
                    continue
                low, high = part["interval"] or (None, None)
                cells += ["" if x is None else repr(x) for x in (part["n"], part["mean"], part["std"], low, high)]
            writer.writerow(cells)
    return out.getvalue()


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    PLUS_MINUS: r"$\pm$",
    "²": r"$^2$",
    "–": "--",
}


def latex(summary: Json) -> str:
    """The tables for a paper; they need the booktabs package."""
    parts = []
    for grid in grids(summary):
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{_escaped(grid.title)}}}"]
        lines += [rf"\begin{{tabular}}{{l{'r' * (len(grid.heads) - 1)}}}", r"\toprule"]
        lines += [" & ".join(map(_escaped, grid.heads)) + r" \\", r"\midrule"]
        lines += [" & ".join(map(_escaped, row)) + r" \\" for row in grid.rows]
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
