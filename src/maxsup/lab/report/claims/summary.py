"""From the records of comparisons to the verdict of each claim, in plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

from maxsup.lab.records import Json
from maxsup.lab.report.claims.claim import Claim, Expected, Topic
from maxsup.lab.report.claims.paper import TOPICS
from maxsup.lab.report.claims.sources import Source, Values, damage, read_sources
from maxsup.lab.report.measures import Measure
from maxsup.lab.statistics import LEVEL, POWER, Judgement, PairedDifference, describe, judge_family, paired_difference

Verdict = Literal[  # in the order in which they count for a claim
    "confirmed here",
    "contradicted here",
    "not seen",
    "cannot be shown with this n",
    "not tested: too many pairs",
    "not measured",
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


def summarize_claims(directory: Path, topics: Sequence[Topic] = TOPICS) -> Json:
    """Every claim with its rows: one for each comparison under `directory`, and measure, that it applies to.

    A row has the paired difference, its tests and the verdict; Holm's correction is over the rows of one claim.
    ``comparisons`` are those found with their settings and the states of their runs, ``unusable`` the damaged
    records, by path.

    Raises:
        RecordError: if there is no comparison at or under `directory`, or a ``comparison.json`` is damaged.
    """
    sources = read_sources(directory)
    summary: Json = {
        "level": LEVEL,
        "power": POWER,
        "topics": [
            {"title": topic.title, "note": topic.note, "claims": [_claim(claim, sources) for claim in topic.claims]}
            for topic in topics
        ],
    }
    used = {
        name
        for topic in summary["topics"]
        for claim in topic["claims"]
        for row in claim["rows"]
        for name in (row["comparison"], row["twin"])
    }
    summary["comparisons"] = [_comparison(source, source.name in used) for source in sources]
    summary["unusable"] = [line for source in sources for line in _unusable(source)]
    return summary


def _comparison(source: Source, used: bool) -> Json:
    states = [run.status for run in source.comparison.runs]
    return {
        "name": source.name,
        "setting": source.setting(),
        "recipe": source.recipe["name"],
        "methods": source.comparison.methods,
        "seeds": source.comparison.seeds,
        "runs": {state: states.count(state) for state in sorted(set(states))},
        "used": used,
    }


def _unusable(source: Source) -> list[str]:
    runs = [line for run in source.comparison.runs if (line := damage(run)) is not None]
    return runs + [f"{path}: {problem.reason}" for path, problem in source.problems]


def _claim(claim: Claim, sources: Sequence[Source]) -> Json:
    rows: list[Json] = []
    differences: dict[str, PairedDifference] = {}
    for source in sources:
        for twin in _twins(claim, source, sources):
            both = [source] if twin is None else [source, twin]
            for key in claim.keys(set.intersection(*(of.found(claim.methods) for of in both))):
                differences[str(len(rows))] = _difference(claim, key, source, twin)
                rows.append(_row(claim, key, source, twin))
    judged = judge_family(differences) if differences else {}
    for place, of in differences.items():
        row, judgement = rows[int(place)], judged[place]
        row |= asdict(of) | asdict(judgement) | {"verdict": _verdict(claim.expected, of, judgement)}
    verdicts = [str(row["verdict"]) for row in rows]
    return {
        "name": claim.name,
        "statement": claim.statement,
        "where": claim.where,
        "measure": claim.measure,
        "of": claim.of,
        "than": claim.than,
        "expected": claim.expected,
        "setting": claim.setting.words,
        "printed": list(claim.printed),
        "commands": list(claim.commands),
        "verdict": overall(verdicts),
        "counts": {verdict: verdicts.count(verdict) for verdict in VERDICTS if verdict in verdicts},
        "rows": rows,
    }


def _twins(claim: Claim, source: Source, sources: Sequence[Source]) -> list[Source | None]:
    """The second comparisons with which `source` gives a row each; a lone None where the claim needs no second."""

    def fits(of: Source) -> bool:
        return set(claim.methods) <= set(of.comparison.methods)

    if not fits(source) or not claim.setting.holds(source.recipe):
        return []
    twin = claim.twin
    if twin is None:
        return [None]
    return [
        of
        for of in sources
        if of is not source
        and fits(of)
        and twin.setting.holds(of.recipe)
        and twin.differs_only_here(source.recipe, of.recipe)
    ]


def _less_twin(method: str, key: str, source: Source, twin: Source | None) -> Values:
    """A method's values, or where there is a twin their differences from its own there."""
    values = source.measured(method, key)
    if twin is None:
        return values
    there = twin.measured(method, key)
    return {seed: value - there[seed] for seed, value in values.items() if seed in there}


def _sides(claim: Claim, key: str, source: Source, twin: Source | None) -> tuple[Values, Values]:
    """What is compared: two methods, or one method here and in the twin."""
    if claim.than is None:
        assert twin is not None  # a claim without both is none
        return source.measured(claim.of, key), twin.measured(claim.of, key)
    return _less_twin(claim.of, key, source, twin), _less_twin(claim.than, key, source, twin)


def _difference(claim: Claim, key: str, source: Source, twin: Source | None) -> PairedDifference:
    return paired_difference(*_sides(claim, key, source, twin))


def _row(claim: Claim, key: str, source: Source, twin: Source | None) -> Json:
    of, than = _sides(claim, key, source, twin)
    pairs = sorted(of.keys() & than.keys())
    both = [source] if twin is None else [source, twin]
    columns: dict[str, Measure] = {name: column for one in both for name, column in one.columns.items()}
    return {
        "comparison": source.name,
        "twin": None if twin is None else twin.name,
        "measure": asdict(columns[key]),
        "seeds": pairs,
        "of_mean": describe([of[seed] for seed in pairs]).mean,
        "than_mean": describe([than[seed] for seed in pairs]).mean,
        "remarks": [line for one in both for line in one.unlike(claim.methods, key)],
        "left_out": [line for one in both for method in claim.methods for line in one.missing(method, key)],
    }


def _verdict(expected: Expected, of: PairedDifference, judgement: Judgement) -> Verdict:
    if judgement.outcome == "significant":
        assert of.mean is not None  # what has a p has a mean
        return "confirmed here" if (of.mean > 0) == (expected == "higher") else "contradicted here"
    if judgement.outcome == "not seen":
        return "not seen"
    if judgement.outcome == "n too small":
        return "cannot be shown with this n"
    return "not measured" if of.n == 0 else "not tested: too many pairs"


def overall(verdicts: Sequence[str]) -> str:
    """One verdict of a claim's rows: what any row shows counts before what others do not.

    >>> overall(["not seen", "confirmed here"]), overall(["contradicted here", "confirmed here"]), overall([])
    ('confirmed here', 'mixed', 'not measured')
    """
    if {"confirmed here", "contradicted here"} <= set(verdicts):
        return "mixed"
    return next((verdict for verdict in VERDICTS if verdict in verdicts), "not measured")
