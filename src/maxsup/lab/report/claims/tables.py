"""The claims as tables and sentences, from their summary."""

from __future__ import annotations

from collections.abc import Iterator

from maxsup.lab.records import Json
from maxsup.lab.report import numbers
from maxsup.lab.report.claims.summary import VERDICTS
from maxsup.lab.report.tables import Cell, Grid

GROUP = "claims"
_GOOD = {"confirmed here": True, "contradicted here": False}
# Measures that one data set or fine-tuning has: its name stands before the measure's.
_NAMED = ("probe", "localization", "segment")


def numbered(summary: Json) -> Iterator[tuple[str, Json]]:
    """Every claim with its number: that of its topic and its place in it."""
    for t, topic in enumerate(summary["topics"], start=1):
        for c, claim in enumerate(topic["claims"], start=1):
            yield f"{t}.{c}", claim


def headline(summary: Json) -> str:
    """How many claims have which verdict, in a sentence."""
    verdicts = [claim["verdict"] for _, claim in numbered(summary)]
    order = (*VERDICTS[:2], "mixed", *VERDICTS[2:])
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in order if verdict in verdicts]
    return f"Of {len(verdicts)} claims: {', '.join(counts)}."


def basis(summary: Json) -> list[str]:
    """How the verdicts are decided, in sentences."""
    level, power = f"{summary['level']:g}", f"{summary['power']:.0%}"
    rows = [row for _, claim in numbered(summary) for row in claim["rows"]]
    most = max((row["comparisons"] for row in rows), default=1)
    over = "one row" if most == 1 else f"up to {most} rows"
    floors = {row["n"]: row["floor"] for row in rows if row["n"] > 1}
    least = ", ".join(f"{numbers.p_value(floors[n])} for n = {n}" for n in sorted(floors)) or "0.0625 for n = 5"
    return [
        "Every difference is between runs of the same seed; n counts the pairs.",
        f"The exact sign-flip test decides, two-sided: p ≤ {level} after Holm's correction over the rows of a claim "
        f"(here {over}). The claims are not corrected for one another.",
        f"With n pairs its p cannot be below 2/2ⁿ ({least}), and Holm multiplies the smallest of a claim by the number "
        f"of its rows. Where {level} is out of reach that way, a difference is called neither seen nor absent: it "
        "cannot be shown with this n.",
        f"Not seen does not mean absent. “Could have shown” is the smallest true difference that had an {power} chance "
        "to be found with this n and spread (by the same test at the first step of Holm's correction, if differences "
        "are normal).",
        "Confirmed here and contradicted here speak of these data, networks and recipes. Where one row confirms a "
        "claim and others show nothing, the claim counts as confirmed here, and the rows are counted beside it; where "
        "rows oppose each other, it is mixed.",
    ]


def glance(summary: Json) -> Grid:
    """A row per claim: the statement, where the paper has it, the numbers there, and the verdict here."""
    rows = []
    for number, claim in numbered(summary):
        rows.append(
            [
                Cell(f"{number} {claim['statement']}"),
                Cell(claim["where"]),
                Cell(_printed(claim)),
                Cell(claim["verdict"], _rows(claim), better=_GOOD.get(claim["verdict"])),
            ]
        )
    heads = ["claim", "where", "printed there", "verdict"]
    return Grid(
        GROUP,
        "The claims",
        "What the paper claims and prints (percentages in points), and what these comparisons show",
        heads,
        rows,
    )


def _rows(claim: Json) -> str:
    """How many rows have which verdict, where there are several."""
    total = len(claim["rows"])
    if total < 2:
        return ""
    given = [
        f"{count} of {total}" if verdict == claim["verdict"] else f"{count} of {total} {verdict}"
        for verdict, count in claim["counts"].items()
    ]
    return f"({', '.join(given)})"


def _printed(claim: Json) -> str:
    """The least and the greatest difference that the paper prints."""
    if not claim["printed"]:
        return numbers.NONE
    # Accuracies and mIoU, in percentage points; the measures of features as they are.
    measure = {"percent": not claim["measure"].endswith(("d_within", "r_squared"))}
    ends = [numbers.plain_signed(value, measure) for value in (min(claim["printed"]), max(claim["printed"]))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def topic_grid(summary: Json, place: int) -> Grid:
    """The rows of a topic's claims, one per comparison and measure; `place` counts topics from 0."""
    topic = summary["topics"][place]
    rows = []
    for c, claim in enumerate(topic["claims"], start=1):
        name = Cell(f"{place + 1}.{c} {claim['name']}")
        if not claim["rows"]:
            rows.append([name, *[Cell(numbers.NONE)] * 6, Cell("not measured"), Cell(numbers.NONE)])
        rows += [[name, *_cells(row)] for row in claim["rows"]]
    heads = ["claim", "comparison", "measure", "difference", "n", "exact p", "p (Holm)", "verdict"]
    caption = "paired differences and their 95% t-intervals; percentages in points"
    return Grid(GROUP, topic["title"], caption, [*heads, "could have shown"], rows)


def _cells(row: Json) -> list[Cell]:
    measure = row["measure"]
    comparison = row["comparison"] if row["twin"] is None else f"{row['comparison']} − {row['twin']}"
    left_out = f"({len(row['left_out'])} left out)" if row["left_out"] else ""
    return [
        Cell(comparison),
        Cell(_title(measure)),
        Cell(numbers.signed(row, measure), numbers.interval(row, measure), row["mean"]),
        Cell(str(row["n"]), left_out, row["n"]),
        Cell(numbers.p_value(row["p_sign_flip"]), value=row["p_sign_flip"]),
        Cell(numbers.p_value(row["p_sign_flip_holm"]), value=row["p_sign_flip_holm"]),
        Cell(row["verdict"], better=_GOOD.get(row["verdict"])),
        Cell(_could_have_shown(row)),
    ]


def _title(measure: Json) -> str:
    kind, data, *_ = measure["key"].split(".")
    return f"{measure['title']}, {data}" if kind in _NAMED else str(measure["title"])


def _could_have_shown(row: Json) -> str:
    if row["detectable"] is not None:
        return numbers.effect(row["detectable"], row, row["measure"])
    if row["verdict"] == "cannot be shown with this n":
        return f"takes n ≥ {row['least_n']}"
    return numbers.NONE


def notes(summary: Json, place: int) -> list[str]:
    """What a topic's reader must know: of the paper, of records, and which runs are left out and why."""
    topic = summary["topics"][place]
    lines = [topic["note"]] if topic["note"] else []
    left_out = [line for claim in topic["claims"] for row in claim["rows"] for line in row["left_out"]]
    lines += dict.fromkeys(line for claim in topic["claims"] for row in claim["rows"] for line in row["remarks"])
    return lines + [f"Left out: {line}" for line in dict.fromkeys(left_out)]


def to_measure(summary: Json, place: int) -> list[tuple[str, list[str]]]:
    """What a topic's claims that are not measured need, in words, and the commands for it."""
    needed: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for c, claim in enumerate(summary["topics"][place]["claims"], start=1):
        if claim["verdict"] == "not measured":
            needed.setdefault((claim["setting"], tuple(claim["commands"])), []).append(f"{place + 1}.{c}")
    return [
        (f"{', '.join(claims)} not measured. Needed: {setting}; for instance", list(commands))
        for (setting, commands), claims in needed.items()
    ]


def comparisons(summary: Json) -> Grid:
    """Every comparison found, its experiment, and the states of its runs."""
    rows = []
    for of in summary["comparisons"]:
        states = ", ".join(f"{count} {state}" for state, count in of["runs"].items())
        used = "yes" if of["used"] else "no claim is about this setting"
        rows.append(
            [
                Cell(of["name"]),
                Cell(of["setting"]),
                Cell(", ".join(of["methods"])),
                Cell(str(len(of["seeds"])), value=len(of["seeds"])),
                Cell(states),
                Cell(used),
            ]
        )
    heads = ["comparison", "experiment", "methods", "seeds", "runs", "used"]
    return Grid(GROUP, "Comparisons", "what the claims were tested on", heads, rows)
