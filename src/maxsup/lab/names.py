"""Looking a name up in a registry, with an error that helps."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class UnknownNameError(ValueError):
    """A name that no registry has; the message names the nearest."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for `name`, with the nearest known names, or all of them when none is near.

    >>> print(unknown("recipe", "digit-convnet", ["digits-convnet", "other"]))
    unknown recipe 'digit-convnet'; did you mean digits-convnet?
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return UnknownNameError(f"unknown {kind} {name!r}; {hint}")


def lookup(kind: str, name: str, registry: Mapping[str, T]) -> T:
    """`registry[name]`.

    Raises:
        UnknownNameError: naming the nearest names.
    """
    if name not in registry:
        raise unknown(kind, name, registry)
    return registry[name]
