"""What a study found, in sentences, from its summary."""

from __future__ import annotations

from maxsup.lab.records import Json
from maxsup.lab.report import numbers

REHEARSAL = "REHEARSAL"


def verdict(summary: Json) -> list[str]:
    """The sentences of the verdict; together they make one paragraph."""
    sentences = []
    if summary["rehearsal"]:
        papers = "of the paper's; the paper's stand beside them as what the whole study is for"
        sentences.append(
            f"{REHEARSAL}: the experiment was made smaller or changed, so these numbers show that it runs and nothing "
            f"{papers if summary['published'] else 'else'}."
        )
    states: dict[str, int] = {}
    for of in summary["comparisons"].values():
        for state, count in of["runs"].items():
            states[state] = states.get(state, 0) + count
    others = ", ".join(f"{count} {state}" for state, count in sorted(states.items()) if state != "finished")
    total = sum(states.values())
    sentences.append(f"{states.get('finished', 0)} of {total} runs are finished{f' ({others})' if others else ''}.")
    # The study's own questions; all rows against the first would be a list as long as the table.
    sentences += [
        _contrast(summary, contrast)
        for place, contrast in enumerate(summary["contrasts"])
        if contrast.get("told", place > 0)  # a record without the word has one of that kind, the first
    ]
    return sentences


def _contrast(summary: Json, contrast: Json) -> str:
    several = len({pair["row"] for pair in contrast["pairs"]}) > 1
    found: dict[str, list[str]] = {}
    for pair in contrast["pairs"]:
        measure = summary["columns"][pair["of"][1]]["measure"]
        outcome = pair["outcome"]
        if outcome == "significant":
            outcome = "significantly higher" if pair["mean"] > 0 else "significantly lower"
        if outcome == "n too small":
            outcome = f"too few pairs to tell (n ≥ {pair['least_n']} can)"
        shown = numbers.signed(pair, measure)
        if pair["paper"] is not None:
            shown += f"; the paper {numbers.plain_signed(pair['paper'], measure)}"
        name = f"{pair['row']} at {pair['column']}" if several else pair["column"]
        found.setdefault(outcome, []).append(f"{name} ({shown})")
    order = ("significantly higher", "significantly lower", "not seen")
    ranked = sorted(found.items(), key=lambda of: order.index(of[0]) if of[0] in order else len(order))
    words = {"not seen": "no significant difference seen", "untested": "not tested"}
    parts = [f"{words.get(outcome, outcome)} in {', '.join(names)}" for outcome, names in ranked]
    return f"{contrast['title']}: {'; '.join(parts)}."
