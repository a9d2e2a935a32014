"""Chance that depends on a seed and a number alone, for libraries that draw from the global generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray


def seeds(seed: int, purpose: int, n: int) -> NDArray[np.uint32]:
    """Seeds for the n positions of an epoch of `seed`, for one purpose."""
    return np.random.SeedSequence([seed, purpose]).generate_state(n).astype(np.uint32)


def seed_of(seed: int, purpose: int, number: int) -> int:
    """The seed for the `number`-th batch of an epoch of `seed`, for one purpose."""
    return int(np.random.SeedSequence([seed, purpose, number]).generate_state(1)[0])


@contextmanager
def preserved() -> Iterator[None]:
    """Restores `random` and NumPy's global generator, from which timm draws, at the end."""
    before, before_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(before_numpy)  # noqa: NPY002


def start_at(seed: int) -> None:
    """Lets `random` and NumPy's global generator start at `seed`; within `preserved`."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
