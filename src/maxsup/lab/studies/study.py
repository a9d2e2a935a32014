"""What a study is: recipes × methods that make one or more tables, and what is compared in them.

A study is data. `maxsup.lab.studies.paper` has those of the paper and `maxsup.lab.studies.evidence` our own, as
functions that return them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from maxsup.lab import records
from maxsup.lab.methods import METHODS
from maxsup.lab.names import lookup
from maxsup.lab.recipes import NEUTRAL, Data, Recipe, as_json
from maxsup.lab.records import Json
from maxsup.lab.report.measures import Measure
from maxsup.lab.report.published import Published

PAPER_SEEDS = (0, 1, 2)

_NONE: tuple[None, None] = (None, None)


@dataclass(frozen=True)
class Variant:
    """A recipe as a study trains it; `name` is the folder of its comparison, shared by studies that train the same.

    `seeds` are those that are taken unless others are asked for.
    """

    name: str
    recipe: Recipe
    seeds: tuple[int, ...] = PAPER_SEEDS


@dataclass(frozen=True)
class Column:
    """A column of the table: which variant's runs, which measure of them, and the paper's column of it if it has one.

    `published` also states the settings without which our number is not to be compared with the paper's. `printed` is
    the key of the paper's column where it is not the measure's, as for a probe on other data. Columns of one `group`
    make a table under this heading. `rows` are the labels of the rows that the column has, None being all.
    """

    title: str
    variant: str
    measure: Measure
    published: Published | None = None
    printed: str | None = None
    group: str = ""
    rows: tuple[str, ...] | None = None

    def has(self, row: Row) -> bool:
        """Whether there is a cell in this row."""
        return self.rows is None or row.label in self.rows


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
    The verdict puts it into words if it is `told`.
    """

    title: str
    pairs: tuple[Pair, ...]
    by_column: bool = True
    told: bool = True


@dataclass(frozen=True)
class Study:
    """Tables as an experiment.

    Args:
        name: as `maxsup study` takes it.
        table: the paper's name of the table, or what our own is about.
        title: what it shows.
        variants: the recipes.
        columns, rows: of the tables; each cell is one variant's runs with one method.
        contrasts: the differences that are reported and tested; all rows against the first are always among them.
        analyze: whether finished runs are analysed before the report.
        probe: the images on which they are probed after that, if they are.
    """

    name: str
    table: str
    title: str
    variants: tuple[Variant, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    contrasts: tuple[Contrast, ...] = ()
    analyze: bool = False
    probe: Data | None = None

    def __post_init__(self) -> None:
        known = {variant.name for variant in self.variants}
        labels = dict.fromkeys(row.label for row in self.rows)
        for label in (label for column in self.columns for label in column.rows or ()):
            lookup("row", label, labels)
        for row in self.rows:
            lookup("method", row.method, METHODS)
        for name in [column.variant for column in self.columns] + [row.variant for row in self.rows if row.variant]:
            lookup("variant", name, dict.fromkeys(known))

    @property
    def published(self) -> bool:
        """Whether the paper has numbers for any of it."""
        return any(column.published for column in self.columns)

    def methods(self, variant: str) -> list[str]:
        """The methods that `variant` is trained with, in the order of the rows."""
        return list(
            dict.fromkeys(
                row.method
                for row in self.rows
                if any(column.has(row) and (row.variant or column.variant) == variant for column in self.columns)
            )
        )

    def recipes(self) -> dict[str, Recipe]:
        """The recipes, by the name of their variant."""
        return {variant.name: variant.recipe for variant in self.variants}

    def with_recipes(self, recipes: Mapping[str, Recipe]) -> Study:
        """The study with other recipes, by the name of their variant."""
        changed = tuple(dataclasses.replace(of, recipe=recipes[of.name]) for of in self.variants)
        return dataclasses.replace(self, variants=changed)

    def with_probe(self, name: str) -> Study:
        """The study whose columns of a probe are those of the probe with the record ``probe-<name>.json``."""
        return dataclasses.replace(self, columns=tuple(_probed(column, name) for column in self.columns))

    def groups(self) -> dict[str, list[int]]:
        """The places of the columns of each table, by its heading."""
        found: dict[str, list[int]] = {}
        for place, column in enumerate(self.columns):
            found.setdefault(column.group, []).append(place)
        return found

    def all_contrasts(self) -> tuple[Contrast, ...]:
        """The differences of all rows of a table from its first, in each column, and then the study's own."""
        from_first = []
        for group, columns in self.groups().items():
            shown = [r for r, row in enumerate(self.rows) if any(self.columns[c].has(row) for c in columns)]
            first, others = self.rows[shown[0]], shown[1:]
            pairs = tuple(
                Pair(self.rows[r].label, self.columns[c].title, (r, c), (shown[0], c))
                for c in columns
                for r in others
                if self.columns[c].has(first) and self.columns[c].has(self.rows[r])
            )
            if pairs:
                from_first.append(Contrast(_in_group(f"Difference from {first.label}", group), pairs, told=False))
        return (*from_first, *self.contrasts)


def _in_group(title: str, group: str) -> str:
    return f"{title}, {group}" if group else title


def _probed(column: Column, name: str) -> Column:
    key = column.measure.key
    if not key.startswith("probe."):
        return column
    measure = dataclasses.replace(column.measure, key=f"probe.{name}.{key.rpartition('.')[2]}")
    return dataclasses.replace(column, measure=measure, printed=column.printed or key)


def against(of: Study, row: str, than: str, *, by_column: bool = False) -> Study:
    """The study with the difference of two of its rows in every column that has both.

    The columns of a table are tested as one family, or each as a question of its own if `by_column`.
    """
    labels = [one.label for one in of.rows]
    r, s = labels.index(row), labels.index(than)
    contrasts = []
    for group, columns in of.groups().items():
        pairs = tuple(
            Pair(row, of.columns[c].title, (r, c), (s, c))
            for c in columns
            if of.columns[c].has(of.rows[r]) and of.columns[c].has(of.rows[s])
        )
        if pairs:
            contrasts.append(Contrast(_in_group(f"{row} less {than}", group), pairs, by_column))
    return dataclasses.replace(of, contrasts=(*of.contrasts, *contrasts))


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
            if not column.has(row):
                continue
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
        "columns": [
            {"title": column.title, "group": column.group, "measure": dataclasses.asdict(column.measure)}
            for column in study.columns
        ],
        "rows": [row.label for row in study.rows],
        "cells": cells,
        "contrasts": [dataclasses.asdict(contrast) for contrast in study.all_contrasts()],
    }


def _differs(column: Column, recipe: Json, method: str) -> list[str]:
    """The settings in which a cell's runs differ from the paper's; alpha is none of a method that has no alpha."""
    found = column.published.differs(recipe) if column.published else []
    return [line for line in found if METHODS[method].scheduled or not line.startswith("alpha.")]
