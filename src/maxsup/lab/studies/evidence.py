"""Our own campaign, on data that anyone can get; each function returns one study, `STUDIES` lists them by name.

The methods, the schedule of α and the questions are the paper's (arXiv 2502.15798). The data and the networks are not,
so that no number stands beside one of the paper's. A comparison's folder is named for what is trained in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from maxsup.lab.recipes import RECIPES, Alpha, Data, Recipe
from maxsup.lab.report.measures import Measure
from maxsup.lab.studies.parts import CE, LS, MEASURES, OURS, PARTS, SEVEN, probed, rows
from maxsup.lab.studies.study import Column, Contrast, Pair, Row, Study, Variant, against

# Eight seeds are the fewest that can show a difference among seven methods, six the fewest that can show a single one.
TEN, EIGHT, SIX = (tuple(range(n)) for n in (10, 8, 6))
FEW_IMAGES = 5000
ALPHAS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
NOISE = (0, 20, 40)
FACTOR = 50

# Of the glyphs' classes, 0-9 A-Z a-z, the digits to 4 and the letters to M; a letter and its capital, which often have
# one shape, are on the same side.
SEEN = (*range(5), *range(10, 23), *range(36, 49))
HELD_OUT = tuple(c for c in range(62) if c not in SEEN)
# A hundred of each class: the regressions of all runs then take minutes.
TRANSFER = Data("glyphs", train_size=3100, classes=HELD_OUT)
TRANSFER_RECORD = "glyphs-classes-5-9,23-35,49-61-train-3100"

SHOWN = tuple(
    MEASURES[key]
    for key in (
        "test.accuracy",
        "test.confidence_wrong",
        "test.ece",
        "test.ece_scaled",
        "train.d_within",
        "test.d_within",
        "train.r_squared",
        "test.r_squared",
    )
)
# Where each measure has a table of its own.
FEWER = tuple(
    MEASURES[key] for key in ("test.accuracy", "test.confidence_wrong", "test.ece", "test.d_within", "test.r_squared")
)


def _titled(measures: Sequence[Measure]) -> list[tuple[str, Measure]]:
    return [(of.title, of) for of in measures]


def _probes(data: str, title: str) -> list[tuple[str, Measure]]:
    return [(f"{title}: {of.title}", of) for of in (probed(data, "linear"), probed(data, "knn"))]


_DIGITS = _probes("digits", "digits")


def _tables(
    variants: Sequence[tuple[str, Variant]],
    measures: Sequence[tuple[str, Measure]],
    shown: Sequence[str] | None = None,
) -> tuple[Column, ...]:
    """A table for each variant under its title, with the measures as columns."""
    return tuple(
        Column(title, variant.name, measure, group=group, rows=None if shown is None else tuple(shown))
        for group, variant in variants
        for title, measure in measures
    )


def _by_measure(variants: Sequence[tuple[str, Variant]], measures: Sequence[Measure]) -> tuple[Column, ...]:
    """A table for each measure, with the variants as columns."""
    return tuple(
        Column(title, variant.name, measure, group=measure.title) for measure in measures for title, variant in variants
    )


def _fashion_mnist(**changes: object) -> Recipe:
    """The recipe on the 5,000 images, in the 60 epochs that so few need."""
    recipe = RECIPES["fashion-mnist-resnet18"]()
    few = dataclasses.replace(recipe.data, train_size=FEW_IMAGES)
    return dataclasses.replace(recipe, **{"epochs": 60, "data": few, **changes})  # type: ignore[arg-type]


def fashion_mnist() -> Study:
    """ResNet-18 on Fashion-MNIST, 5,000 and 55,000 training images, seven methods, α 0.1 → 0.2."""
    few = Variant("fashion-mnist-5k", _fashion_mnist(), TEN)
    whole = Variant("fashion-mnist-55k", RECIPES["fashion-mnist-resnet18"](), SIX)
    study = Study(
        name="fashion-mnist",
        table="Fashion-MNIST",
        title="seven methods, ResNet-18, 5,000 and 55,000 training images",
        variants=(few, whole),
        columns=_tables(
            [("5,000 training images", few), ("55,000 training images", whole)], [*_titled(SHOWN), *_DIGITS]
        ),
        rows=rows(SEVEN),
        analyze=True,
        probe=Data("digits"),
    )
    return against(study, OURS, LS, by_column=True)


_GLYPHS = {"glyphs-resnet18": "ResNet-18", "glyphs-mobilenetv2": "MobileNetV2"}


def glyphs() -> Study:
    """ResNet-18 and MobileNetV2 on letters and digits of real typefaces, 62 classes, seven methods, α 0.1 → 0.2."""
    variants = [(title, Variant(name, RECIPES[name](), TEN)) for name, title in _GLYPHS.items()]
    study = Study(
        name="glyphs",
        table="Glyphs",
        title="seven methods, ResNet-18 and MobileNetV2, 62 classes, unseen typefaces",
        variants=tuple(variant for _, variant in variants),
        columns=_tables(variants, [*_titled(SHOWN), *_DIGITS]),
        rows=rows(SEVEN),
        analyze=True,
        probe=Data("digits"),
    )
    return against(study, OURS, LS, by_column=True)


def glyphs_deit() -> Study:
    """A small DeiT from scratch on the glyphs: seven methods at α 0.1 → 0.2, and Table 1's parts at α = 0.1."""
    recipe = RECIPES["glyphs-deit"]()
    constant = dataclasses.replace(recipe, alpha=Alpha(0.1, 0.1, "constant"))
    # Cross-entropy is trained in both, as in the paper's studies: each comparison then has its baseline.
    scheduled = Variant("glyphs-deit", recipe, EIGHT)
    parts = Variant("glyphs-deit-alpha-constant", constant, EIGHT)
    measures = [*_titled(SHOWN), *_DIGITS]
    columns = (
        *_tables([("α 0.1 → 0.2", scheduled)], measures, SEVEN),
        *_tables([("α = 0.1", parts)], measures, PARTS),
    )
    lines = rows(list(dict.fromkeys([*PARTS[:-1], *SEVEN])))
    places = {row.label: r for r, row in enumerate(lines)}
    schedule = Contrast(
        "α 0.1 → 0.2 less α = 0.1",
        tuple(
            Pair(method, title, (places[method], c), (places[method], len(measures) + c))
            for c, (title, _) in enumerate(measures)
            for method in (LS, OURS)
        ),
    )
    study = Study(
        name="glyphs-deit",
        table="Glyphs, DeiT",
        title="seven methods, the parts of label smoothing, and the schedule of α",
        variants=(scheduled, parts),
        columns=columns,
        rows=lines,
        contrasts=(schedule,),
        analyze=True,
        probe=Data("digits"),
    )
    return against(study, OURS, LS, by_column=True)


def glyphs_transfer() -> Study:
    """Networks that were trained on half of the glyphs' classes, probed on the other half."""
    variants = []
    for name, title in _GLYPHS.items():
        recipe = RECIPES[name]()
        half = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, classes=SEEN))
        variants.append((title, Variant(f"{name}-half", half, TEN)))
    shown = [of for of in SHOWN if of.key in ("test.accuracy", "test.d_within", "test.r_squared")]
    study = Study(
        name="glyphs-transfer",
        table="Glyphs, transfer",
        title="trained on 31 classes (0-4, A-M, a-m), probed on the other 31",
        variants=tuple(variant for _, variant in variants),
        columns=_tables(variants, [*_titled(shown), *_probes(TRANSFER_RECORD, "other classes")]),
        rows=rows(SEVEN),
        analyze=True,
        probe=TRANSFER,
    )
    return against(study, OURS, LS, by_column=True)


def alpha() -> Study:
    """Constant α from 0.05 to 0.4 for label smoothing and MaxSup, on 5,000 images of Fashion-MNIST."""
    reference = Variant("fashion-mnist-5k", _fashion_mnist(), TEN)
    variants = [
        (f"α = {a:g}", Variant(f"fashion-mnist-5k-alpha-{a:g}", _fashion_mnist(alpha=Alpha(a, a, "constant")), TEN))
        for a in ALPHAS
    ]
    study = Study(
        name="alpha",
        table="α",
        title="label smoothing and MaxSup at constant α, Fashion-MNIST, 5,000 training images, ResNet-18",
        variants=(reference, *(variant for _, variant in variants)),
        columns=_by_measure(variants, FEWER),
        # Cross-entropy has no α: its runs, those of the study fashion-mnist, are the same in every column.
        rows=(Row(CE, CE, reference.name), Row(LS, LS), Row(OURS, OURS)),
        analyze=True,
    )
    return against(study, OURS, LS)


def _long(**changes: object) -> Recipe:
    """The 5,000 images for 4,000 steps, enough to learn wrong labels by heart, and nothing chosen by right ones."""
    data = dataclasses.replace(_fashion_mnist().data, **changes)  # type: ignore[arg-type]
    return _fashion_mnist(epochs=100, batch_size=128, selection="last", data=data)


def label_noise() -> Study:
    """Fashion-MNIST, 5,000 images with 0, 20 and 40% wrong labels, seven methods (docs/robustness.md)."""
    variants = [
        (f"{percent}% wrong", Variant(f"fashion-mnist-5k-noise-{percent}", _long(label_noise=percent / 100), EIGHT))
        for percent in NOISE
    ]
    learnt = [MEASURES[f"train_clean.{of}"] for of in ("memorized", "recovered")]
    measures = (FEWER[0], *learnt, *FEWER[1:])
    columns = _by_measure(variants, measures)
    study = Study(
        name="label-noise",
        table="Wrong labels",
        title="seven methods, Fashion-MNIST, 5,000 training images of which 0, 20 and 40% are labelled wrong",
        variants=tuple(variant for _, variant in variants),
        # Without wrong labels none is memorised and none recovered.
        columns=tuple(
            of
            for of in columns
            if not (of.measure.key.startswith("train_clean.") and of.variant == variants[0][1].name)
        ),
        rows=rows(SEVEN),
        analyze=True,
    )
    return against(study, OURS, LS)


def imbalance() -> Study:
    """Fashion-MNIST, 5,000 images cut to a long tail with factor 50, seven methods (docs/robustness.md)."""
    variant = Variant(f"fashion-mnist-5k-imbalance-{FACTOR}", _long(imbalance=float(FACTOR)), EIGHT)
    keys = ("test.accuracy", *(f"test.accuracy_{of}" for of in ("many", "medium", "few")))
    keys += ("test.confidence_wrong", "test.ece", "test.ece_scaled", "test.d_within", "test.r_squared")
    measures = [MEASURES[key] for key in keys]
    study = Study(
        name="imbalance",
        table="Long tail",
        title=f"seven methods, Fashion-MNIST, the first class with {FACTOR} times the images of the last",
        variants=(variant,),
        columns=tuple(Column(of.title, variant.name, of) for of in measures),
        rows=rows(SEVEN),
        analyze=True,
    )
    return against(study, OURS, LS, by_column=True)


STUDIES: dict[str, Callable[[], Study]] = {
    "fashion-mnist": fashion_mnist,
    "glyphs": glyphs,
    "glyphs-deit": glyphs_deit,
    "glyphs-transfer": glyphs_transfer,
    "alpha": alpha,
    "label-noise": label_noise,
    "imbalance": imbalance,
}
