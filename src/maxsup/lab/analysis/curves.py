"""Outputs of a run as curves, small enough for a record and made so that the runs of a method can be added up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maxsup.lab.records import Json
from maxsup.metrics import calibration, selective

BINS = 15
# A curve in a record has at most so many points, and a histogram at most about so many bins.
POINTS = 200
DENSITY_BINS = 256
# A logit counts as near zero below this magnitude, where it changes its class's odds by less than a factor of 1.65.
NEAR_ZERO = 0.5
NEAR_ZERO_BINS = 20


def significant(values: Sequence[float] | NDArray[np.float64] | Tensor, digits: int = 6) -> list[float | None]:
    """The values to `digits` significant digits; None for NaN and infinities.

    >>> significant([0.123456789, float("nan")], 3)
    [0.123, None]
    """
    return [float(f"{float(x):.{digits}g}") if math.isfinite(x) else None for x in values]


def reliability(logits: Tensor, labels: Tensor) -> Json:
    """Count, mean confidence and accuracy of 15 equal-width bins of the largest probability; None in an empty bin."""
    count, confidence, accuracy = calibration.reliability(logits, labels, BINS)
    return {"count": count.tolist(), "confidence": significant(confidence), "accuracy": significant(accuracy)}


def risk_coverage(logits: Tensor, labels: Tensor, p: float) -> Json:
    """Risk at `POINTS` coverages at most, by largest probability and by logit normalisation with `p`.

    Points are exact: of n images, the risks of i of them for evenly spread i, the last of which is n.
    """
    correct = logits.argmax(1) == labels
    n = len(labels)
    kept = np.unique(np.ceil(np.linspace(n / min(n, POINTS), n, min(n, POINTS)) - 1e-9).astype(int)) - 1
    scores = {
        "max_probability": selective.max_probability(logits),
        "logit_norm": selective.logit_normalization(logits, p),
    }
    coverage: list[float | None] = []
    risks: Json = {}
    for name, score in scores.items():
        curve = selective.risk_coverage(score, correct)
        coverage, risks[name] = significant(curve.coverage[kept]), significant(curve.risk[kept])
    return {"coverage": coverage, **risks}


def logit_density(logits: Tensor, labels: Tensor) -> Json:
    """Histograms of all logits (N, K), of each sample's largest, and of its label's.

    Bin i holds the values from i·width up to (i + 1)·width; `first` is the i of the first count. The width is a power
    of two, so that the bins of runs with different widths fall into each other.
    """
    wide = logits.double()
    span = float(wide.max() - wide.min())
    # The least power of two with which the span takes no more than DENSITY_BINS bins.
    width = 2.0 ** math.ceil(math.log2(span / DENSITY_BINS)) if span > 0 else 2.0**-10
    kinds = {"all": wide.flatten(), "top1": wide.amax(1), "true": wide.gather(1, labels[:, None]).squeeze(1)}
    return {"width": width, **{kind: _histogram(values, width) for kind, values in kinds.items()}}


def _histogram(values: Tensor, width: float) -> Json:
    places = torch.floor(values / width).long()
    first = int(places.min())
    return {"first": first, "count": (places - first).bincount().tolist()}


def near_zero(logits: Tensor) -> Json:
    """Share of a sample's logits with a magnitude below `NEAR_ZERO`, averaged in bins of the largest probability.

    Bins have equal widths and include their lower edge, the last one 1 as well; `share` is None in an empty bin.
    """
    wide = logits.double()
    share = (wide.abs() < NEAR_ZERO).double().mean(1)
    places = (wide.softmax(1).amax(1) * NEAR_ZERO_BINS).long().clamp_max(NEAR_ZERO_BINS - 1)
    count = places.bincount(minlength=NEAR_ZERO_BINS)
    total = places.bincount(share, minlength=NEAR_ZERO_BINS)
    return {
        "bound": NEAR_ZERO,
        "top1_edges": significant(np.linspace(0, 1, NEAR_ZERO_BINS + 1)),
        "share": significant(total / count),
        "count": count.tolist(),
    }
