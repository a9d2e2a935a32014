"""What `maxsup study list` shows."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence

from maxsup.lab.names import lookup
from maxsup.lab.studies import STUDIES, cost
from maxsup.lab.studies.cost import Speed
from maxsup.lab.studies.study import Study

NOT_MEASURED = "not measured here"
PAPERS = "The paper's tables (arXiv 2502.15798)"
OWN = "The campaign, on data that anyone can get"


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


def text(studies: Sequence[Study], seeds: int | None, speeds: Mapping[str, Speed], width: int = 80) -> str:
    """A paragraph a study, those of the paper first: what it is about, data, recipes, methods, runs, and hours.

    Runs are with `seeds` seeds or the study's own; hours are those by measured `speeds`.
    """
    indent = " " * (max(len(study.name) for study in studies) + 2)
    parts = []
    for heading, published in ((PAPERS, True), (OWN, False)):
        of = [_paragraph(study, seeds, speeds, indent, width) for study in studies if study.published == published]
        parts += [heading, *of] if of else []
    return "\n\n".join(parts)


def _paragraph(study: Study, seeds: int | None, speeds: Mapping[str, Speed], indent: str, width: int) -> str:
    images = dict.fromkeys(
        f"{cost.images_of(variant.recipe).title} ({cost.training_images(variant.recipe):,} training images)"
        for variant in study.variants
    )
    numbers = dict.fromkeys(str(len(variant.seeds) if seeds is None else seeds) for variant in study.variants)
    fields = {
        "data": ", ".join(images),
        "recipes": ", ".join(variant.name for variant in study.variants),
        "methods": ", ".join(dict.fromkeys(row.method for row in study.rows)),
        "runs": f"{cost.runs(study, seeds)} ({' or '.join(numbers)} seeds)",
        "GPU hours": f"{cost.hours(study, seeds, speeds):,.1f}" if speeds else NOT_MEASURED,
    }
    lines = [f"{study.name:<{len(indent)}}{study.table}: {study.title}"]
    for name, value in fields.items():
        first = f"{indent}{name:<11}"
        rest = " " * len(first)
        lines += textwrap.wrap(
            value, max(width, 60), initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
        )
    return "\n".join(lines)


def notes(speeds: Mapping[str, Speed]) -> str:
    """What the numbers of hours mean, or how to get them."""
    shared = "Studies with the same recipe share its runs in one --out: table2 and table3 train nothing that "
    shared += "table4-imagenet has trained."
    if not speeds:
        return f"{shared} With --measure the hours are estimated from a few steps here."
    devices = ", ".join(sorted({of.device for of in speeds.values()}))
    return (
        f"{shared} Hours are those of one {devices}, from a few steps on synthetic images that are on the device: "
        "reading and augmenting images is not in them, nor evaluation, nor what is measured on the runs afterwards."
    )
