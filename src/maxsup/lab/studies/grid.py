"""The grid that `maxsup tune` tries with every method, and the rule by which a point of it is chosen.

The rule sees validation accuracies alone: what is read of a run is `validation_accuracy`, never a measure of the test
split.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from maxsup.lab.recipes import Recipe
from maxsup.lab.records import RecordError, RunRecord

FACTORS = (0.5, 1.0, 2.0)
RULE = (
    "the highest mean validation accuracy over the tuning seeds; of equal means the point nearest to the recipe's own, "
    "by |log2 of the ratio of learning rates| + |log2 of the ratio of weight decays|, then the lower learning rate, "
    "then the lower weight decay; a point with a run that diverged is not chosen"
)


@dataclass(frozen=True, order=True)
class Point:
    """A learning rate and a weight decay."""

    lr: float
    weight_decay: float

    @property
    def name(self) -> str:
        """The folder of its comparison.

        >>> Point(0.05, 2.5e-05).name
        'lr-0.05-wd-2.5e-05'
        """
        return f"lr-{self.lr:.12g}-wd-{self.weight_decay:.12g}"

    def __str__(self) -> str:
        return f"lr {self.lr:.12g}, weight decay {self.weight_decay:.12g}"


def own_point(recipe: Recipe) -> Point:
    """The recipe's own."""
    return Point(recipe.optimizer.lr, recipe.optimizer.weight_decay)


def at(recipe: Recipe, point: Point) -> Recipe:
    """The recipe with a point's learning rate and weight decay; all else of it stays."""
    optimizer = dataclasses.replace(recipe.optimizer, lr=point.lr, weight_decay=point.weight_decay)
    return dataclasses.replace(recipe, optimizer=optimizer)


def points(
    recipe: Recipe, lrs: Sequence[float] | None = None, weight_decays: Sequence[float] | None = None
) -> list[Point]:
    """The points of the grid in rising order: by default half, once and twice the recipe's own values.

    Raises:
        ValueError: if a list is empty, a learning rate is not above 0, or a weight decay is below 0; or, for the
            default learning rates, if the recipe's own is 0.
    """
    own = own_point(recipe)
    if lrs is None:
        lrs = [factor * own.lr for factor in FACTORS]
    if weight_decays is None:
        weight_decays = [factor * own.weight_decay for factor in FACTORS]
    for name, values in (("lrs", lrs), ("weight_decays", weight_decays)):
        if not values:
            raise ValueError(f"{name} must name at least one value")
    # `not (0 < x)` and not `x <= 0`: NaN is refused too.
    for lr in lrs:
        if not 0 < lr < math.inf:
            raise ValueError(f"lrs must be finite numbers above 0, got {lr}")
    for decay in weight_decays:
        if not 0 <= decay < math.inf:
            raise ValueError(f"weight_decays must be finite numbers of at least 0, got {decay}")
    by_name = {of.name: of for of in (Point(lr, decay) for lr in lrs for decay in weight_decays)}
    return sorted(by_name.values())


def distance(point: Point, own: Point) -> float:
    """How far a point is from the recipe's own, in doublings of either value; infinite from 0 to what is above it.

    >>> distance(Point(0.05, 1e-3), Point(0.1, 5e-4))
    2.0
    """
    pairs = ((point.lr, own.lr), (point.weight_decay, own.weight_decay))
    # Rounded, so that 0.1·2 and 0.2 are as far.
    return sum(round(abs(math.log2(a / b)), 9) if a and b else 0.0 if a == b else math.inf for a, b in pairs)


@dataclass(frozen=True)
class Tried:
    """What a method gave at a point: the validation accuracies of its finished runs, and how many diverged."""

    point: Point
    accuracies: tuple[float, ...]
    diverged: int = 0

    @property
    def mean(self) -> float | None:
        """The mean validation accuracy; None if a run diverged."""
        # Rounded, so that the order of the seeds parts no equal means.
        return None if self.diverged or not self.accuracies else round(fmean(self.accuracies), 12)


def validation_accuracy(run: RunRecord) -> float:
    """The share of validation images that a finished run's tested weights classify right.

    Raises:
        RecordError: if the run's result has none.
    """
    accuracy = run.result.get("measures", {}).get("validation", {}).get("accuracy")
    if isinstance(accuracy, bool) or not isinstance(accuracy, int | float) or not 0 <= accuracy <= 1:
        raise RecordError(f"{run.path}: no validation accuracy in the result, got {accuracy!r}")
    return float(accuracy)


def tried(point: Point, runs: Sequence[RunRecord]) -> Tried:
    """What a method's runs at a point gave.

    Raises:
        RecordError: if a run is neither finished nor diverged: a choice without it would be chance.
    """
    for run in runs:
        if run.status not in ("finished", "diverged"):
            raise RecordError(f"{run.path} is {run.status}: nothing is chosen before all runs of the grid are done")
    finished = [run for run in runs if run.status == "finished"]
    return Tried(point, tuple(map(validation_accuracy, finished)), len(runs) - len(finished))


def choose(method: str, of: Sequence[Tried], own: Point) -> Point:
    """The point for a method, by `RULE`.

    Raises:
        ValueError: if at every point a run diverged.
    """
    candidates = [(one.mean, one.point) for one in of if one.mean is not None]
    if not candidates:
        raise ValueError(f"{method} diverged at every point of the grid: give lower --lrs")
    best = max(mean for mean, _ in candidates)
    tied = [point for mean, point in candidates if mean == best]
    return min(tied, key=lambda point: (distance(point, own), point))


def edges(point: Point, grid: Sequence[Point]) -> list[str]:
    """The values of a chosen point at which the grid ends, so that a better one may lie beyond."""
    found = []
    for name, value, values in (
        ("learning rate", point.lr, {of.lr for of in grid}),
        ("weight decay", point.weight_decay, {of.weight_decay for of in grid}),
    ):
        if len(values) > 1 and value in (min(values), max(values)):
            found.append(name)
    return found
