"""What a study is: recipes × methods that make one of the paper's tables, and what is compared in it.

A study is data. `maxsup.lab.studies.paper` has those of the paper, as functions that return them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from maxsup.lab import records
from maxsup.lab.methods import METHODS
from maxsup.lab.names import lookup
from maxsup.lab.recipes import Recipe, as_json
from maxsup.lab.records import Json
from maxsup.lab.report.measures import Measure
from maxsup.lab.report.published import Published

# Fields that decide how fast a run is and not what it gives: with other values it is the paper's experiment still.
NEUTRAL = ("cpu_threads", "compile", "cuda_graph", "data.loader_workers")

Afterwards = Literal["analyze", "probe"]

_NONE: tuple[None, None] = (None, None)


@dataclass(frozen=True)
class Variant:
    """A recipe as a study trains it; `name` is the folder of its comparison, shared by studies that train the same."""

    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Column:
    """A column of the table: which variant's runs, which measure of them, and the paper's column of it if it has one.

    `published` also states the settings without which our number is not to be compared with the paper's. `printed` is
    the key of the paper's column where it is not the measure's, as for a probe on other data.
    """

    title: str
    variant: str
    measure: Measure
    published: Published | None = None
    printed: str | None = None


@dataclass(frozen=True)
class Row:
    """A row of the table: a method under a label. `variant` takes its runs from there whatever the column says.

    That is for a method that does not see what sets the columns apart, as cross-entropy has no alpha.
    """

    label: str
    method: str
    variant: str | None = None


@dataclass(frozen=True)
class Pair:
    """A difference `of` − `than` between two cells (row, column), which stands under `row` and `column` in a table."""

    row: str
    column: str
    of: tuple[int, int]
    than: tuple[int, int]


@dataclass(frozen=True)
class Contrast:
    """Differences that make one table.

    With `by_column` Holm's correction is over the rows of each column by itself, without it over the whole table.
    """

    title: str
    pairs: tuple[Pair, ...]
    by_column: bool = True


@dataclass(frozen=True)
class Study:
    """One of the paper's tables as an experiment.

    Args:
        name: as `maxsup study` takes it.
        table: the paper's name of it.
        title: what it shows.
        variants: the recipes.
        columns, rows: of the table; each cell is one variant's runs with one method.
        contrasts: the differences that are reported and tested; all rows against the first are always among them.
        afterwards: what is done with finished runs before the report.
    """

    name: str
    table: str
    title: str
    variants: tuple[Variant, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    contrasts: tuple[Contrast, ...] = ()
    afterwards: Afterwards | None = None

    def __post_init__(self) -> None:
        known = {variant.name for variant in self.variants}
        for row in self.rows:
            lookup("method", row.method, METHODS)
        for name in [column.variant for column in self.columns] + [row.variant for row in self.rows if row.variant]:
            lookup("variant", name, dict.fromkeys(known))

    def methods(self, variant: str) -> list[str]:
        """The methods that `variant` is trained with, in the order of the rows."""
        used = {column.variant for column in self.columns}
        return [row.method for row in self.rows if row.variant == variant or (row.variant is None and variant in used)]

    def with_recipes(self, recipes: Mapping[str, Recipe]) -> Study:
        """The study with other recipes, by the name of their variant."""
        changed = tuple(dataclasses.replace(of, recipe=recipes[of.name]) for of in self.variants)
        return dataclasses.replace(self, variants=changed)

    def with_measure(self, measure: Measure) -> Study:
        """The study with `measure` in every column, as for a probe on other data than the paper's."""
        columns = (
            dataclasses.replace(column, measure=measure, printed=column.printed or column.measure.key)
            for column in self.columns
        )
        return dataclasses.replace(self, columns=tuple(columns))

    def all_contrasts(self) -> tuple[Contrast, ...]:
        """The differences of all rows from the first, in each column, and then the study's own."""
        first, *others = self.rows
        pairs = [
            Pair(row.label, column.title, (place, c), (0, c))
            for c, column in enumerate(self.columns)
            for place, row in enumerate(others, start=1)
        ]
        own = (Contrast(f"Difference from {first.label}", tuple(pairs)),) if pairs else ()
        return own + self.contrasts


def against(of: Study, row: str, than: str) -> Study:
    """The study with the difference of two of its rows in every column, tested as one family."""
    labels = [one.label for one in of.rows]
    places = labels.index(row), labels.index(than)
    pairs = tuple(Pair(row, column.title, (places[0], c), (places[1], c)) for c, column in enumerate(of.columns))
    return dataclasses.replace(of, contrasts=(*of.contrasts, Contrast(f"{row} less {than}", pairs, by_column=False)))


def changes(original: Study, study: Study) -> dict[str, list[str]]:
    """By variant, the fields in which `study` trains otherwise than `original`, those that are neutral left out."""
    found = {}
    for before, now in zip(original.variants, study.variants, strict=True):
        lines = records.differences(as_json(before.recipe), as_json(now.recipe))
        found[now.name] = [line for line in lines if line.split(":")[0] not in NEUTRAL]
    return found


def as_record(study: Study, changed: Mapping[str, list[str]], rehearsal: bool) -> Json:
    """The study as ``study.json`` holds it: all that its report needs beside the comparisons' records."""
    recipes = {variant.name: as_json(variant.recipe) for variant in study.variants}
    cells = []
    for r, row in enumerate(study.rows):
        for c, column in enumerate(study.columns):
            variant = row.variant or column.variant
            key = column.printed or column.measure.key
            mean, std = column.published.columns[key].get(row.method, _NONE) if column.published else _NONE
            cells.append(
                {
                    "row": r,
                    "column": c,
                    "comparison": variant,
                    "method": row.method,
                    "paper": {"mean": mean, "std": std},
                    "differs": _differs(column, recipes[variant], row.method),
                }
            )
    return {
        "study": study.name,
        "table": study.table,
        "title": study.title,
        "rehearsal": rehearsal,
        "comparisons": {
            variant.name: {"path": f"../{variant.name}", "changes": changed[variant.name]} for variant in study.variants
        },
        "columns": [{"title": column.title, "measure": dataclasses.asdict(column.measure)} for column in study.columns],
        "rows": [row.label for row in study.rows],
        "cells": cells,
        "contrasts": [dataclasses.asdict(contrast) for contrast in study.all_contrasts()],
    }


def _differs(column: Column, recipe: Json, method: str) -> list[str]:
    """The settings in which a cell's runs differ from the paper's; alpha is none of a method that has no alpha."""
    found = column.published.differs(recipe) if column.published else []
    return [line for line in found if METHODS[method].scheduled or not line.startswith("alpha.")]
