"""From the records of a comparison to its summary: plain numbers, which every table and page shows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from maxsup.lab.records import Comparison, Json, RunRecord
from maxsup.lab.statistics import describe, paired_difference


@dataclass(frozen=True)
class Measure:
    """One column: where it stands in a run's result, and how it is shown."""

    split: str
    name: str
    title: str
    meaning: str
    percent: bool = False

    @property
    def key(self) -> str:
        """Its name in the summary."""
        return f"{self.split}.{self.name}"


MEASURES = (
    Measure("test", "accuracy", "accuracy %", "share of test images classified right", percent=True),
    Measure("test", "nll", "NLL", "mean negative log-likelihood of the true class on the test images, in nats"),
    Measure("test", "ece", "ECE", "expected calibration error, 15 equal-width bins, before temperature scaling"),
    Measure("test", "confidence_right", "conf. right", "mean probability of the top-1 class where it is right"),
    Measure("test", "confidence_wrong", "conf. wrong", "mean probability of the top-1 class where it is wrong"),
    Measure("train", "d_within", "d_within train", "mean cosine distance within a class, training images"),
    Measure("test", "d_within", "d_within test", "the same, test images"),
    Measure(
        "train", "r_squared", "R² train", "share of the cosine distance that lies between classes, training images"
    ),
    Measure("test", "r_squared", "R² test", "the same, test images"),
)


def _values(runs: list[RunRecord], measure: Measure) -> dict[int, float]:
    """The measure by seed; runs that did not finish, and undefined values, are left out."""
    found = {}
    for run in runs:
        value = run.result.get("measures", {}).get(measure.split, {}).get(measure.name)
        if run.status == "finished" and value is not None:
            found[run.seed] = float(value)
    return found


def summarize(comparison: Comparison) -> Json:
    """Mean, std, interval per method and measure; the paired difference from the first method; the runs' states.

    Wall-clock times stand under ``times`` and nowhere else: without them, the summaries of two runs of one comparison
    on one machine are equal.
    """
    reference, *_ = comparison.methods
    methods = {}
    for method in comparison.methods:
        runs = comparison.of_method(method)
        states = [run.status for run in runs]
        measures = {}
        for measure in MEASURES:
            values = _values(runs, measure)
            entry: Json = dataclasses.asdict(describe(list(values.values())))
            entry["values"] = {str(seed): value for seed, value in values.items()}
            if method != reference:
                base = _values(comparison.of_method(reference), measure)
                entry["difference"] = dataclasses.asdict(paired_difference(values, base))
            measures[measure.key] = entry
        methods[method] = {
            "runs": {state: states.count(state) for state in sorted(set(states))},
            "measures": measures,
        }
    finished = [run for run in comparison.runs if run.status == "finished"]
    return {
        "recipe": comparison.recipe,
        "seeds": comparison.seeds,
        "reference": reference,
        "methods": methods,
        "times": {
            f"{run.method}/seed-{run.seed}": {
                "started": run.info.get("started"),
                **{f"{name}_seconds": value for name, value in run.result.get("seconds", {}).items()},
            }
            for run in finished
        },
    }
