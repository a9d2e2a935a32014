"""What the studies are made of: methods by name, measures by key, rows and columns."""

from __future__ import annotations

from collections.abc import Sequence

from maxsup.lab.report import measures, robustness
from maxsup.lab.report.measures import Measure
from maxsup.lab.studies.study import Row

CE, LS, OURS = "cross-entropy", "label-smoothing", "max-sup"
SMOOTHING = (CE, LS, "zipf-label-smoothing", "online-label-smoothing", OURS)
SEVEN = (CE, LS, "online-label-smoothing", "zipf-label-smoothing", OURS, "logit-penalty", "confidence-penalty")
PARTS = (CE, LS, "ls-regularization", "ls-error-enhancement", "ls-error-enhancement-max", OURS)

# The report's own measures, and the one that the paper's Table 9 has beside them.
MEASURES = {
    of.key: of
    for table in (
        *(table for group in (measures.ACCURACY, *measures.ANALYZED) for table in group.tables),
        robustness.LABELS,
        robustness.SHOTS,
    )
    for of in table.measures
} | {
    f"{split}.d_total": Measure(f"{split}.d_total", f"d_total {split}", "mean cosine distance of features, any classes")
    for split in ("train", "test")
}
ACCURACY = MEASURES["test.accuracy"]


def rows(methods: Sequence[str]) -> tuple[Row, ...]:
    """A row for each method, under its own name."""
    return tuple(Row(method, method) for method in methods)


def probed(data: str, kind: str = "linear") -> Measure:
    """The accuracy of a probe whose record is ``probe-<data>.json``; `kind` is linear or knn."""
    (found,) = (of for of in measures.transfer(data).measures if of.key == f"probe.{data}.{kind}")
    return found
