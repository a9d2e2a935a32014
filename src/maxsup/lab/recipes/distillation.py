"""The recipe of a student: any recipe, and how it learns from the logits of trained networks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from maxsup.lab.recipes.settings import Recipe

PREFIX = "distilled-from-"
"""What the method of a student's run is called, before the name of the teacher's method."""


@dataclass(frozen=True)
class Student(Recipe):
    """A training run whose loss is (1 − weight)·CE + weight·T²·KL(teacher ‖ student) at temperature T."""

    temperature: float = 4.0
    """T, by which both networks' logits are divided in the KL divergence."""
    weight: float = 0.9
    """Share of the teacher in the loss; the rest is cross-entropy with the labels."""
    teachers: tuple[str, ...] = ()
    """Folders of the teachers' runs, or of their comparison."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be a finite number above 0, got {self.temperature}")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight must be from 0 to 1, got {self.weight}")
        if not self.teachers:
            raise ValueError("teachers must name at least one folder")


def student(recipe: Recipe, temperature: float, weight: float, teachers: tuple[str, ...]) -> Student:
    """`recipe` as a student's."""
    fields = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(Recipe)}
    fields["name"] = f"{recipe.name}-distilled"
    return Student(**fields, temperature=temperature, weight=weight, teachers=teachers)
