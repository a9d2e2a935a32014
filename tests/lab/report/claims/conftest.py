"""Comparisons whose verdicts are known."""

import pytest

from maxsup.lab.report.claims import summarize_claims
from maxsup.lab.report.claims.tables import numbered
from tests.lab.report import factory

CE, LS, OURS = "cross-entropy", "label-smoothing", "max-sup"
# MaxSup − cross-entropy as thousandths by seed, and how many of the 2¹⁰ sign patterns have a sum as far from 0. With
# one seed's sign against the rest a pattern does if its minus signs add up to no more than that seed's number:
# {}, {1}, {2}, {3}, {1, 2} for 3; twice as many on both sides.
ALL_UP, FIRST_DOWN, THIRD_DOWN = (
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    [-1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    [1, 2, -3, 4, 5, 6, 7, 8, 9, 10],
)
EITHER_WAY = [1, -1, 2, -2, 3, -3, 4, -4, 5, -5]


def values(thousandths, start=0.5):
    return [start + by / 1000 for by in thousandths]


def recipe(**changes):
    """A recipe's record; `alpha` is (start, end, schedule)."""
    alpha = dict(zip(("start", "end", "schedule"), changes.pop("alpha", (0.1, 0.2, "linear")), strict=True))
    return {"name": "small", "epochs": changes.pop("epochs", 5), "alpha": alpha, "data": changes}


def compared(directory, differences, settings=None, start=0.5, **others):
    """Cross-entropy at `start` on every seed, and each method by so many thousandths above it."""
    n = len(next(iter(differences.values())))
    accuracy = {CE: [start] * n} | {method: values(of, start) for method, of in differences.items()}
    return factory.measured(directory, accuracy, settings or recipe(), **others)


@pytest.fixture
def claim_of():
    """The claim of a name in the summary of a folder."""

    def of(directory, name):
        return {claim["name"]: claim for _, claim in numbered(summarize_claims(directory))}[name]

    return of
