"""What `maxsup distill` asks for: which teachers, which students."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from maxsup.lab.analysis.batch import collect
from maxsup.lab.analysis.weights import trained_recipe
from maxsup.lab.names import lookup, unknown
from maxsup.lab.options import Distill
from maxsup.lab.parsing import UsageError, parse
from maxsup.lab.recipes import RECIPES, Recipe
from maxsup.lab.recipes.distillation import PREFIX
from maxsup.lab.records import RecordError, RunRecord

ALONE = "cross-entropy"


def parse_distill(arguments: Sequence[str]) -> tuple[list[Path], Distill]:
    """The teachers' folders, and the options with the students' recipe in them.

    Raises:
        UsageError, UnknownNameError, RecordError: for a wrong command line, or folders without finished runs.
    """
    if list(arguments[:1]) in (["-h"], ["--help"]):
        parse(Distill, "distill TEACHER...", ["--help"], next(iter(RECIPES.values()))())
    folders = [Path(argument) for argument in takewhile(lambda argument: not argument.startswith("-"), arguments)]
    rest = list(arguments[len(folders) :])
    if not folders:
        raise UsageError("`maxsup distill` takes folders of the teachers' runs or comparisons first")
    named = _value("--student", rest)
    recipe = lookup("recipe", named, RECIPES)() if named is not None else _recipe_of_teachers(collect(folders)[0])
    return folders, parse(Distill, "distill TEACHER...", rest, recipe)


def students(
    folders: Sequence[Path], methods: Sequence[str] | None, seeds: Sequence[int] | None, *, alone: bool
) -> tuple[list[str], list[int]]:
    """The methods and seeds of the students' comparison.

    Raises:
        ValueError: if a method that is named has no finished teacher, one is missing for a seed, or two have the same
            method and seed.
    """
    runs, _ = collect(folders)
    found: dict[tuple[str, int], RunRecord] = {}
    for run in runs:
        if (run.method, run.seed) in found:
            first = found[run.method, run.seed]
            raise ValueError(f"two teachers with method {run.method}, seed {run.seed}: {first.path} and {run.path}")
        found[run.method, run.seed] = run
    known = list(dict.fromkeys(method for method, _ in found))
    chosen = list(dict.fromkeys(known if methods is None else methods))
    for method in chosen:
        if method not in known:
            raise unknown("method of the teachers", method, known)
    taken = sorted({seed for method, seed in found if method in chosen} if seeds is None else set(seeds))
    missing = [f"{method} seed {seed}" for method in chosen for seed in taken if (method, seed) not in found]
    if missing:
        raise ValueError(
            f"no finished teacher for {', '.join(missing)}; --methods and --seeds choose among those there are"
        )
    return [PREFIX + method for method in chosen] + ([ALONE] if alone else []), taken


def _recipe_of_teachers(runs: Sequence[RunRecord]) -> Recipe:
    """The recipe that all teachers share."""
    try:
        recipes = [trained_recipe(run.path) for run in runs]
    except RecordError as error:
        raise RecordError(f"{error}; --student must name the recipe of the students") from error
    if any(recipe != recipes[0] for recipe in recipes):
        raise UsageError("the teachers have different recipes; --student must name that of the students")
    return recipes[0]


def _value(option: str, arguments: Sequence[str]) -> str | None:
    """The value of an option, of which others depend, before the options are parsed."""
    for place, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            return argument.removeprefix(f"{option}=")
        if argument == option and place + 1 < len(arguments):
            return arguments[place + 1]
    return None
