"""The summary as tables: rows of cells, which the page, the terminal and the files show each in their way."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from maxsup.lab.records import Comparison, Json, RunRecord
from maxsup.lab.report import measures, numbers
from maxsup.lab.report.verdict import can_tell, key_measures
from maxsup.lab.statistics import LEVEL

MARK = "†"


@dataclass(frozen=True)
class Cell:
    """A cell: its text, a second line under it, and the number to sort by, if it is one."""

    text: str
    detail: str = ""
    value: float | None = None
    better: bool | None = None
    """Of a significant difference: whether it is in the direction that one wants."""

    def __str__(self) -> str:
        return f"{self.text} {self.detail}" if self.detail else self.text


@dataclass(frozen=True)
class Grid:
    """A table: the group it belongs to, section, caption, column heads and rows."""

    group: str
    section: str
    caption: str
    heads: list[str]
    rows: list[list[Cell]]

    @property
    def title(self) -> str:
        """Section and caption, for where the table stands alone."""
        return f"{self.section}. {self.caption}"

    def is_text(self, column: int) -> bool:
        """Whether a column holds words and no numbers."""
        return all(row[column].value is None for row in self.rows)

    def texts(self) -> list[list[str]]:
        """The rows as plain text."""
        return [[str(cell) for cell in row] for row in self.rows]


def grids(summary: Json) -> list[Grid]:
    """Every table with its differences, in the order of the groups."""
    found = []
    for group in summary["groups"]:
        for table in group["tables"]:
            found.append(_values(summary, group, table))
            if table["differences"]:
                found.append(_differences(summary, group, table))
    return [grid for grid in found if grid.rows]


def _values(summary: Json, group: Json, table: Json) -> Grid:
    columns = table["measures"]
    probed = columns[0]["key"].split(".")[1] if group["name"] == "transfer" else None
    rows = []
    for method, of in summary["methods"].items():
        finished = of["runs"].get("finished", 0)
        cells = [Cell(method), Cell(_finished(of), value=finished)]
        for column in columns:
            entry = of["measures"][column["key"]]
            text = numbers.mean_and_std(entry, column)
            detail = _fewer(entry["n"], finished)
            if not table["differences"] and numbers.PLUS_MINUS in text:  # many columns: the std goes below
                text, _, std = text.partition(f" {numbers.PLUS_MINUS} ")
                detail = f"{numbers.PLUS_MINUS} {std} {detail}".rstrip()
            cells.append(Cell(text, detail, entry["mean"]))
        if probed is not None:
            fits = of["fits"].get(probed, {"unconverged": 0, "total": 0})
            cells.append(Cell(f"{fits['unconverged']} of {fits['total']}", value=fits["unconverged"]))
        rows.append(cells)
    heads = ["method", "n", *(column["title"] for column in columns)]
    if probed is not None:
        heads.append("unconverged fits")
    caption = f"{table['title']}: mean {numbers.PLUS_MINUS} std (ddof 1) over seeds"
    return Grid(group["name"], group["title"], caption, heads, rows)


def _differences(summary: Json, group: Json, table: Json) -> Grid:
    columns = table["measures"]
    rows = []
    for method, of in summary["methods"].items():
        if method == summary["reference"]:
            continue
        found = [of["measures"][column["key"]]["difference"] for column in columns]
        pairs = max(difference["n"] for difference in found)
        cells = [Cell(method), Cell(str(pairs), value=pairs)]
        cells += [_difference(*each, pairs) for each in zip(found, columns, strict=True)]
        rows.append(cells)
    return Grid(
        group["name"],
        group["title"],
        f"{table['title']}: paired difference from {summary['reference']}, mean [95% t-interval]",
        ["method", "pairs", *(column["title"] for column in columns)],
        rows,
    )


def _difference(of: Json, column: Json, pairs: int) -> Cell:
    text = numbers.signed(of, column)
    better = None
    if of["outcome"] == "significant":
        text += f" {MARK}"
        better = None if column["better"] is None else (of["mean"] > 0) == (column["better"] == "higher")
    detail = f"{numbers.interval(of, column)} {_fewer(of['n'], pairs)}".strip()
    return Cell(text, detail, of["mean"], better)


def _fewer(n: int, usual: int) -> str:
    """Says n where a cell rests on fewer values than its row (a measure can be undefined for some runs)."""
    return "" if n in (0, usual) else f"(n={n})"


def _finished(of_method: Json) -> str:
    runs = of_method["runs"]
    others = [f"{count} {state}" for state, count in runs.items() if state != "finished"]
    return ", ".join([str(runs.get("finished", 0)), *others])


def glance(summary: Json) -> Grid:
    """The verdict as a table: what the statistics show per method and key measure; no rows where n shows nothing."""
    keys = key_measures(summary)
    rows = []
    for method, of in summary["methods"].items():
        if method == summary["reference"] or not can_tell(summary):
            continue
        cells = [Cell(method)]
        for key, (_, column) in keys.items():
            difference = of["measures"][key]["difference"]
            outcome = difference["outcome"]
            shown = _difference(difference, column, difference["n"])
            text = outcome
            if outcome == "significant":
                text = "higher" if difference["mean"] > 0 else "lower"
                text += "" if shown.better is None else ", better" if shown.better else ", worse"
            cells.append(Cell(text, shown.text.removesuffix(f" {MARK}"), difference["mean"], shown.better))
        rows.append(cells)
    heads = [
        f"{column['title']} {key.split('.')[1]}" if key.startswith(("probe.", "segment.")) else column["title"]
        for key, (_, column) in keys.items()
    ]
    caption = f"What the paired differences from {summary['reference']} show, and their means"
    return Grid("verdict", "At a glance", caption, ["method", *heads], rows)


def tests(summary: Json) -> Grid:
    """Every paired difference with both intervals and both tests, raw and corrected; a row per measure and method."""
    rows = []
    for group in summary["groups"]:
        for table in group["tables"]:
            for column in table["measures"] if table["differences"] else []:
                name = (
                    f"{column['title']} ({table['title']})"
                    if group["name"] in ("transfer", "overlays", "segmentation")
                    else column["title"]
                )
                for method, of in summary["methods"].items():
                    if method != summary["reference"]:
                        rows.append(
                            [Cell(name), *_test_cells(method, of["measures"][column["key"]]["difference"], column)]
                        )
    heads = ["measure", "method", "pairs", "difference", "95% t interval", "95% bootstrap", "p (t)", "p (t), Holm"]
    heads += ["p (sign flip)", "p (sign flip), Holm", "outcome", "detectable"]
    return Grid("tests", "Tests", f"Every paired difference from {summary['reference']}", heads, rows)


def _test_cells(method: str, of: Json, column: Json) -> list[Cell]:
    detectable = of["detectable"]
    return [
        Cell(method),
        Cell(str(of["n"]), value=of["n"]),
        Cell(numbers.signed(of, column), value=of["mean"]),
        Cell(numbers.interval(of, column) or numbers.NONE, value=of["interval"][0] if of["interval"] else None),
        Cell(
            numbers.interval(of, column, "bootstrap") or numbers.NONE,
            value=of["bootstrap"][0] if of["bootstrap"] else None,
        ),
        *(
            Cell(numbers.p_value(of[name]), value=of[name])
            for name in ("p_t", "p_t_holm", "p_sign_flip", "p_sign_flip_holm")
        ),
        Cell(of["outcome"]),
        Cell(numbers.NONE if detectable is None else numbers.effect(detectable, of, column), value=detectable),
    ]


def published(summary: Json) -> list[Grid]:
    """The paper's numbers beside ours, a table each; empty where the recipe repeats none of the paper's tables."""
    columns = {
        column["key"]: column
        for group in summary["groups"]
        for table in group["tables"]
        for column in table["measures"]
    }
    found = []
    for of in summary["published"]:
        shown = {key: column for key, column in of["columns"].items() if key in columns}
        methods = [method for method in summary["methods"] if any(method in column for column in shown.values())]
        rows = []
        for method in methods:
            cells = [Cell(method)]
            for key, column in shown.items():
                ours = summary["methods"][method]["measures"][key]
                cells.append(Cell(numbers.mean_and_std(ours, columns[key]), value=ours["mean"]))
                theirs = column.get(method, {"mean": None, "std": None})
                cells.append(Cell(numbers.as_printed(theirs, columns[key]), value=theirs["mean"]))
            rows.append(cells)
        heads = [head for key in shown for head in (columns[key]["title"], f"{columns[key]['title']}, paper")]
        caption = of["title"]
        if of["differs"]:
            caption += f"; in this recipe {', '.join(of['differs'])}"
        if rows:
            found.append(Grid("published", f"The paper's {of['table']}", caption, ["method", *heads], rows))
    return found


def meanings(groups: list[Json]) -> dict[str, str]:
    """What every column of the groups' tables means, by its head."""
    found = {"n": "finished runs", "pairs": "seeds that both methods finished"}
    for group in groups:
        if group["name"] == "transfer":
            found["unconverged fits"] = "regressions, over all strengths and runs, that stopped at the limit of steps"
        for table in group["tables"]:
            if table["differences"]:
                found |= {column["title"]: column["meaning"] for column in table["measures"]}
    return found


def legend(summary: Json | None = None) -> str:
    """What the mark and every column of a summary's tables mean, or of what `maxsup train` measures, as a paragraph."""
    groups = [asdict(group) for group in measures.groups((), (), {})] if summary is None else summary["groups"]
    columns = {MARK: mark(LEVEL), **meanings([group for group in groups if group["tables"]])}
    return "; ".join(f"{head}: {meaning}" for head, meaning in columns.items()) + "."


def mark(level: float) -> str:
    """What the mark beside a difference says."""
    return f"significant: exact sign-flip test with p ≤ {level:g} after Holm's correction over the methods"


def runs(comparison: Comparison, summary: Json) -> Grid:
    """The state of every run, and what is wrong with it or with a file of its folder."""
    rows = []
    for run in comparison.runs:
        problems = [reason(run)] if run.status != "finished" else []
        of = f"{run.method} seed {run.seed}"
        problems += [
            f"{problem['file']}: {problem['reason']}" for problem in summary["problems"] if problem["run"] == of
        ]
        selected = run.result.get("selected_epoch") if run.status == "finished" else None
        tested = None if selected is None else selected + 1
        rows.append(
            [
                Cell(run.method),
                Cell(str(run.seed), value=run.seed),
                Cell(run.status),
                Cell(str(len(run.epochs)), value=len(run.epochs)),
                Cell(numbers.NONE if tested is None else str(tested), value=tested),
                Cell("; ".join(problems)),
            ]
        )
    heads = ["method", "seed", "state", "epochs", "tested epoch", "problem"]
    return Grid("runs", "Runs", "State of every run", heads, rows)


def reason(run: RunRecord) -> str:
    """Why a run is not finished, in one line."""
    if run.problem and run.problem.strip():
        return run.problem.strip().splitlines()[-1].replace(f"{run.path}/", "")
    if run.status == "diverged":
        return f"the loss was not finite any more in epoch {len(run.epochs) + 1}"
    if run.status == "missing":
        return "run.json is missing: it was not started"
    return f"stopped after epoch {len(run.epochs)}; the command that began it goes on from there"
