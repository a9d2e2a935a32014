"""The verdict of a comparison in sentences, from its summary.

The exact sign-flip test decides, corrected after Holm over the methods of one measure. What n seeds cannot show is
called neither significant nor absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from maxsup.lab.records import Json
from maxsup.lab.report import numbers

OURS = "max-sup"
# The measures of the paper's argument and its price, by their key, and what the sentences call them.
KEY_MEASURES = {
    "test.accuracy": "accuracy",
    "test.confidence_wrong": "confidence when wrong",
    "test.nll": "NLL",
    "test.ece_scaled": "ECE after temperature scaling",
    "test.d_within": "within-class variation (d_within)",
    "test.r_squared": "class separation (R²)",
}


def key_measures(summary: Json) -> dict[str, tuple[str, Json]]:
    """Name in a sentence and column of the measures that the verdict is about and that some run has, by key."""
    columns = {
        column["key"]: column
        for group in summary["groups"]
        for table in group["tables"]
        for column in table["measures"]
    }
    named = {key: name for key, name in KEY_MEASURES.items() if key in columns}
    for key in columns:
        if key.startswith("probe.") and key.endswith(".linear"):
            named[key] = f"linear probe on {key.removeprefix('probe.').removesuffix('.linear')}"
        if key.startswith("segment.") and key.endswith(".single.miou"):
            named[key] = f"mean IoU on {key.removeprefix('segment.').removesuffix('.single.miou')}"
    return {key: (name, columns[key]) for key, name in named.items()}


def verdict(summary: Json) -> list[str]:
    """The sentences of the verdict; together they make one paragraph."""
    reference = summary["reference"]
    others = [method for method in summary["methods"] if method != reference]
    if not others:
        return [f"{reference} alone was run: there is nothing to compare."]
    family = "" if len(others) == 1 else f" over {len(others)} methods"
    corrected = f" after Holm's correction{family}" if family else ""
    basis = (
        f"Differences are from {reference}, paired by seed, and count as significant where the exact sign-flip test "
        f"has p ≤ {summary['level']:g}{corrected}."
    )
    floor = _floor(summary, others, family)
    if not can_tell(summary):
        return [floor, "So no difference is called significant here, and none absent.", basis]
    measures = key_measures(summary)
    on_measures = [_on_measure(summary, others, key, name, column) for key, (name, column) in measures.items()]
    return [*_balance(summary, measures), *on_measures, basis, floor]


def can_tell(summary: Json) -> bool:
    """Whether some key measure of some method has pairs enough for the exact test to show anything."""
    return any(
        _difference(summary, method, key)["outcome"] in ("significant", "not seen")
        for method in summary["methods"]
        if method != summary["reference"]
        for key in key_measures(summary)
    )


def _difference(summary: Json, method: str, key: str) -> Json:
    of: Json = summary["methods"][method]["measures"][key]["difference"]
    return of


def _floor(summary: Json, others: Sequence[str], family: str) -> str:
    """What the number of pairs can show at all, by the pairs on accuracy."""
    pairs = [_difference(summary, method, "test.accuracy") for method in others]
    level, least = f"{100 * summary['level']:g}%", pairs[0]["least_n"]
    most = max(of["n"] for of in pairs)
    if most == 0:
        return "No seed was finished by both, so nothing can be said."
    floor = f"the exact test's p cannot be below 2/2ⁿ = {2 / 2**most:.2g}"
    if len(others) > 1:
        floor += f", and Holm multiplies the smallest by {len(others)}"
    if most < least:
        return f"n = {most} cannot show a difference at {level}{family}: {floor}; it takes n ≥ {least}."
    return f"With n = {most} {floor}: n ≥ {least} can show a difference at {level}."


def _on_measure(summary: Json, others: Sequence[str], key: str, name: str, column: Json) -> str:
    """One sentence: which methods differ significantly, in which direction, and what was not seen."""
    parts = []
    by_outcome: dict[str, list[str]] = {}
    found: list[tuple[float, str]] = []
    for method in others:
        of = _difference(summary, method, key)
        outcome = of["outcome"]
        if outcome == "significant":
            outcome = "higher" if of["mean"] > 0 else "lower"
        shown = f"n = {of['n']}" if outcome == "n too small" else numbers.signed(of, column)
        if outcome == "not seen" and of["detectable"]:
            found.append((of["detectable"], numbers.effect(of["detectable"], of, column)))
        by_outcome.setdefault(outcome, []).append(method if outcome == "untested" else f"{method} ({shown})")
    for direction in ("higher", "lower"):
        if direction in by_outcome:
            parts.append(f"significantly {direction}{_judged(column, direction)} with {_list(by_outcome[direction])}")
    if "not seen" in by_outcome:
        chance = f", where one of {max(found)[1]} had an 80% chance to be found" if found else ""
        parts.append(f"no significant difference seen for {_list(by_outcome['not seen'])}{chance}")
    if "n too small" in by_outcome:
        parts.append(f"too few pairs to tell for {_list(by_outcome['n too small'])}")
    if "untested" in by_outcome:
        parts.append(f"not tested for {_list(by_outcome['untested'])}")
    unit = " in percentage points" if column["percent"] else ""
    return f"{name[0].upper()}{name[1:]}{unit}: {'; '.join(parts)}."


def _judged(column: Json, direction: str) -> str:
    return "" if column["better"] is None else " (better)" if column["better"] == direction else " (worse)"


def _balance(summary: Json, measures: dict[str, tuple[str, Json]]) -> Iterator[str]:
    """Where MaxSup loses and where it wins, against the reference, or as the reference against each other method."""
    reference = summary["reference"]
    if reference == OURS:
        rivals = {method: (method, -1) for method in summary["methods"] if method != OURS}
    else:
        rivals = {reference: (OURS, 1)} if OURS in summary["methods"] else {}
    for rival, (method, sign) in rivals.items():
        found: dict[str, list[str]] = {"loses": [], "wins": [], "not seen": [], "too few": []}
        for key, (name, column) in measures.items():
            of = _difference(summary, method, key)
            if of["outcome"] == "significant":
                better = (sign * of["mean"] > 0) == (column["better"] == "higher")
                found["wins" if better else "loses"].append(name)
            else:
                found["not seen" if of["outcome"] == "not seen" else "too few"].append(name)
        told = {
            "loses": "it loses in",
            "wins": "it wins in",
            "not seen": "no difference was seen in",
            "too few": "too few pairs leave open",
        }
        parts = [f"{words} {_list(found[kind])}" for kind, words in told.items() if found[kind]]
        yield f"{OURS} against {rival}: {'; '.join(parts)}."


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
