"""What `maxsup study list` shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.table import Table

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


def table(studies: Sequence[Study], seeds: int, speeds: Mapping[str, Speed]) -> Table:
    """A line a study: table, data, recipes, methods, runs with `seeds` seeds, and hours by the measured `speeds`."""
    shown = Table(title=f"The paper's tables as studies, {seeds} seeds", title_justify="left")
    for head in ("study", "table", "what", "data", "recipes", "methods"):
        shown.add_column(head)
    shown.add_column("runs", justify="right")
    shown.add_column("GPU hours", justify="right")
    for study in studies:
        images = {cost.images_of(variant.recipe) for variant in study.variants}
        methods = dict.fromkeys(row.method for row in study.rows)
        shown.add_row(
            study.name,
            study.table,
            study.title,
            ", ".join(f"{of.title} ({of.train:,} training images)" for of in images),
            "\n".join(variant.name for variant in study.variants),
            "\n".join(methods),
            str(cost.runs(study, seeds)),
            f"{cost.hours(study, seeds, speeds):,.0f}" if speeds else NOT_MEASURED,
        )
    return shown


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
