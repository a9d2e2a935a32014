"""Accuracy over classes with many, medium and few training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from maxsup.lab import records

GROUPS = ("many", "medium", "few")
# The bounds of Liu et al., CVPR 2019, arXiv:1904.05160: more training images than the first, fewer than the second.
MANY, FEW = 100, 20
# The largest class has so many times the images of the smallest, or the training images count as balanced.
LONG_TAILED = 2

BY_COUNT = f"many: more than {MANY} training images of the class; medium: {FEW} to {MANY}; few: fewer than {FEW}"
BY_RANK = (
    f"thirds of the classes by number of training images, since one of the groups over {MANY}, {FEW} to {MANY} and "
    f"under {FEW} has no class"
)


@dataclass(frozen=True)
class Shots:
    """What the groups are, and the classes of each, by index."""

    definition: str
    classes: dict[str, list[int]]


def shots(per_class: Sequence[int]) -> Shots | None:
    """The groups for training images `per_class`; None where these are balanced or there are fewer than three classes.

    They are those of Liu et al. (2019) where each has a class. If not, as for all sets of few or of many images, the
    classes are parted into thirds by their images, equal ones by index; the first groups take what is over.

    >>> shots([300, 90, 10]).classes
    {'many': [0], 'medium': [1], 'few': [2]}
    >>> shots([4000, 2000, 1000, 500]).classes
    {'many': [0, 1], 'medium': [2], 'few': [3]}
    """
    if len(per_class) < len(GROUPS) or max(per_class) < LONG_TAILED * min(per_class):
        return None
    places = [0 if n > MANY else 2 if n < FEW else 1 for n in per_class]
    by_count = {name: [c for c, p in enumerate(places) if p == place] for place, name in enumerate(GROUPS)}
    if all(by_count.values()):
        return Shots(BY_COUNT, by_count)
    order = np.argsort(-np.asarray(per_class), kind="stable")
    thirds = np.array_split(order, len(GROUPS))
    return Shots(BY_RANK, {name: sorted(part.tolist()) for name, part in zip(GROUPS, thirds, strict=True)})


def shot_accuracy(logits: Tensor, labels: Tensor, groups: Shots) -> dict[str, float | None]:
    """Accuracy per group, as the mean over its classes of the share of a class's images that is classified right.

    ``accuracy_many``, ``accuracy_medium``, ``accuracy_few``, and ``class_accuracy`` over all classes. Classes without
    an image among `labels` are left out; a group of none but such is None. Logits are (N, K), labels (N,).
    """
    right = (logits.argmax(1) == labels).double()
    counts = labels.bincount(minlength=logits.shape[1])
    accuracy = right.new_zeros(logits.shape[1]).index_add(0, labels, right) / counts

    def mean(classes: Sequence[int]) -> float | None:
        return records.finite(accuracy[[c for c in classes if counts[c] > 0]].mean())

    found = {f"accuracy_{name}": mean(classes) for name, classes in groups.classes.items()}
    return found | {"class_accuracy": mean(range(logits.shape[1]))}


def training_images(run_dir: Path) -> list[int] | None:
    """The run's training images of each class; None for a record that is older than this count.

    Raises:
        RecordError: if ``run.json`` is unreadable.
    """
    file = run_dir / "run.json"
    found = records.read_json(file).get("training_images") if file.is_file() else None
    return None if found is None else [int(n) for n in found["per_class"]]
