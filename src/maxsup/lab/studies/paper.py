"""The paper's tables as studies (arXiv 2502.15798); each function returns one, `STUDIES` lists them by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from maxsup.lab.recipes import RECIPES, Alpha, Data, Recipe
from maxsup.lab.report.published import PUBLISHED, Published
from maxsup.lab.studies.parts import ACCURACY, CE, LS, MEASURES, OURS, PARTS, SMOOTHING, probed, rows
from maxsup.lab.studies.study import Column, Contrast, Pair, Row, Study, Variant, against

ALL = (*SMOOTHING, "logit-penalty")
NETWORKS = {
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "mobilenetv2": "MobileNetV2",
}
PROBE_DATA = "cifar10"


def _published(recipe: str, table: str, place: int = 0) -> Published:
    """The paper's `place`-th column of a table for a recipe."""
    return [of for of in PUBLISHED[recipe] if of.table == table][place]


def _alpha(recipe: Recipe, schedule: Alpha) -> Recipe:
    return dataclasses.replace(recipe, alpha=schedule)


def _networks(name: str, table: str, title: str, prefix: str) -> Study:
    """A table of accuracies whose columns are networks."""
    recipes = [f"{prefix}-{network}" for network in NETWORKS]
    study = Study(
        name=name,
        table=table,
        title=title,
        variants=tuple(Variant(recipe, RECIPES[recipe]()) for recipe in recipes),
        columns=tuple(
            Column(title, recipe, ACCURACY, _published(recipe, table))
            for recipe, title in zip(recipes, NETWORKS.values(), strict=True)
        ),
        rows=rows(ALL),
    )
    return against(study, OURS, LS)


def table1() -> Study:
    """The parts of label smoothing and MaxSup at constant α = 0.1; DeiT-Small on ImageNet, no Mixup or CutMix."""
    name = "imagenet-deit-small-alpha-constant"
    recipe = _alpha(RECIPES["imagenet-deit-small"](), Alpha(0.1, 0.1, "constant"))
    study = Study(
        name="table1",
        table="Table 1",
        title="The parts of label smoothing, DeiT-Small on ImageNet, α = 0.1",
        variants=(Variant(name, recipe),),
        columns=(Column("accuracy %", name, ACCURACY, _published(recipe.name, "Table 1")),),
        rows=rows(PARTS),
    )
    return against(study, OURS, LS)


def table2() -> Study:
    """Features of ResNet-50 on ImageNet, also Table 9: within-class variation and class separation."""
    name = "imagenet-resnet50"
    keys = [f"{split}.{of}" for of in ("d_within", "d_total", "r_squared") for split in ("train", "test")]
    columns = [MEASURES[key] for key in keys]
    study = Study(
        name="table2",
        table="Tables 2 and 9",
        title="Features of ResNet-50 on ImageNet",
        variants=(Variant(name, RECIPES[name]()),),
        columns=tuple(Column(of.title, name, of, _published(name, "Tables 2 and 9")) for of in columns),
        rows=rows(ALL),
        analyze=True,
    )
    return against(study, OURS, LS)


def table3() -> Study:
    """Linear transfer: a logistic regression on CIFAR-10 over frozen features of ResNet-50 from ImageNet."""
    name = "imagenet-resnet50"
    study = Study(
        name="table3",
        table="Table 3",
        title="Linear probe on CIFAR-10 of ResNet-50 from ImageNet",
        variants=(Variant(name, RECIPES[name]()),),
        columns=(Column("linear probe %", name, probed(PROBE_DATA), _published(name, "Table 3")),),
        rows=rows((CE, LS, OURS, "logit-penalty")),
        probe=Data(PROBE_DATA),
    )
    return against(study, OURS, LS)


def table4_imagenet() -> Study:
    """Four convolutional networks on ImageNet, 200 epochs, six methods, α 0.1 → 0.2."""
    return _networks("table4-imagenet", "Table 4", "Convolutional networks on ImageNet, 200 epochs", "imagenet")


def table4_cifar100() -> Study:
    """Four convolutional networks on CIFAR-100, 200 epochs, six methods, α 0.1 → 0.2."""
    return _networks("table4-cifar100", "Table 4", "Convolutional networks on CIFAR-100, 200 epochs", "cifar100")


def table5() -> Study:
    """DeiT-Small on ImageNet, 300 epochs, no Mixup or CutMix, five methods, α 0.1 → 0.2."""
    name = "imagenet-deit-small"
    study = Study(
        name="table5",
        table="Table 5",
        title="DeiT-Small on ImageNet, α 0.1 → 0.2",
        variants=(Variant(name, RECIPES[name]()),),
        columns=(Column("accuracy %", name, ACCURACY, _published(name, "Table 5")),),
        rows=rows(SMOOTHING),
    )
    return against(study, OURS, LS)


def table7() -> Study:
    """The networks of table 4 on ImageNet, after torchvision's first recipe: 90 epochs, steps of a tenth."""
    return _networks("table7", "Table 7", "Convolutional networks on ImageNet, 90 epochs", "imagenet-v1")


def table8() -> Study:
    """Constant α against α 0.1 → 0.2, linearly as in the paper and along a cosine; DeiT-Small on ImageNet."""
    name = "imagenet-deit-small"
    recipe = RECIPES[name]()
    constant = Variant(f"{name}-alpha-constant", _alpha(recipe, Alpha(0.1, 0.1, "constant")))
    linear = Variant(name, _alpha(recipe, Alpha(0.1, 0.2, "linear")))
    cosine = Variant(f"{name}-alpha-cosine", _alpha(recipe, Alpha(0.1, 0.2, "cosine")))
    columns = (
        Column("α = 0.1", constant.name, ACCURACY, _published(name, "Table 8")),
        Column("α 0.1 → 0.2, linear", linear.name, ACCURACY, _published(name, "Table 8", 1)),
        Column("α 0.1 → 0.2, cosine", cosine.name, ACCURACY),
    )
    # Cross-entropy has no α: its runs are the same in every column.
    lines = (Row(CE, CE, constant.name), Row(LS, LS), Row(OURS, OURS))
    pairs = tuple(
        Pair(row.label, column.title, (r, c), (r, 0))
        for c, column in enumerate(columns[1:], start=1)
        for r, row in enumerate(lines[1:], start=1)
    )
    study = Study(
        name="table8",
        table="Table 8",
        title="The schedule of α, DeiT-Small on ImageNet",
        variants=(constant, linear, cosine),
        columns=columns,
        rows=lines,
        contrasts=(Contrast("Difference from constant α = 0.1", pairs, by_column=False),),
    )
    return against(study, OURS, LS)


STUDIES: dict[str, Callable[[], Study]] = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4-imagenet": table4_imagenet,
    "table4-cifar100": table4_cifar100,
    "table5": table5,
    "table7": table7,
    "table8": table8,
}
