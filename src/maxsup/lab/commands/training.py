"""`maxsup train`, `compare` and `distill`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext

from maxsup.lab.commands.printing import print_measures, write_and_print_report
from maxsup.lab.names import lookup
from maxsup.lab.options import Compare, Distill, Train
from maxsup.lab.parsing import UsageError, parse_with_recipe
from maxsup.lab.recipes import Recipe


def check_names(recipe: Recipe, methods: Sequence[str]) -> None:
    """Unknown names, and an α that a method refuses, are the command line's fault: found before anything is written."""
    from maxsup.lab.data import DATA_SETS
    from maxsup.lab.methods import METHODS
    from maxsup.lab.models import check_name
    from maxsup.lab.training.optimization import check_optimizer

    alpha = recipe.alpha
    for method in methods:
        how = lookup("method", method, METHODS)
        for value in {alpha.start} if alpha.schedule == "constant" else {alpha.start, alpha.end}:
            try:
                how.build(value, 2)
            except ValueError as error:
                raise UsageError(f"{method}: {error}") from error
    lookup("data set", recipe.data.name, DATA_SETS)
    check_name(recipe.model.name)
    check_optimizer(recipe.optimizer.name)


def train(arguments: Sequence[str]) -> int:
    """Trains one run."""
    options = parse_with_recipe(Train, "train", arguments)
    check_names(options.recipe, [options.method])
    from maxsup.lab import executors, processes, progress, trackers

    trackers.check_trackers(options.tracker)
    first = processes.launched()[0] == 0
    job = executors.Job(options.recipe, options.method, options.seed, options.out, options.data_dir, options.tracker)
    shown_by_first = progress.of_run(options.recipe.epochs, f"{options.method} seed {options.seed}")
    with shown_by_first if first else nullcontext(lambda row: None) as on_epoch:
        result = executors.train_job(job, on_epoch)
    if not first:
        return 0
    if result["status"] == "diverged":
        print(f"diverged in epoch {result['epochs'] + 1}: the loss is not finite any more (recorded in {options.out})")
        return 0
    print_measures(result)
    print(f"records: {options.out}")
    return 0


def compare(arguments: Sequence[str]) -> int:
    """Trains methods × seeds and writes the report."""
    options = parse_with_recipe(Compare, "compare", arguments)
    check_names(options.recipe, options.methods)
    return _make_comparison("compare", options, options.recipe, options.methods, options.seeds)


def distill(arguments: Sequence[str]) -> int:
    """Trains students of finished runs' networks and writes the report."""
    from maxsup.lab.commands import distillation as command
    from maxsup.lab.recipes.distillation import student

    folders, options = command.parse_distill(arguments)
    methods, seeds = command.students(folders, options.methods, options.seeds, alone=options.alone)
    check_names(options.recipe, [])
    teachers = tuple(str(folder.resolve()) for folder in folders)
    recipe = student(options.recipe, options.temperature, options.weight, teachers)
    return _make_comparison("distill", options, recipe, methods, seeds)


def _make_comparison(
    command: str, options: Compare | Distill, recipe: Recipe, methods: Sequence[str], seeds: Sequence[int]
) -> int:
    from maxsup.lab import compare, data, executors, processes, progress, trackers

    if processes.launched()[1] > 1:
        raise UsageError(
            f"`maxsup {command}` starts its own processes; of the commands only `maxsup train` is launched"
        )
    trackers.check_trackers(options.tracker)
    executor = executors.choose(options.executor, options.ray_address, options.gpus_per_run)
    # Absent or damaged data is one error here, and not one per run.
    data.load(recipe.data, options.data_dir)
    with progress.of_comparison(recipe.epochs) as show:
        failed = compare.compare(
            recipe,
            methods,
            seeds,
            options.out,
            executor=executor,
            workers=options.workers,
            data_dir=options.data_dir,
            trackers=options.tracker,
            show=show,
        )
    write_and_print_report(options.out)
    for job, error in failed:
        print(
            f"maxsup: {job.method} seed {job.seed} failed: {error.strip().splitlines()[-1]} "
            f"(traceback in {job.directory / 'error.txt'})",
            file=sys.stderr,
        )
    return 1 if failed else 0
