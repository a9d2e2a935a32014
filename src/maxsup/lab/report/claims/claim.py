"""What a claim is: a difference between methods with the direction that the paper gives it, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from maxsup.lab.recipes import NEUTRAL
from maxsup.lab.records import Json
from maxsup.lab.report.measures import TRAINED

Expected = Literal["higher", "lower"]


@dataclass(frozen=True)
class Setting:
    """Which comparisons a claim is about: in words, and as a test of a recipe's flat fields."""

    words: str
    holds: Callable[[Json], bool]


@dataclass(frozen=True)
class Twin:
    """A second comparison from whose runs the differences are taken: the same recipe but for `fields`.

    A field is named with its dots, or by the part that all of a group begin with: ``alpha`` is all of alpha's.
    """

    fields: tuple[str, ...]
    setting: Setting

    def differs_only_here(self, recipe: Json, other: Json) -> bool:
        """Whether two recipes, as flat fields, are the same outside of `fields`; what decides speed alone is left out.

        The recipe's name may differ, since it is no setting.
        """
        own = ("name", *NEUTRAL, *self.fields)
        names = [name for name in recipe.keys() | other.keys() if not any(_within(name, field) for field in own)]
        return all(recipe.get(name) == other.get(name) for name in names)


def _within(name: str, field: str) -> bool:
    return name == field or name.startswith(f"{field}.")


@dataclass(frozen=True)
class Claim:
    """A statement of the paper that a paired difference can confirm or contradict.

    Args:
        name: short and unique.
        statement: the claim in a sentence.
        where: table, section or figure.
        measure: key of the measure (see `Measure`), or a pattern with ``*`` for the part that names the data.
        of, than: the methods whose difference `of` − `than` is meant; without `than` it is `of` − `of` in the twin.
        expected: the difference's direction by the claim.
        setting: the comparisons that it is about.
        twin: with both methods, what is compared is each one's difference from its runs in the twin.
        commands: what measures it, one after the other.
        printed: the differences that the paper's tables print.
    """

    name: str
    statement: str
    where: str
    measure: str
    of: str
    than: str | None
    expected: Expected
    setting: Setting
    commands: tuple[str, ...]
    twin: Twin | None = None
    printed: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.than is None and self.twin is None:
            raise ValueError(f"claim {self.name!r} needs a method that it compares with, or a twin")

    @property
    def methods(self) -> list[str]:
        """The methods whose runs it needs."""
        return [self.of] if self.than is None else [self.of, self.than]

    def keys(self, found: set[str]) -> list[str]:
        """The measures that it is tested on among those `found`.

        What every finished run has is one even where no run is finished. A segmentation that was tested at several
        scales counts by that test alone, which is the paper's.
        """
        if self.measure in TRAINED:
            return [self.measure]
        matching = sorted(key for key in found if fnmatchcase(key, self.measure))
        return [key for key in matching if ".single." not in key or key.replace(".single.", ".multi.") not in matching]


@dataclass(frozen=True)
class Topic:
    """Claims that stand together, and what a reader should know about them."""

    title: str
    claims: tuple[Claim, ...]
    note: str = ""
