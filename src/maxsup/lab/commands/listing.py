"""`maxsup list`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from maxsup.lab.parsing import UsageError
from maxsup.lab.recipes import RECIPES


def list_names(arguments: Sequence[str]) -> int:
    """Prints recipes, methods and data sets, a line each."""
    from maxsup.lab.data import DATA_SETS
    from maxsup.lab.methods import METHODS
    from maxsup.lab.segmentation.recipes import RECIPES as SEGMENTATION
    from maxsup.lab.segmentation.sources import DATA_SETS as LABELLED

    if arguments:
        raise UsageError(f"unexpected argument {arguments[0]!r}")

    def first_line(of: Callable[..., Any]) -> str:
        return (of.__doc__ or "").strip().splitlines()[0]

    sections = {
        "recipes": {name: first_line(recipe) for name, recipe in RECIPES.items()},
        "methods": {name: method.summary for name, method in METHODS.items()},
        "data sets": {name: first_line(loader) for name, loader in DATA_SETS.items()},
        "segmentation recipes": {name: first_line(recipe) for name, recipe in SEGMENTATION.items()},
        "segmentation data sets": {name: first_line(loader) for name, loader in LABELLED.items()},
    }
    for title, entries in sections.items():
        print(title)
        width = max(map(len, entries))
        for name, line in entries.items():
            print(f"  {name:<{width}}  {line}")
        print()
    return 0
