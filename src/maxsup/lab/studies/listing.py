"""What `maxsup study list` shows."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence

from maxsup.lab.names import lookup
from maxsup.lab.studies import cost
from maxsup.lab.studies.cost import Speed
from maxsup.lab.studies.paper import STUDIES
from maxsup.lab.studies.study import Study

NOT_MEASURED = "not measured here"


def named(names: Sequence[str]) -> list[Study]:
    """The studies of these names, or all for none.

    Raises:
        UnknownNameError: naming the nearest.
    """
    return [lookup("study", name, STUDIES)() for name in names or STUDIES]


def measured(studies: Sequence[Study], tell: Callable[[str], None]) -> dict[str, Speed]:
    """The speed of each recipe of the studies, by its name; `tell` gets a line for each."""
    recipes = {variant.recipe.name: variant.recipe for study in studies for variant in study.variants}
    speeds = {}
    for name, recipe in recipes.items():
        of = speeds[name] = cost.measure(recipe)
        tell(f"{name}: {of.images_per_second:,.1f} images/s, batch {of.batch_size} of {recipe.batch_size}, {of.device}")
    return speeds


def text(studies: Sequence[Study], seeds: int, speeds: Mapping[str, Speed], width: int = 80) -> str:
    """A paragraph a study: table, data, recipes, methods, runs with `seeds` seeds, and hours by measured `speeds`."""
    indent = " " * (max(len(study.name) for study in studies) + 2)
    parts = []
    for study in studies:
        images = dict.fromkeys(cost.images_of(variant.recipe) for variant in study.variants)
        hours = f"{cost.hours(study, seeds, speeds):,.1f}" if speeds else NOT_MEASURED
        fields = {
            "data": ", ".join(f"{of.title} ({of.train:,} training images)" for of in images),
            "recipes": ", ".join(variant.name for variant in study.variants),
            "methods": ", ".join(dict.fromkeys(row.method for row in study.rows)),
            "runs": f"{cost.runs(study, seeds)} ({seeds} seeds)",
            "GPU hours": hours,
        }
        lines = [f"{study.name:<{len(indent)}}{study.table}: {study.title}"]
        for name, value in fields.items():
            first = f"{indent}{name:<11}"
            rest = " " * len(first)
            lines += textwrap.wrap(
                value, max(width, 60), initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def notes(speeds: Mapping[str, Speed]) -> str:
    """What the numbers of hours mean, or how to get them."""
    shared = "Studies with the same recipe share its runs in one --out: table2 and table3 train nothing that "
    shared += "table4-imagenet has trained."
    if not speeds:
        return f"{shared} With --measure the hours are estimated from a few steps here."
    devices = ", ".join(sorted({of.device for of in speeds.values()}))
    return (
        f"{shared} Hours are those of one {devices}, from a few steps on synthetic images that are on the device: "
        "reading and augmenting images is not in them, nor evaluation, nor the probe of table3."
    )
