"""Makes a study: its comparisons, what is measured on their runs afterwards, and its record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maxsup.lab import analysis_commands, data, progress, records
from maxsup.lab.analysis import probe as probing
from maxsup.lab.analysis.batch import Outcome
from maxsup.lab.compare import compare, open_comparison
from maxsup.lab.executors import Executor
from maxsup.lab.names import lookup
from maxsup.lab.recipes import Data, Recipe
from maxsup.lab.records import RunRecord
from maxsup.lab.report import study as study_report
from maxsup.lab.report import write_report
from maxsup.lab.studies.scale import scaled
from maxsup.lab.studies.study import Study, as_record, changes


@dataclass(frozen=True)
class Probe:
    """The images of a probe other than the study's, or the folder of their files; None: where the training images are.

    That folder is meant for the same data set only, other images are then looked for where they usually are.
    """

    data: Data
    data_dir: Path | None = None


def study_directory(study: Study, directory: Path) -> Path:
    """Where a study of `directory` keeps its record and report; its comparisons lie beside it."""
    return directory / f"study-{study.name}"


def with_scale(recipe: Recipe, scale: float, images: Data, data_dir: Path | None) -> Recipe:
    """The recipe `scaled` by `scale` for `images`, of which there are as many as their files hold.

    Raises:
        DataError: if the data is absent or damaged.
        ValueError: if `scale` is not above 0 and at most 1.
    """
    if scale == 1:
        return recipe
    return scaled(recipe, scale, len(data.load(images, data_dir).train))


def run(
    original: Study,
    recipes: Mapping[str, Recipe],
    seeds: Sequence[int] | None,
    directory: Path,
    *,
    workers: int | None = None,
    data_dir: Path | None = None,
    executor: Executor | None = None,
    probe: Probe | None = None,
    only: Sequence[str] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Makes everything of the study `original` with `recipes` that `directory` lacks; returns what went wrong.

    Each variant is a comparison in a folder of its name, so that studies which train the same share it in one
    `directory`; the study's own record and report are in ``study-<name>``. `seeds` are those of every variant, None
    takes its own. `executor` makes the runs, as in `compare`. `only` names the variants to make, None for all. `tell`
    gets a line before each part.

    Raises:
        UnknownNameError: if `only` has a name of no variant.
        ValueError: if `only` is empty.
        RecordError: if a folder holds a comparison with another recipe; nothing has been trained then.
        DataError: if data is absent or damaged; nothing has been trained then.
    """
    study = original.with_recipes(recipes)
    variants = {variant.name: variant for variant in study.variants}
    if only is not None and not only:
        raise ValueError(f"only must name a comparison at least, got none; there are {', '.join(variants)}")
    for name in only or ():
        lookup("comparison", name, variants)
    if study.probe is None:
        probe = None
    elif probe is None:
        probe = Probe(study.probe)
    for of in {variant.recipe.data for variant in study.variants}:
        data.load(of, data_dir)
    if probe is not None:
        known = {variant.recipe.data.name for variant in study.variants}
        if probe.data_dir is None and probe.data.name in known:
            probe = dataclasses.replace(probe, data_dir=data_dir)
        data.load(probe.data, probe.data_dir)
    seeds_of = {of.name: of.seeds if seeds is None else seeds for of in study.variants}
    for variant in study.variants:
        methods = study.methods(variant.name)
        open_comparison(variant.recipe, methods, seeds_of[variant.name], directory / variant.name)
    changed = changes(original, study)
    rehearsal = any(changed.values()) or (probe is not None and probe.data != study.probe)
    record = study_directory(study, directory) / study_report.NAME
    records.write_json(record, as_record(study, changed, rehearsal))
    problems: list[str] = []
    for place, variant in enumerate(study.variants, start=1):
        if only is not None and variant.name not in only:
            continue
        tell(f"{study.name}: {variant.name}, comparison {place} of {len(study.variants)}")
        methods, target = study.methods(variant.name), directory / variant.name
        problems += train(
            variant.recipe,
            methods,
            seeds_of[variant.name],
            target,
            workers=workers,
            data_dir=data_dir,
            executor=executor,
        )
        finished = [
            run for run in records.read_comparison(target).runs if run.status == "finished" and run.method in methods
        ]
        if finished and study.analyze:
            problems += _problems(analysis_commands.analyze(finished, data_dir, workers))
        if finished and probe is not None:
            study = _probe(study, variant.recipe, finished, probe, data_dir, workers, problems)
        write_report(target)
    records.write_json(record, as_record(study, changed, rehearsal))
    study_report.write_study_report(record.parent)
    return problems


def train(
    recipe: Recipe,
    methods: Sequence[str],
    seeds: Sequence[int],
    directory: Path,
    *,
    workers: int | None = None,
    data_dir: Path | None = None,
    executor: Executor | None = None,
) -> list[str]:
    """Makes the runs that the comparison in `directory` lacks, and shows how far they are; returns what went wrong."""
    with progress.of_comparison(recipe.epochs) as show:
        failed = compare(
            recipe, methods, seeds, directory, workers=workers, data_dir=data_dir, executor=executor, show=show
        )
    return [
        f"{directory.name}: {job.method} seed {job.seed} failed: {error.strip().splitlines()[-1]} "
        f"(traceback in {job.directory / 'error.txt'})"
        for job, error in failed
    ]


def _probe(
    study: Study,
    recipe: Recipe,
    finished: Sequence[RunRecord],
    probe: Probe,
    data_dir: Path | None,
    workers: int | None,
    problems: list[str],
) -> Study:
    """Probes the runs, adds to `problems`; returns the study with the measures that the probe's records have."""
    protocol, images = probing.Protocol(), probe.data
    if images.image_size is None and recipe.data.image_size is None and images.name != recipe.data.name:
        # The size is that of the training images, whose files are in a folder of their own.
        side = data.load(Data(recipe.data.name), data_dir).train.images.shape[2]
        images = dataclasses.replace(images, image_size=side)
    prepared = probing.prepare(finished[0].path, images, probe.data_dir, protocol)[1]
    problems += _problems(analysis_commands.probe(finished, images, probe.data_dir, protocol, workers))
    name = probing.record_name(prepared).removeprefix("probe-").removesuffix(".json")
    return study.with_probe(name)


def _problems(outcomes: Sequence[Outcome]) -> list[str]:
    return [f"{of.run.path}: {of.error}" for of in outcomes if of.error is not None]
