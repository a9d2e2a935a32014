"""The report's sections on wrong labels, long-tailed classes and corrupted images."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from maxsup.lab.records import Json
from maxsup.lab.report.measures import Group, Measure, Table

CORRUPTIONS = "corruptions.json"

LABEL_NOISE = "label-noise"
LONG_TAIL = "long-tail"

LABELS = Table(
    "Training images, some with wrong labels",
    (
        Measure("train.accuracy", "accuracy on given labels %", "share predicted as labelled, right or wrong", True),
        Measure(
            "train_clean.accuracy", "accuracy on right labels %", "share predicted as they should be", True, "higher"
        ),
        Measure(
            "train_clean.memorized",
            "memorised %",
            "share of the images with a wrong label that are predicted as that label",
            True,
            "lower",
        ),
        Measure(
            "train_clean.recovered",
            "recovered %",
            "share of the images with a wrong label that are predicted as the right one",
            True,
            "higher",
        ),
        Measure("train_clean.r_squared", "R² right labels", "class separation of all training images by right labels"),
    ),
)
SHOTS = Table(
    "Test images, by the number of training images of their class",
    (
        Measure("test.class_accuracy", "all classes %", "mean over the classes of their accuracy", True, "higher"),
        *(
            Measure(f"test.accuracy_{group}", f"{group} %", f"the same over the {group}-shot classes", True, "higher")
            for group in ("many", "medium", "few")
        ),
    ),
)
_MEASURES = (
    ("error", "error %", "share of images classified wrong", True),
    ("nll", "NLL", "mean negative log-likelihood, in nats", False),
    ("ece", "ECE", "expected calibration error, 15 equal-width bins", False),
)


def groups(found: Collection[str], corruptions: Mapping[str, str]) -> list[Group]:
    """The sections for which runs have measures, of those `found`, by key; `corruptions` gives each kind its family."""
    sections = []
    if "train_clean.accuracy" in found:
        sections.append(Group(LABEL_NOISE, "Wrong training labels", (LABELS,), record=None))
    if "test.class_accuracy" in found:
        kept = tuple(of for of in SHOTS.measures if of.key in found)
        sections.append(Group(LONG_TAIL, "Long-tailed classes", (Table(SHOTS.title, kept),)))
    if corruptions:
        sections.append(
            Group(
                "corruptions",
                "Corrupted test images",
                tuple(_tables(corruptions)),
                record=CORRUPTIONS,
                absent="Not tested on corrupted images: maxsup corrupt DIR.",
            )
        )
    return sections


def _tables(corruptions: Mapping[str, str]) -> list[Table]:
    means = [
        Measure(f"corruptions.{name}", f"mean {title}", f"{meaning}; over kinds and severities", percent, "lower")
        for name, title, meaning, percent in _MEASURES
    ]
    means += [
        Measure(f"corruptions.error.{family}", f"{family}: error %", f"error over the kinds of {family}", True, "lower")
        for family in dict.fromkeys(corruptions.values())
    ]
    tables = [Table("Mean over kinds and severities", tuple(means))]
    for name, title, _, percent in _MEASURES:
        of_kinds = tuple(
            Measure(f"corruptions.{name}.{kind}", kind.replace("-", " "), f"a kind of {family}", percent, "lower")
            for kind, family in corruptions.items()
        )
        # Differences for one measure: twelve columns each are enough of them.
        tables.append(Table(f"{title} by kind, mean over severities", of_kinds, differences=name == "error"))
    for name, title, meaning, percent in _MEASURES:
        of_severities = tuple(
            Measure(f"corruptions.{name}.{severity}", "clean" if severity == 0 else str(severity), meaning, percent)
            for severity in range(6)
        )
        tables.append(Table(f"{title} by severity, mean over kinds", of_severities, differences=False))
    return tables


def corruption_values(content: Json) -> dict[str, object]:
    """The values of a record of corrupted images, by the keys of the tables.

    Raises:
        KeyError: if it lacks a part.
    """
    values: dict[str, object] = {}
    for name, *_ in _MEASURES:
        key = f"corruptions.{name}"
        values |= {key: content["mean"][name], f"{key}.0": content["clean"][name]}
        values |= {f"{key}.{s}": value for s, value in enumerate(content["by_severity"][name], start=1)}
        values |= {f"{key}.{family}": of[name] for family, of in content["by_family"].items()}
        values |= {f"{key}.{kind}": sum(of[name]) / len(of[name]) for kind, of in content["corruptions"].items()}
    return values


def remarks(info: Json) -> dict[str, str]:
    """What a run's record says of its training labels, by the group that it belongs to."""
    data, images = info.get("recipe", {}).get("data", {}), info.get("training_images")
    rate = data.get("label_noise", 0)
    if not rate or not images:
        return {}
    kind = "the next class" if data["noise_kind"] == "pair" else "any other class with equal chance"
    share = f"{images['flipped']} of {sum(images['per_class'])} training images, {rate:.0%} of each class,"
    return {
        LABEL_NOISE: f"{share} have a wrong label: {kind}, the same for all methods and seeds. The labels of "
        "validation and test images are right."
    }


def definition(shots: Json) -> str:
    """The groups of classes of an analysis, in words."""
    counts = ", ".join(f"{len(classes)} {name}" for name, classes in shots["classes"].items())
    return f"Classes: {counts}. By {shots['definition']}."
