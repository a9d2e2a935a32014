"""A study's summary as tables: its own, with the paper's numbers beside ours, and the differences."""

from __future__ import annotations

from maxsup.lab.records import Json
from maxsup.lab.report import numbers
from maxsup.lab.report.study.verdict import REHEARSAL
from maxsup.lab.report.tables import MARK, Cell, Grid

GROUP = "study"
ACCURACY = "test.accuracy"


def grids(summary: Json) -> list[Grid]:
    """Every table of a study: its own, the differences, and the states of its comparisons."""
    found = [_table(summary, group) for group in groups(summary)]
    found += [_contrast(summary, contrast) for contrast in summary["contrasts"]]
    return [*found, _comparisons(summary)]


def groups(summary: Json) -> list[str]:
    """The headings of its own tables; the only one's is empty."""
    # A record that was written before there were groups has one table.
    return list(dict.fromkeys(column.get("group", "") for column in summary["columns"]))


def _marked(summary: Json, caption: str) -> str:
    return f"{REHEARSAL}: {caption}" if summary["rehearsal"] else caption


def _table(summary: Json, group: str) -> Grid:
    cells = {(cell["row"], cell["column"]): cell for cell in summary["cells"]}
    columns = [c for c, column in enumerate(summary["columns"]) if column.get("group", "") == group]
    heads = [""]
    compared = {}
    for c in columns:
        title = summary["columns"][c]["title"]
        of = [cell for (_, column), cell in cells.items() if column == c]
        # A column that the paper lacks needs no place for its numbers.
        papers = any(cell["paper"]["mean"] is not None for cell in of)
        compared[c] = papers, any(cell["difference"] is not None for cell in of)
        heads += [title, *(["paper"] if compared[c][0] else []), *(["less paper"] if compared[c][1] else [])]
    rows = [
        [Cell(label), *(shown for c in columns for shown in _shown(summary, cells.get((r, c)), c, *compared[c]))]
        for r, label in enumerate(summary["rows"])
        if any((r, c) in cells for c in columns)
    ]
    what = "test accuracy in %, " if {summary["columns"][c]["measure"]["key"] for c in columns} == {ACCURACY} else ""
    caption = f"{what}mean {numbers.PLUS_MINUS} std (ddof 1) over n seeds and the mean's 95% t-interval"
    if any(here for here, _ in compared.values()):
        caption += "; beside it the paper's"
    return Grid(GROUP, group or summary["table"], _marked(summary, caption), heads, rows)


def _shown(summary: Json, cell: Json | None, column: int, paper: bool, difference: bool) -> list[Cell]:
    """A cell with the paper's number and the difference from it where the column has them; dashes for no cell."""
    if cell is None:
        return [Cell(numbers.NONE)] * (1 + paper + difference)
    measure = summary["columns"][column]["measure"]
    shown = [Cell(numbers.mean_and_std(cell, measure), _detail(cell, measure), cell["mean"])]
    if paper:
        shown.append(Cell(numbers.as_printed(cell["paper"], measure), value=cell["paper"]["mean"]))
    if difference:
        value = cell["difference"]
        text = numbers.NONE if value is None else numbers.plain_signed(value, measure)
        shown.append(Cell(text, value=value))
    return shown


def _detail(cell: Json, measure: Json) -> str:
    if cell["interval"] is None:
        return f"n = {cell['n']}"
    places = numbers.digits(numbers.scaled(cell["std"], measure), measure["percent"])
    low, high = (f"{numbers.scaled(x, measure):.{places}f}" for x in cell["interval"])
    return f"n = {cell['n']} [{low}, {high}]".replace("-", numbers.MINUS)


def _contrast(summary: Json, contrast: Json) -> Grid:
    measures = {pair["column"]: summary["columns"][pair["of"][1]]["measure"] for pair in contrast["pairs"]}
    pairs = {(pair["row"], pair["column"]): pair for pair in contrast["pairs"]}
    columns = list(dict.fromkeys(pair["column"] for pair in contrast["pairs"]))
    printed = {
        column: any(pair["paper"] is not None for pair in contrast["pairs"] if pair["column"] == column)
        for column in columns
    }
    heads = [""]
    for column in columns:
        heads += [column, *(["paper"] if printed[column] else [])]
    rows = []
    for label in dict.fromkeys(pair["row"] for pair in contrast["pairs"]):
        row = [Cell(label)]
        for column in columns:
            pair = pairs.get((label, column))
            row.append(Cell(numbers.NONE) if pair is None else _difference(pair, measures[column]))
            if printed[column]:
                paper = None if pair is None else pair["paper"]
                text = numbers.NONE if paper is None else numbers.plain_signed(paper, measures[column])
                row.append(Cell(text, value=paper))
        rows.append(row)
    family = "the rows of a column" if contrast["by_column"] else "this table"
    significant = f"exact sign-flip test with p ≤ {summary['level']:g} after Holm's correction over {family}"
    caption = f"differences paired by seed, mean [95% t-interval] and pairs; {MARK} significant: {significant}"
    if any(printed.values()):
        caption += "; beside it the difference of the paper's means"
    return Grid(GROUP, contrast["title"], _marked(summary, caption), heads, rows)


def _difference(pair: Json, measure: Json) -> Cell:
    text, better = numbers.signed(pair, measure), None
    if pair["outcome"] == "significant":
        text += f" {MARK}"
        better = None if measure["better"] is None else (pair["mean"] > 0) == (measure["better"] == "higher")
    return Cell(text, f"{numbers.interval(pair, measure)} n = {pair['n']}".strip(), pair["mean"], better)


def _comparisons(summary: Json) -> Grid:
    rows: list[list[Cell]] = []
    all_changes = [of["changes"] for of in summary["comparisons"].values()]
    for name, of in summary["comparisons"].items():
        states = ", ".join(f"{count} {state}" for state, count in of["runs"].items())
        changed = "; ".join(of["changes"]) or "none"
        if rows and of["changes"] and all(other == of["changes"] for other in all_changes):
            changed = "the same"
        seeds = ", ".join(map(str, of["seeds"]))
        rows.append([Cell(name), Cell(", ".join(of["methods"])), Cell(seeds), Cell(states), Cell(changed)])
    heads = ["comparison", "methods", "seeds", "runs", "settings other than the study's"]
    return Grid(GROUP, "Comparisons", _marked(summary, "what was trained for this study"), heads, rows)
