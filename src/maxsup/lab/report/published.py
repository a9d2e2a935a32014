"""The paper's published numbers (arXiv 2502.15798), by the name of the recipe that repeats them.

Where a recipe of that name was run with other settings than the paper's, the difference is named beside the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from maxsup.lab.records import Json
from maxsup.lab.report.fields import flat

Column = Mapping[str, tuple[float, float | None]]
"""Mean, and std where the paper gives one, by method; fractions, as every measure of a summary is."""


@dataclass(frozen=True)
class Published:
    """Columns of one of the paper's tables, by the key of our measure; `settings`: the recipe fields that it states."""

    table: str
    title: str
    columns: Mapping[str, Column]
    settings: Json = field(default_factory=dict)

    def differs(self, recipe: Json) -> list[str]:
        """Each setting that the paper states and the recipe, as in a record, has otherwise."""
        ours = flat(recipe)
        return [
            f"{name} {ours[name]} instead of {value}"
            for name, value in self.settings.items()
            if name in ours and ours[name] != value
        ]


def _number(text: str, scale: float) -> tuple[float, float | None]:
    mean, _, std = text.partition("±")
    return round(float(mean) / scale, 6), round(float(std) / scale, 6) if std else None


def _columns(text: str, scale: float = 100) -> dict[str, Column]:
    """The columns of a table as printed below: their names, then a line per method; ``-`` where it has no value."""
    head, *lines = (line.split() for line in text.strip().splitlines())
    return {
        name: {method: _number(values[place], scale) for method, *values in lines if values[place] != "-"}
        for place, name in enumerate(head)
    }


# fmt: off
_TABLE_4_IMAGENET = """
                       imagenet-resnet18 imagenet-resnet50 imagenet-resnet101 imagenet-mobilenetv2
cross-entropy          69.09±0.12        76.41±0.10        75.96±0.18         71.40±0.12
label-smoothing        69.54±0.15        76.91±0.11        77.37±0.15         71.61±0.09
zipf-label-smoothing   69.31±0.12        76.73±0.17        76.91±0.11         71.16±0.15
online-label-smoothing 69.45±0.15        77.23±0.21        77.71±0.17         71.63±0.11
max-sup                69.96±0.13        77.69±0.07        78.18±0.12         72.08±0.17
logit-penalty          68.48±0.10        76.73±0.10        77.20±0.15         71.13±0.10
"""
_TABLE_4_CIFAR_100 = """
                       cifar100-resnet18 cifar100-resnet50 cifar100-resnet101 cifar100-mobilenetv2
cross-entropy          76.16±0.18        78.69±0.16        79.11±0.21         68.06±0.06
label-smoothing        77.05±0.17        78.88±0.13        79.19±0.25         69.65±0.08
zipf-label-smoothing   76.21±0.12        78.75±0.21        79.15±0.18         69.39±0.08
online-label-smoothing 77.33±0.15        78.79±0.12        79.25±0.15         68.91±0.11
max-sup                77.82±0.15        79.15±0.13        79.41±0.19         69.88±0.07
logit-penalty          76.41±0.15        78.90±0.16        78.89±0.21         69.46±0.08
"""
_TABLE_7 = """
                       imagenet-v1-resnet18 imagenet-v1-resnet50 imagenet-v1-resnet101 imagenet-v1-mobilenetv2
cross-entropy          69.11±0.12           76.44±0.10           76.00±0.18            71.42±0.12
label-smoothing        69.38±0.19           76.65±0.11           77.01±0.15            71.40±0.09
zipf-label-smoothing   69.43±0.13           76.89±0.17           76.91±0.14            71.24±0.16
online-label-smoothing 69.45±0.15           76.81±0.21           77.12±0.17            71.29±0.11
max-sup                69.59±0.13           77.08±0.07           77.33±0.12            71.59±0.17
logit-penalty          66.97±0.11           74.21±0.16           75.17±0.12            70.39±0.14
"""
_TABLE_1 = """
                         test.accuracy
cross-entropy            74.21
label-smoothing          75.91
ls-regularization        75.98
ls-error-enhancement     73.63
ls-error-enhancement-max 73.69
max-sup                  76.12
"""
# The linear probe's accuracies as the authors give them, for four of the methods.
_TABLE_3 = """
                probe.cifar10.linear
cross-entropy   81.43
label-smoothing 74.58
max-sup         81.02
logit-penalty   72.4
"""
_TABLE_5 = """
                       test.accuracy
cross-entropy          74.39±0.19
label-smoothing        76.08±0.16
zipf-label-smoothing   75.89±0.26
online-label-smoothing 76.16±0.18
max-sup                76.49±0.12
"""
# One run each, in two forms of α; the baseline has none and stands in both.
_TABLE_8 = """
                constant linear
cross-entropy   74.21    74.21
label-smoothing 75.91    76.16
max-sup         76.12    76.58
"""
_TABLE_6 = """
                segment.ade20k.multi.miou
cross-entropy   42.1
label-smoothing 42.4
max-sup         42.8
"""
# R² as printed: it differs from 1 − d_within / d_total of the paper's own columns in the third digit. Table 2 is the
# same without d_total.
_TABLE_9 = """
                       train.d_within test.d_within train.d_total test.d_total train.r_squared test.r_squared
cross-entropy          0.3114         0.3313        0.5212        0.5949       0.4025          0.4451
label-smoothing        0.2632         0.2543        0.4862        0.4718       0.4690          0.4611
online-label-smoothing 0.2707         0.2820        0.6672        0.6570       0.5943          0.5708
zipf-label-smoothing   0.2611         0.2932        0.5813        0.5628       0.5522          0.4790
max-sup                0.2926         0.2998        0.6081        0.5962       0.5188          0.4972
logit-penalty          0.2840         0.3144        0.7996        0.7909       0.6448          0.6024
"""
# fmt: on

_CONSTANT: Json = {"alpha.start": 0.1, "alpha.schedule": "constant"}
_SCHEDULED: Json = {"alpha.start": 0.1, "alpha.end": 0.2, "alpha.schedule": "linear"}
_SGD: Json = {"optimizer.name": "momentum", "optimizer.momentum": 0.9, "optimizer.weight_decay": 1e-4}
_SETTINGS: dict[str, Json] = {
    "imagenet": {
        "data.name": "imagenet",
        "data.train_size": None,
        "epochs": 200,
        "batch_size": 2048,
        "optimizer.lr": 0.85,
        "optimizer.schedule": "cosine",
        **_SGD,
    },
    "imagenet-v1": {
        "data.name": "imagenet",
        "data.train_size": None,
        "epochs": 90,
        "batch_size": 512,
        "optimizer.lr": 0.1,
        "optimizer.schedule": "step",
        "optimizer.step_epochs": 30,
        **_SGD,
    },
    "cifar100": {
        "data.name": "cifar100",
        "data.train_size": None,
        "epochs": 200,
        "batch_size": 128,
        "optimizer.name": "sgd",
        "optimizer.lr": 0.1,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 5e-4,
        "optimizer.schedule": "multistep",
        "optimizer.milestones": [60, 120, 160],
        "optimizer.gamma": 0.2,
    },
    "imagenet-deit": {
        "data.name": "imagenet",
        "data.train_size": None,
        "data.mixup": 0.0,
        "data.cutmix": 0.0,
        "model.name": "deit_small_patch16_224",
        "epochs": 300,
        "batch_size": 1024,
        "optimizer.name": "adamw",
        "optimizer.weight_decay": 0.05,
    },
}
_NETWORKS = {"mobilenetv2": "mobilenetv2_100"}  # where timm's name is another


def _accuracies(table: str, text: str) -> dict[str, list[Published]]:
    found = {}
    for recipe, column in _columns(text).items():
        setting, _, network = recipe.rpartition("-")
        title = f"{network} on {'CIFAR-100' if setting == 'cifar100' else 'ImageNet'}"
        settings = _SETTINGS[setting] | {"model.name": _NETWORKS.get(network, network)} | _SCHEDULED
        found[recipe] = [Published(table, title, {"test.accuracy": column}, settings)]
    return found


PUBLISHED: dict[str, list[Published]] = {
    **_accuracies("Table 4", _TABLE_4_IMAGENET),
    **_accuracies("Table 4", _TABLE_4_CIFAR_100),
    **_accuracies("Table 7", _TABLE_7),
    "imagenet-deit-small": [
        Published(
            "Table 1",
            "the parts of label smoothing, DeiT-Small on ImageNet, α = 0.1",
            _columns(_TABLE_1),
            _SETTINGS["imagenet-deit"] | _CONSTANT,
        ),
        Published(
            "Table 5",
            "DeiT-Small on ImageNet, α 0.1 → 0.2",
            _columns(_TABLE_5),
            _SETTINGS["imagenet-deit"] | _SCHEDULED,
        ),
        Published(
            "Table 6",
            "UperNet over DeiT-Small on ADE20K, multi-scale test",
            _columns(_TABLE_6),
            _SETTINGS["imagenet-deit"] | _SCHEDULED,
        ),
        *(
            Published(
                "Table 8",
                f"DeiT-Small on ImageNet, α {words}",
                {"test.accuracy": _columns(_TABLE_8)[form]},
                _SETTINGS["imagenet-deit"] | alpha,
            )
            for form, words, alpha in (("constant", "= 0.1", _CONSTANT), ("linear", "0.1 → 0.2", _SCHEDULED))
        ),
    ],
}
# For these the paper says no more than "ResNet-50 trained on ImageNet-1K": taken to be Table 4's.
PUBLISHED["imagenet-resnet50"] += [
    Published(table, title, columns, PUBLISHED["imagenet-resnet50"][0].settings)
    for table, title, columns in (
        ("Tables 2 and 9", "features of resnet50 on ImageNet", _columns(_TABLE_9, scale=1)),
        ("Table 3", "linear probe of resnet50 on CIFAR-10", _columns(_TABLE_3)),
    )
]


def published(recipe: Json) -> list[Json]:
    """What the paper prints for the recipe of this name, as plain values for a summary; empty where it has nothing.

    `differs` names each setting that the paper states and this recipe has otherwise.
    """
    return [
        {
            "table": of.table,
            "title": of.title,
            "differs": of.differs(recipe),
            "columns": {
                key: {method: {"mean": mean, "std": std} for method, (mean, std) in column.items()}
                for key, column in of.columns.items()
            },
        }
        for of in PUBLISHED.get(str(recipe["name"]), [])
    ]
