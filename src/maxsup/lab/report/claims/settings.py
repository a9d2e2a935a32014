"""Which comparisons the claims are about, by their recipes."""

from __future__ import annotations

from maxsup.lab.records import Json
from maxsup.lab.report.claims.claim import Setting, Twin


def _has_clean_labels(recipe: Json) -> bool:
    return bool(recipe["data.label_noise"] == 0)


def _is_balanced(recipe: Json) -> bool:
    return recipe["data.imbalance"] in (None, 1)


def _is_constant(recipe: Json) -> bool:
    """α = 0.1 throughout, in whichever of the ways to write it."""
    start, end, schedule = (recipe[f"alpha.{name}"] for name in ("start", "end", "schedule"))
    return bool(start == 0.1 and (schedule == "constant" or end == 0.1))


def _is_scheduled(recipe: Json) -> bool:
    return [recipe[f"alpha.{name}"] for name in ("start", "end", "schedule")] == [0.1, 0.2, "linear"]


def _has_the_papers_alpha(recipe: Json) -> bool:
    return _is_constant(recipe) or _is_scheduled(recipe)


def _is_plain(recipe: Json) -> bool:
    return _has_clean_labels(recipe) and _is_balanced(recipe)


PLAIN = Setting(
    "clean labels, classes as they are, the paper's α (0.1, or 0.1 → 0.2 linearly)",
    lambda recipe: _is_plain(recipe) and _has_the_papers_alpha(recipe),
)
CONSTANT = Setting(
    "clean labels, classes as they are, α = 0.1", lambda recipe: _is_plain(recipe) and _is_constant(recipe)
)
SCHEDULED = Setting(
    "clean labels, classes as they are, α 0.1 → 0.2 linearly and a twin with α = 0.1",
    lambda recipe: _is_plain(recipe) and _is_scheduled(recipe),
)
NOISY = Setting(
    "wrong labels among the training images, classes as they are, the paper's α",
    lambda recipe: not _has_clean_labels(recipe) and _is_balanced(recipe) and _has_the_papers_alpha(recipe),
)
LONG_TAILED = Setting(
    "clean labels, classes of falling size, the paper's α",
    lambda recipe: _has_clean_labels(recipe) and not _is_balanced(recipe) and _has_the_papers_alpha(recipe),
)
OTHER_ALPHA = Twin(("alpha",), CONSTANT)
WITHOUT_NOISE = Twin(("data.label_noise", "data.noise_kind"), PLAIN)
