"""The tables for the terminal, and as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.table import Table

from maxsup.lab.records import Json
from maxsup.lab.report import numbers
from maxsup.lab.report.tables import MARK, Grid, glance, grids, legend, published


def rich_tables(summary: Json, width: int = 80) -> list[Table]:
    """The tables for a terminal of `width` columns: measures as rows, and as many methods side by side as fit."""
    return rich_grids(grids(summary), width)


def rich_grids(shown: Sequence[Grid], width: int = 80) -> list[Table]:
    """Any tables for a terminal, as `rich_tables` has them."""
    tables = []
    for grid in shown:
        texts = grid.texts()
        cell = max(len(cell) for row in texts for cell in row) + 3
        together = max(1, (width - max(map(len, grid.heads)) - 4) // cell)
        for first in range(0, len(texts), together):
            table = Table(title=grid.title if first == 0 else None, title_justify="left")
            table.add_column("")
            rows = texts[first : first + together]
            for row in rows:
                table.add_column(row[0], justify="right")
            for column, head in enumerate(grid.heads[1:], start=1):
                table.add_row(head, *(row[column] for row in rows))
            tables.append(table)
    return tables


def markdown(summary: Json) -> str:
    """The verdict and the tables in GitHub's Markdown."""
    parts = [f"# {summary['recipe']['name']}", " ".join(summary["verdict"])]
    for grid in (glance(summary), *grids(summary), *published(summary)):
        if grid.rows:
            lines = [grid.heads, ["---", *["---:"] * (len(grid.heads) - 1)], *grid.texts()]
            parts.append(f"**{grid.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    for group in summary["groups"]:
        parts += [f"{group['title']}: {note}" for note in group["notes"]]
    return "\n\n".join([*parts, legend(summary)]) + "\n"


TESTS = ("p_t", "p_t_holm", "p_sign_flip", "p_sign_flip_holm", "floor", "detectable", "outcome")


def csv_text(summary: Json) -> str:
    """One line per method and measure, unrounded, fractions as fractions; empty cells where undefined."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads = ["method", "measure", "n", "mean", "std", "low", "high"]
    differences = [*heads[2:], "bootstrap_low", "bootstrap_high", *TESTS]
    writer.writerow([*heads, *(f"difference_{head}" for head in differences)])
    for method, of in summary["methods"].items():
        for key, entry in of["measures"].items():
            cells = [method, key, *map(_plain, _described(entry))]
            of_pairs = entry.get("difference")
            if of_pairs is None:
                cells += [""] * len(differences)
            else:
                values = [*_described(of_pairs), *(of_pairs["bootstrap"] or (None, None))]
                cells += map(_plain, [*values, *(of_pairs[name] for name in TESTS)])
            writer.writerow(cells)
    return out.getvalue()


def _described(entry: Json) -> list[object]:
    return [entry["n"], entry["mean"], entry["std"], *(entry["interval"] or (None, None))]


def _plain(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else repr(value)


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
    numbers.PLUS_MINUS: r"$\pm$",
    MARK: r"$^\dagger$",
    "²": r"$^2$",
    "ₚ": r"$_p$",
    "‖": r"$\Vert$",
    numbers.MINUS: "$-$",
    "α": r"$\alpha$",
    "→": r"$\to$",
    numbers.NONE: "--",
}


def latex(summary: Json) -> str:
    """The tables for a paper; they need the booktabs package."""
    parts = []
    for grid in (*grids(summary), *published(summary)):
        caption = _escaped(f"{summary['recipe']['name']}: {grid.title}")
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}"]
        lines += [rf"\begin{{tabular}}{{l{'r' * (len(grid.heads) - 1)}}}", r"\toprule"]
        lines += [" & ".join(map(_escaped, grid.heads)) + r" \\", r"\midrule"]
        lines += [" & ".join(map(_escaped, row)) + r" \\" for row in grid.texts()]
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
