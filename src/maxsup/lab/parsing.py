"""From the words of a command line to its options, with errors of one line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from maxsup.lab.names import lookup, unknown
from maxsup.lab.recipes import RECIPES

T = TypeVar("T")


class UsageError(ValueError):
    """The command line is wrong; the message says how."""


def option_names(kind: Any, recipe: Any | None) -> list[str]:
    """The options of a command, those of its recipe's fields included."""

    def names(of: Any, prefix: str = "") -> list[str]:
        return [
            name
            for field in dataclasses.fields(of)
            for name in (
                names(getattr(of, field.name), f"{prefix}{field.name}.")
                if dataclasses.is_dataclass(getattr(of, field.name, None))
                else [f"--{prefix}{field.name}".replace("_", "-")]
            )
        ]

    own = [name for name in names(kind) if name != "--recipe"]
    return own + (names(recipe) if recipe else [])


def take(name: str, arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The last value of an option, and the arguments without it."""
    value, rest, pending = None, [], False
    for argument in arguments:
        if pending:
            value, pending = argument, False
        elif argument == name:
            pending = True
        elif argument.startswith(f"{name}="):
            value = argument.removeprefix(f"{name}=")
        else:
            rest.append(argument)
    if pending:
        raise UsageError(f"{name} needs a value")
    return value, rest


def parse(
    kind: Callable[..., T], command: str, arguments: Sequence[str], recipe: Any | None = None, place: str = "out"
) -> T:
    """Arguments to a dataclass through tyro; an unknown option becomes one line with the nearest names.

    `recipe` fills the field of that name; `place` is the field that then has to be given.
    """
    options: Any = {"default": kind(recipe=recipe, **{place: tyro.MISSING})} if recipe else {}
    parsed: T
    rest: list[str]
    parsed, rest = tyro.cli(kind, prog=f"maxsup {command}", args=list(arguments), return_unknown_args=True, **options)
    if rest:
        if rest[0].startswith("-"):
            raise unknown("option", rest[0].split("=")[0], option_names(kind, recipe))
        raise UsageError(f"unexpected argument {rest[0]!r}")
    workers = getattr(parsed, "workers", None)
    if workers is not None and workers < 1:  # told here, before anything is read or written
        raise UsageError(f"--workers must be at least 1, got {workers}")
    return parsed


def parse_with_recipe(kind: Callable[..., T], command: str, arguments: Sequence[str]) -> T:
    """`parse` after the name of a recipe, whose fields are options too."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        raise UsageError(f"`maxsup {command}` takes a recipe first: {', '.join(RECIPES)}")
    if arguments[0].startswith("-"):
        first = next(iter(RECIPES))
        print(f"usage: maxsup {command} RECIPE [options]\n\nRECIPE is one of {', '.join(RECIPES)}.\n")
        print(f"Shown with the values of {first}; `maxsup {command} RECIPE --help` shows another's.\n")
        return parse(kind, f"{command} RECIPE", ["--help"], RECIPES[first]())
    recipe = lookup("recipe", arguments[0], RECIPES)()
    # The same option by the name of what it is for.
    rest = [re.sub(r"^--pretrain[-_]classes(?=$|=)", "--data.classes", argument) for argument in arguments[1:]]
    return parse(kind, f"{command} {recipe.name}", rest, recipe)


def parse_with_paths(kind: Callable[..., T], command: str, arguments: Sequence[str]) -> T:
    """`parse` of options that follow folders."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        raise UsageError(f"`maxsup {command}` takes folders of finished runs or comparisons first")
    return parse(kind, command, arguments)
