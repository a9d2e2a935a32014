"""From the records of a comparison to its summary: plain numbers, which every table and page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from maxsup.lab.names import lookup
from maxsup.lab.records import Comparison, Json, RunRecord
from maxsup.lab.report import measures, robustness, segmentation
from maxsup.lab.report.analyses import ANALYSIS, OUTPUTS, Analyses, read_analyses
from maxsup.lab.report.published import published
from maxsup.lab.report.verdict import verdict
from maxsup.lab.statistics import LEVEL, describe, judge_family, paired_difference


def summarize(comparison: Comparison, reference: str | None = None) -> Json:
    """Everything that the tables, the verdict and the page say, as plain values.

    ``methods``: per method and measure the mean, std and interval, and the paired difference from `reference` (the
    first method, unless named) with its tests, corrected over the methods. ``groups``: which measures make which
    table, and what is missing there. Measures that no run has are absent, except those that every run has when it is
    finished. Wall-clock times stand under ``times`` and nowhere else: without them, the summaries of two runs of one
    comparison on one machine are equal.

    Raises:
        UnknownNameError: if `reference` is no method of the comparison.
    """
    if reference is None:
        reference = comparison.methods[0]
    lookup("method of this comparison", reference, dict.fromkeys(comparison.methods))
    analyses = {(run.method, run.seed): read_analyses(run) for run in comparison.runs}
    found = {key for of in analyses.values() for key in of.values}
    groups = measures.groups(
        found=found,
        probed={data for of in analyses.values() for data in of.fits},
        masks={data: thresholds for of in analyses.values() for data, thresholds in of.thresholds.items()},
    )
    groups += robustness.groups(
        found={key for of in analyses.values() for key in of.values},
        corruptions={kind: family for of in analyses.values() for kind, family in of.corruptions.items()},
    )
    segmented = {label: classes for of in analyses.values() for label, classes in of.segmented.items()}
    groups.append(segmentation.group(segmented, found))
    methods: dict[str, Json] = {}
    for method in comparison.methods:
        states = [run.status for run in comparison.of_method(method)]
        methods[method] = {
            "runs": {state: states.count(state) for state in sorted(set(states))},
            "measures": {},
            "fits": _fits([analyses[method, seed] for seed in comparison.seeds]),
        }
    for table in (table for group in groups for table in group.tables):
        for measure in table.measures:
            if measure.key in methods[reference]["measures"]:  # in an earlier table too, with its differences
                continue
            values = {
                method: {
                    seed: analyses[method, seed].values[measure.key]
                    for seed in comparison.seeds
                    if measure.key in analyses[method, seed].values
                }
                for method in comparison.methods
            }
            for method, entry in _entries(values, reference, table.differences).items():
                methods[method]["measures"][measure.key] = entry
    finished = [run for run in comparison.runs if run.status == "finished"]
    summary: Json = {
        "recipe": comparison.recipe,
        "seeds": comparison.seeds,
        "reference": reference,
        "level": LEVEL,
        "methods": methods,
        "groups": [
            asdict(group) | {"notes": _notes(group, [analyses[run.method, run.seed] for run in finished])}
            for group in groups
        ],
        "problems": [asdict(problem) for of in analyses.values() for problem in of.problems],
        "published": published(comparison.recipe),
        "times": {f"{run.method}/seed-{run.seed}": _times(run) for run in finished},
    }
    return summary | {"verdict": verdict(summary)}


def _entries(values: dict[str, dict[int, float]], reference: str, differences: bool) -> dict[str, Json]:
    """One measure's entries by method, from its values by method and seed."""
    entries: dict[str, Json] = {}
    for method, of in values.items():
        entries[method] = asdict(describe(list(of.values()))) | {"values": {str(seed): x for seed, x in of.items()}}
    if differences:
        paired = {
            method: paired_difference(of, values[reference]) for method, of in values.items() if method != reference
        }
        for method, judgement in judge_family(paired).items():
            entries[method]["difference"] = asdict(paired[method]) | asdict(judgement)
    return entries


def _fits(analyses: Sequence[Analyses]) -> Json:
    """Per probed data set, the fits of all the method's probes that did not converge, and all of them."""
    fits: Json = {}
    for of in analyses:
        for data, (unconverged, total) in of.fits.items():
            before = fits.setdefault(data, {"unconverged": 0, "total": 0})
            fits[data] = {"unconverged": before["unconverged"] + unconverged, "total": before["total"] + total}
    return fits


def _notes(group: measures.Group, finished: Sequence[Analyses]) -> list[str]:
    """What a reader of the group's tables must know: records that are missing, damaged or not alike."""
    notes = list(dict.fromkeys(of.remarks[group.name] for of in finished if group.name in of.remarks))
    if group.record is None:
        return notes
    notes += [
        f"{problem.run}: {problem.file}: {problem.reason}"
        for of in finished
        for problem in of.problems
        if problem.file.startswith(group.record) or (group.record == ANALYSIS and problem.file == OUTPUTS)
    ]
    files = sorted({file for of in finished for file in of.settings if file.startswith(group.record)})
    for file in files:
        damaged = {problem.run for of in finished for problem in of.problems if problem.file == file}
        absent = [of.run for of in finished if file not in of.settings and of.run not in damaged]
        if absent:
            notes.append(f"{file} is missing for {', '.join(absent)}.")
        settings = [of.settings[file] for of in finished if file in of.settings]
        if any(other != settings[0] for other in settings[1:]):
            notes.append(f"{file} was made with different settings in different runs: they are not comparable.")
    if not files:
        notes.append(group.absent)
    bound = [of.run for of in finished if of.at_bound]
    if group.name == measures.CALIBRATION.name and bound:
        notes.append(f"The temperature stopped at the bound of its search: {', '.join(bound)}.")
    return notes


def _times(run: RunRecord) -> Json:
    return {
        "started": run.info.get("started"),
        **{f"{name}_seconds": value for name, value in run.result.get("seconds", {}).items()},
    }
