"""The measures of the report and the tables they stand in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Measure:
    """One column: its key in a summary, and how it is shown.

    `key` is ``<split>.<name>`` for what `maxsup train` and `maxsup analyze` measured, ``probe.<data>.<name>`` and
    ``localization.<data>.<name>`` for the records that have one per data set, ``segment.<label>.<way>.<name>`` for
    fine-tunings.
    """

    key: str
    title: str
    meaning: str
    percent: bool = False
    """Kept as a fraction, shown times 100."""
    better: Better | None = None
    """The direction that a user wants, or that the paper prefers (class separation); None where there is none."""


@dataclass(frozen=True)
class Table:
    """One table of values, and one of differences from the reference unless `differences` is False."""

    title: str
    measures: tuple[Measure, ...]
    differences: bool = True


@dataclass(frozen=True)
class Group:
    """One section: its anchor, title and tables.

    `record` is how the names of the files begin that some of its measures come from, None if `maxsup train` made them
    all; `absent` says so where no run has such a file.
    """

    name: str
    title: str
    tables: tuple[Table, ...]
    record: str | None = "analysis.json"
    absent: str = "Not analysed: maxsup analyze DIR."


def _selective(title: str, suffix: str, mark: str, *more: Measure) -> Table:
    aurc = Measure(f"test.aurc{suffix}", f"AURC{mark}", f"area under the risk-coverage curve{mark}", better="lower")
    coverages = (
        Measure(
            f"test.coverage_at_{risk}{suffix}",
            f"coverage{mark} % at {risk}%",
            f"largest share of images that can be kept, the surest first, with at most {risk}% errors among them",
            percent=True,
            better="higher",
        )
        for risk in (1, 5, 10)
    )
    return Table(title, (aurc, *coverages, *more))


ACCURACY = Group(
    "accuracy",
    "Accuracy and confidence",
    (
        Table(
            "Test images",
            (
                Measure("test.accuracy", "accuracy %", "share of test images classified right", True, "higher"),
                Measure("test.nll", "NLL", "mean negative log-likelihood of the true class, in nats", better="lower"),
                Measure(
                    "test.confidence_right", "conf. right", "mean probability of the top-1 class where it is right"
                ),
                Measure(
                    "test.confidence_wrong",
                    "conf. wrong",
                    "mean probability of the top-1 class where it is wrong",
                    better="lower",
                ),
            ),
        ),
    ),
    record=None,
)
CALIBRATION = Group(
    "calibration",
    "Calibration before and after temperature scaling",
    (
        Table(
            "Test images, before scaling",
            (
                Measure("test.ece", "ECE", "expected calibration error, 15 equal-width bins", better="lower"),
                Measure("test.adaptive_ece", "aECE", "the same with bins of equal counts", better="lower"),
                Measure("test.brier", "Brier", "Brier score", better="lower"),
            ),
        ),
        Table(
            "Test images, after scaling by T",
            (
                Measure("analysis.temperature", "T", "temperature fitted on the validation images"),
                Measure("test.ece_scaled", "ECE at T", "ECE after scaling by T", better="lower"),
                Measure("test.adaptive_ece_scaled", "aECE at T", "aECE after scaling by T", better="lower"),
                Measure("test.brier_scaled", "Brier at T", "Brier score after scaling by T", better="lower"),
                Measure("test.nll_scaled", "NLL at T", "NLL after scaling by T", better="lower"),
            ),
        ),
    ),
)
SELECTIVE = Group(
    "selective",
    "Selective classification",
    (
        _selective("Test images sorted by the top-1 probability", "", ""),
        _selective(
            "Test images sorted by the normalised logit (LN), max (z − mean z) / ‖z − mean z‖ₚ",
            "_logit_norm",
            " LN",
            Measure("analysis.p", "p", "order of the norm, chosen on the validation images"),
        ),
    ),
)
REPRESENTATION = Group(
    "representation",
    "Representation and collapse",
    (
        Table(
            "Penultimate features: class separation",
            (
                Measure(
                    "train.d_within",
                    "d_within train",
                    "mean cosine distance within a class, training images; the paper prefers it, and R², higher",
                    better="higher",
                ),
                Measure("test.d_within", "d_within test", "the same, test images", better="higher"),
                Measure(
                    "train.r_squared",
                    "R² train",
                    "share of the cosine distance that lies between classes, training images",
                    better="higher",
                ),
                Measure("test.r_squared", "R² test", "the same, test images", better="higher"),
            ),
        ),
        Table(
            "Test features: collapse",
            (
                Measure(
                    "test.vci", "VCI", "variability collapse index: 0 where the class means tell all, 1 if nothing"
                ),
                Measure("test.nc1", "NC1", "within-class against between-class covariance: 0 at full collapse"),
                Measure(
                    "test.nc2",
                    "NC2",
                    "distance of the classifier's Gram matrix from a simplex frame's: 0 at full collapse",
                ),
                Measure("test.nc3", "NC3", "the same of the classifier's rows times the class means"),
                Measure("test.nc4", "NC4", "share of images whose nearest class mean and classifier disagree"),
            ),
        ),
    ),
)
ENHANCEMENT = Group(
    "enhancement",
    "Error enhancement in label smoothing's penalty",
    (
        Table(
            "Test images",
            (
                Measure("test.wrong_share", "z_gt not max %", "share of images with a logit above the true one", True),
                Measure(
                    "test.error_enhancement_share",
                    "error enh. %",
                    "mean share |E| / (R + |E|) of error enhancement E beside regularisation R in an image's penalty",
                    True,
                ),
                Measure(
                    "test.error_enhancement_share_wrong",
                    "error enh. % (wrong)",
                    "the same over misclassified images",
                    True,
                ),
            ),
        ),
    ),
)
ANALYZED = (CALIBRATION, SELECTIVE, REPRESENTATION, ENHANCEMENT)

# What every finished run has measured; the other measures appear where some run has them.
TRAINED = frozenset(
    {"test.accuracy", "test.nll", "test.confidence_right", "test.confidence_wrong", "test.ece"}
    | {f"{split}.{name}" for split in ("train", "test") for name in ("d_within", "r_squared")}
)

# The threshold of the CAM overlays that stands in the table with differences; all stand in tables of their own.
SHOWN_THRESHOLD = 0.5

_OVERLAPS = (
    ("precision", "precision", "share of the pixels above the threshold that lie inside the mask"),
    ("recall", "recall", "share of the mask that lies above the threshold"),
    ("iou", "IoU", "intersection over union of the mask and the pixels above the threshold"),
)


def groups(found: Collection[str], probed: Collection[str], masks: Mapping[str, list[float]]) -> list[Group]:
    """The groups of a report whose runs have the measures `found`, by key.

    `probed` are the probed data sets, `masks` the thresholds by data set with masks.
    """
    fixed = []
    for group in (ACCURACY, *ANALYZED):
        kept = [
            replace(table, measures=tuple(of for of in table.measures if of.key in found or of.key in TRAINED))
            for table in group.tables
        ]
        fixed.append(replace(group, tables=tuple(table for table in kept if table.measures)))
    return [
        *fixed,
        Group(
            "transfer",
            "Transfer",
            tuple(transfer(data) for data in sorted(probed)),
            record="probe-",
            absent="Not probed: maxsup probe DIR --data NAME.",
        ),
        Group(
            "overlays",
            "CAM overlays against masks",
            tuple(table for data in sorted(masks) for table in overlays(data, masks[data])),
            record="localization-",
            absent="No overlay was measured against masks.",
        ),
    ]


def transfer(data: str) -> Table:
    """The table of one probed data set; `data` is what follows ``probe-`` in the record's name."""
    return Table(
        data,
        (
            Measure(
                f"probe.{data}.linear",
                "linear %",
                "test accuracy of a logistic regression on the frozen features",
                True,
                "higher",
            ),
            Measure(
                f"probe.{data}.knn",
                "k-NN %",
                "test accuracy of k nearest neighbours by cosine distance",
                True,
                "higher",
            ),
        ),
    )


def overlays(data: str, thresholds: list[float]) -> list[Table]:
    """The tables of one data set with masks, over CAM thresholds as shares of the largest activation."""
    prefix = f"localization.{data}"

    def at(threshold: float, name: str, title: str, meaning: str) -> Measure:
        return Measure(f"{prefix}.{name}@{threshold:g}", title, meaning, True, "higher" if name == "iou" else None)

    main = [
        Measure(
            f"{prefix}.energy_inside",
            "energy inside %",
            "share of the CAM's sum that lies inside the mask",
            True,
            "higher",
        ),
        Measure(
            f"{prefix}.pointing_game",
            "pointing game %",
            "share of images whose largest activation lies inside the mask",
            True,
            "higher",
        ),
    ]
    if SHOWN_THRESHOLD in thresholds:
        shown = f"{SHOWN_THRESHOLD:g}"
        main += [
            at(SHOWN_THRESHOLD, name, f"{title} % at {shown}", f"{meaning} {shown}")
            for name, title, meaning in _OVERLAPS
        ]
    return [
        Table(data, tuple(main)),
        *(
            Table(
                f"{data}: {title} % over the threshold",
                tuple(at(threshold, name, f"{threshold:g}", meaning) for threshold in thresholds),
                differences=False,
            )
            for name, title, meaning in _OVERLAPS
        ),
    ]
