"""The tables of fine-tunings for semantic segmentation."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from maxsup.lab.report.measures import Group, Measure, Table

# By the name of the way in which a record's measures were taken.
WAYS = {"single": "one scale", "multi": "several scales"}
# Columns of classes that a table has room for; with more, the figure alone shows them.
MOST_CLASSES = 25


def group(segmented: Mapping[str, Sequence[str]], found: Collection[str]) -> Group:
    """The section of all fine-tunings, by label their classes; `found` are the keys of measures that some run has."""
    return Group(
        "segmentation",
        "Semantic segmentation",
        tuple(table for label in sorted(segmented) for table in segmentation(label, segmented[label], found)),
        record="segment-",
        absent="No backbone was fine-tuned to segment: maxsup segment DIR --data NAME.",
    )


def segmentation(label: str, classes: Sequence[str], found: Collection[str]) -> list[Table]:
    """The tables of the fine-tuning `label`, for the ways of testing that some run was tested in."""
    tables = []
    ways = [way for way in WAYS if f"segment.{label}.{way}.miou" in found]
    for way in ways:
        prefix = f"segment.{label}.{way}"
        tables.append(
            Table(
                f"{label}, {WAYS[way]}",
                (
                    Measure(
                        f"{prefix}.miou",
                        "mIoU %",
                        "mean over the classes of the intersection over union, from all test pixels' confusion matrix",
                        True,
                        "higher",
                    ),
                    Measure(
                        f"{prefix}.mean_accuracy",
                        "mean acc. %",
                        "mean over the classes of the share of a class's pixels predicted right",
                        True,
                        "higher",
                    ),
                    Measure(
                        f"{prefix}.pixel_accuracy",
                        "pixel acc. %",
                        "share of the pixels predicted right",
                        True,
                        "higher",
                    ),
                ),
            )
        )
    if ways and len(classes) <= MOST_CLASSES:
        prefix = f"segment.{label}.{ways[-1]}"
        columns = (Measure(f"{prefix}.iou@{name}", name, "IoU of the class", True, "higher") for name in classes)
        present = tuple(column for column in columns if column.key in found)
        tables.append(Table(f"{label}, {WAYS[ways[-1]]}: IoU % by class", present, differences=False))
    return tables
