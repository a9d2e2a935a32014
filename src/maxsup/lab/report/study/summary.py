"""From the records of a study and of its comparisons to the study's summary, in plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from maxsup.lab import records
from maxsup.lab.records import Comparison, Json, RecordError
from maxsup.lab.report.analyses import read_analyses
from maxsup.lab.report.study.verdict import verdict
from maxsup.lab.statistics import LEVEL, PairedDifference, describe, judge_family, paired_difference

NAME = "study.json"


Values = dict[int, float]
"""A measure by seed."""


def summarize_study(directory: Path) -> Json:
    """Everything that a study's report says, as plain values.

    ``cells``: per row and column the mean, std and 95% interval of ours, the paper's number, and ours less the paper's
    under ``difference``: only where that is the same experiment, no rehearsal and with no setting that differs.
    ``contrasts``: paired differences between cells with their tests, beside the difference of the paper's means.
    ``comparisons``: the states of their runs. ``published``: whether the paper has numbers for any cell.

    Raises:
        RecordError: if `directory` holds no study, or one of its comparisons is missing.
    """
    if not (directory / NAME).is_file():
        raise RecordError(f"{directory}: no study here ({NAME} is missing)")
    study = records.read_json(directory / NAME)
    comparisons = {
        name: records.read_comparison((directory / of["path"]).resolve()) for name, of in study["comparisons"].items()
    }
    measured = {
        (name, run.method, run.seed): read_analyses(run).values
        for name, comparison in comparisons.items()
        for run in comparison.runs
    }
    values: dict[tuple[int, int], Values] = {}
    for cell in study["cells"]:
        key = study["columns"][cell["column"]]["measure"]["key"]
        values[cell["row"], cell["column"]] = {
            seed: of[key]
            for (name, method, seed), of in measured.items()
            if (name, method) == (cell["comparison"], cell["method"]) and key in of
        }
    cells = [_cell(cell, values[cell["row"], cell["column"]], study["rehearsal"]) for cell in study["cells"]]
    summary: Json = {
        **{name: study[name] for name in ("study", "table", "title", "rehearsal", "columns", "rows")},
        "published": any(cell["paper"]["mean"] is not None for cell in study["cells"]),
        "level": LEVEL,
        "cells": cells,
        "contrasts": [_contrast(contrast, values, cells) for contrast in study["contrasts"]],
        "comparisons": {
            name: {**study["comparisons"][name], **_state(comparison, _methods(study, name))}
            for name, comparison in comparisons.items()
        },
    }
    return summary | {"verdict": verdict(summary)}


def _methods(study: Json, comparison: str) -> list[str]:
    """Those of a comparison's methods that are the study's; it can have more, of another study."""
    return list(dict.fromkeys(cell["method"] for cell in study["cells"] if cell["comparison"] == comparison))


def _state(comparison: Comparison, methods: list[str]) -> Json:
    runs = [run for run in comparison.runs if run.method in methods]
    states = [run.status for run in runs]
    return {
        "recipe": comparison.recipe["name"],
        "methods": methods,
        "seeds": comparison.seeds,
        "runs": {state: states.count(state) for state in sorted(set(states))},
    }


def _cell(cell: Json, values: Values, rehearsal: bool) -> Json:
    of, paper = describe(list(values.values())), cell["paper"]["mean"]
    same = not rehearsal and not cell["differs"]
    return {
        **cell,
        **asdict(of),
        "values": {str(seed): value for seed, value in values.items()},
        "difference": of.mean - paper if same and of.mean is not None and paper is not None else None,
    }


def _contrast(contrast: Json, values: Mapping[tuple[int, int], Values], cells: list[Json]) -> Json:
    printed = {(cell["row"], cell["column"]): cell["paper"]["mean"] for cell in cells}
    families: dict[str, dict[str, PairedDifference]] = {}
    for place, pair in enumerate(contrast["pairs"]):
        family = families.setdefault(pair["column"] if contrast["by_column"] else "", {})
        family[str(place)] = paired_difference(values[tuple(pair["of"])], values[tuple(pair["than"])])
    judged = {
        place: asdict(of) | asdict(judgement)
        for family in families.values()
        for (place, judgement), of in zip(judge_family(family).items(), family.values(), strict=True)
    }
    pairs = []
    for place, pair in enumerate(contrast["pairs"]):
        of, than = printed[tuple(pair["of"])], printed[tuple(pair["than"])]
        paper = None if of is None or than is None else of - than
        pairs.append({**pair, **judged[str(place)], "paper": paper})
    return {**contrast, "pairs": pairs}
