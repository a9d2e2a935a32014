import dataclasses

import pytest

from maxsup.lab.recipes import Alpha, Data
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.report.measures import Measure
from maxsup.lab.report.published import Published
from maxsup.lab.studies.study import Column, Contrast, Pair, Row, Study, Variant, against

ACCURACY = Measure("test.accuracy", "accuracy %", "share of test images classified right", True, "higher")
PRINTED = {"cross-entropy": (0.7421, None), "label-smoothing": (0.76, 0.001), "max-sup": (0.7658, 0.0012)}
RECIPE = dataclasses.replace(digits_convnet(), epochs=2, batch_size=32, data=Data("digits", train_size=100))


def tiny(**changes):
    """Two schedules of alpha × three methods on the digits, in the form of the paper's Table 8."""
    constant = Variant("constant", dataclasses.replace(RECIPE, alpha=Alpha(0.1, 0.1, "constant")))
    linear = Variant("linear", RECIPE)
    published = Published("Table 8", "linear", {"test.accuracy": PRINTED}, {"epochs": 2, "alpha.schedule": "linear"})
    columns = (Column("constant α", "constant", ACCURACY), Column("linear α", "linear", ACCURACY, published))
    rows = (
        Row("cross-entropy", "cross-entropy", "constant"),
        Row("label-smoothing", "label-smoothing"),
        Row("max-sup", "max-sup"),
    )
    pairs = tuple(Pair(row.label, "linear α", (r, 1), (r, 0)) for r, row in enumerate(rows) if r)
    study = Study(
        "tiny", "Table 8", "The schedule, digits", (constant, linear), columns, rows,
        (Contrast("Difference from constant α", pairs, by_column=False),),
    )  # fmt: skip
    return dataclasses.replace(against(study, "max-sup", "label-smoothing"), **changes)


def recipes(study):
    return {variant.name: variant.recipe for variant in study.variants}


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The tiny study with two seeds, made once."""
    from maxsup.lab.studies.run import run

    directory = tmp_path_factory.mktemp("study")
    assert run(tiny(), recipes(tiny()), [0, 1], directory, workers=1) == []
    return directory
