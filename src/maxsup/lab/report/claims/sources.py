"""The comparisons under a folder, as far as claims need them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from maxsup.lab import records
from maxsup.lab.recipes import with_defaults
from maxsup.lab.records import Comparison, Json, RecordError, RunRecord
from maxsup.lab.report import measures, segmentation
from maxsup.lab.report.analyses import OUTPUTS, Problem, read_analyses
from maxsup.lab.report.fields import flat
from maxsup.lab.report.measures import Measure
from maxsup.lab.report.tables import reason

Values = dict[int, float]
"""A measure by seed."""


@dataclass(frozen=True)
class Source:
    """A comparison under the name of its folder: its recipe as flat fields, and the values of every finished run."""

    name: str
    comparison: Comparison
    recipe: Json
    values: dict[tuple[str, int], dict[str, float]]
    settings: dict[tuple[str, int], dict[str, Json]]
    """By run and by the record's file name."""
    columns: dict[str, Measure]
    problems: list[tuple[Path, Problem]]

    def found(self, methods: list[str]) -> set[str]:
        """Keys of the measures that some run of these methods has."""
        return {key for (method, _), of in self.values.items() if method in methods for key in of}

    def measured(self, method: str, key: str) -> Values:
        """One measure of a method's runs."""
        return {seed: of[key] for (name, seed), of in self.values.items() if name == method and key in of}

    def missing(self, method: str, key: str) -> list[str]:
        """A line for each of a method's runs that has no such value, and why."""
        lines = []
        for run in self.comparison.of_method(method):
            if key in self.values.get((method, run.seed), {}):
                continue
            of = f"{method} seed {run.seed}"
            if run.status != "finished":
                lines.append(f"{self.name}: {of} {run.status}: {reason(run)}")
                continue
            why = [
                f"{problem.file}: {problem.reason}"
                for _, problem in self.problems
                if problem.run == of and _holds(problem.file, key)
            ]
            lines.append(f"{self.name}: {of}: {'; '.join(why) or f'has no {key}'}")
        return lines

    def unlike(self, methods: list[str], key: str) -> list[str]:
        """A line for each kind of record that gives the measure and was not made alike for all runs of the methods."""
        settings: dict[str, list[Json]] = {}
        for (method, _), of in self.settings.items():
            for file, made in of.items():
                if method in methods and _holds(file, key):
                    settings.setdefault(file, []).append(made)
        return [
            f"{self.name}: {file} was made with different settings in different runs: they are not comparable."
            for file, made in settings.items()
            if any(other != made[0] for other in made)
        ]

    def setting(self) -> str:
        """The experiment in a line: data, network, α, and what is unusual."""
        of = self.recipe
        data = str(of["data.name"])
        if of["data.train_size"] is not None:
            data += f", {of['data.train_size']:,} images"
        if of["data.classes"] is not None:
            data += f", {len(of['data.classes'])} classes"
        start, end, schedule = (of[f"alpha.{name}"] for name in ("start", "end", "schedule"))
        constant = schedule == "constant" or start == end
        parts = [data, str(of["model.name"]), f"α {start:g}" if constant else f"α {start:g} → {end:g} {schedule}"]
        if of["data.label_noise"]:
            parts.append(f"{of['data.label_noise']:.0%} wrong labels ({of['data.noise_kind']})")
        if of["data.imbalance"] not in (None, 1):
            parts.append(f"imbalance {of['data.imbalance']:g}")
        return "; ".join(parts)


def read_sources(directory: Path) -> list[Source]:
    """Every comparison at or under `directory`, sorted by folder.

    Runs that are missing, unfinished, diverged, failed or damaged have no values; damaged records beside a run are
    among the source's `problems`.

    Raises:
        RecordError: if there is no comparison, or a ``comparison.json`` is damaged; it names the file.
    """
    if not directory.is_dir():
        raise RecordError(f"{directory}: no such folder")
    folders = []
    for path, below, files in os.walk(directory):
        below.sort()
        if "comparison.json" in files:
            folders.append(Path(path))
            below.clear()  # what is below are its runs
    if not folders:
        raise RecordError(f"{directory}: no comparison here or in a folder below (comparison.json is missing)")
    return [_source(folder, _name(folder, directory)) for folder in folders]


def _name(folder: Path, directory: Path) -> str:
    return folder.resolve().name if folder == directory else folder.relative_to(directory).as_posix()


def _source(folder: Path, name: str) -> Source:
    try:
        comparison = records.read_comparison(folder)
        recipe = flat(with_defaults(comparison.recipe))
    except (KeyError, TypeError, AttributeError) as error:  # whole JSON, but not what such a record holds
        file = folder / "comparison.json"
        raise RecordError(f"{file}: not such a record ({type(error).__name__}: {error})") from error
    finished = [run for run in comparison.runs if run.status == "finished"]
    analyses = {(run.method, run.seed): read_analyses(run) for run in finished}
    found = {key for of in analyses.values() for key in of.values}
    groups = measures.groups(
        found=found,
        probed={data for of in analyses.values() for data in of.fits},
        masks={data: thresholds for of in analyses.values() for data, thresholds in of.thresholds.items()},
    )
    segmented = {label: classes for of in analyses.values() for label, classes in of.segmented.items()}
    groups.append(segmentation.group(segmented, found))
    return Source(
        name,
        comparison,
        recipe,
        {run: of.values for run, of in analyses.items()},
        {run: of.settings for run, of in analyses.items()},
        {measure.key: measure for group in groups for table in group.tables for measure in table.measures},
        # Claims are about measures; the images' own outputs, which archives leave out, are not read for them.
        [
            (run.path / problem.file, problem)
            for run in finished
            for problem in analyses[run.method, run.seed].problems
            if problem.file != OUTPUTS
        ],
    )


def _holds(file: str, key: str) -> bool:
    """Whether a measure comes from the record `file` of a run: ``probe.digits.linear`` from ``probe-digits.json``."""
    kind, dash, data = file.partition("/")[0].removesuffix(".json").partition("-")
    if dash:
        return key.startswith(f"{kind}.{data}.")
    return file == "result.json" and key.partition(".")[0] in ("train", "test")


def damage(run: RunRecord) -> str | None:
    """What is wrong with a run's own records, after the path; None where they are whole, as of a failed attempt."""
    error = run.path / "error.txt"
    failed = error.read_text(encoding="utf-8", errors="replace") if error.exists() else None
    if run.status != "failed" or run.problem is None or run.problem == failed:
        return None
    kind, _, message = run.problem.partition(": ")
    return message if message.startswith(str(run.path)) else f"{run.path}: {kind}: {message}"
