"""Every method with its formula, written out in Python floats for one sample: the oracle of the loss tests."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

import maxsup
from maxsup import functional

MOST_CLASSES = 16
POSITIONS = 5
_generator = torch.Generator().manual_seed(0)
TABLE = torch.rand(MOST_CLASSES, MOST_CLASSES, generator=_generator, dtype=torch.float64)
OFFSETS = torch.randn(MOST_CLASSES, POSITIONS, generator=_generator, dtype=torch.float64) * 3


@dataclass(frozen=True)
class Case:
    """A method: its function and module, and `added(z, y, classes)`, what alpha multiplies for the finite logits `z`.

    `y` is a distribution over them. Methods whose extra input depends on the classes get it from `classes`, the numbers
    of the columns, so that a column can be deleted.
    """

    function: Callable
    module: Callable
    added: Callable
    extra: Callable = lambda logits, classes: {}
    options: dict = field(default_factory=dict)
    soft: bool = True
    dense: bool = True

    def __call__(self, logits, target, alpha, *, classes=None, **options):
        if classes is None:
            classes = torch.arange(logits.shape[0] if logits.dim() == 1 else logits.shape[1])
        return self.function(logits, target, alpha=alpha, **self.extra(logits, classes), **self.options, **options)

    def row(self, z, y, alpha, classes=None):
        """The loss of one sample, in Python floats, absent classes left out."""
        kept = [k for k, value in enumerate(z) if value != -math.inf]
        classes = kept if classes is None else [classes[k] for k in kept]
        if any(share and k not in kept for k, share in enumerate(y)):
            return math.inf
        z, y = [z[k] for k in kept], [y[k] for k in kept]
        q = softmax(z)
        cross_entropy = -sum(share * math.log(p) for share, p in zip(y, q, strict=True) if share)
        return cross_entropy + alpha * self.added(z, y, classes)


def softmax(z):
    exponentials = [math.exp(value - max(z)) for value in z]
    return [value / sum(exponentials) for value in exponentials]


def mean(z):
    return sum(z) / len(z)


def expected_logit(z, y):
    return sum(share * value for share, value in zip(y, z, strict=True))


def regularization(by_terms):
    def added(z, y, classes):
        gt = z[y.index(1.0)]
        terms = [gt - other for other in z if other < gt]
        return sum(terms) / (max(len(terms), 1) if by_terms else len(z))

    return added


def error_enhancement(by_terms):
    def added(z, y, classes):
        gt = z[y.index(1.0)]
        terms = [gt - other for other in z if other > gt]
        return sum(terms) / (max(len(terms), 1) if by_terms else len(z))

    return added


def online(z, y, classes):
    label, q = y.index(1.0), softmax(z)
    soft = -sum(float(TABLE[classes[label], c]) * math.log(p) for c, p in zip(classes, q, strict=True))
    return soft + math.log(q[label])


def zipf(scores_of):
    def added(z, y, classes):
        label = y.index(1.0)
        scores = scores_of(z, classes)
        rank = [1 + sum(other > score for other in scores) for score in scores]
        others = [k for k in range(len(z)) if k != label]
        if not others:
            return 0.0
        total = sum(1 / rank[k] for k in others)
        q = softmax([z[k] for k in others])
        return sum(1 / rank[k] / total * math.log(1 / rank[k] / total / p) for k, p in zip(others, q, strict=True))

    return added


def dense_logits(logits, classes):
    return logits.detach().unsqueeze(-1) + OFFSETS[classes].to(logits.dtype)


def dense_votes(z, classes):
    count = [0] * len(z)
    for p in range(POSITIONS):
        at = [value + float(OFFSETS[c, p]) for value, c in zip(z, classes, strict=True)]
        count[at.index(max(at))] += 1
    return count


def entropy(z):
    return -sum(p * math.log(p) for p in softmax(z) if p)


CASES = {
    "max-sup": Case(functional.max_sup_cross_entropy, maxsup.MaxSupCrossEntropyLoss, lambda z, y, c: max(z) - mean(z)),
    "label-smoothing": Case(
        functional.label_smoothing_cross_entropy,
        maxsup.LabelSmoothingCrossEntropyLoss,
        lambda z, y, c: expected_logit(z, y) - mean(z),
    ),
    "regularization-terms": Case(
        functional.label_smoothing_regularization_cross_entropy,
        maxsup.LabelSmoothingRegularizationLoss,
        regularization(True),
        soft=False,
    ),
    "regularization-classes": Case(
        functional.label_smoothing_regularization_cross_entropy,
        maxsup.LabelSmoothingRegularizationLoss,
        regularization(False),
        options={"form": "classes"},
        soft=False,
    ),
    "error-enhancement-terms": Case(
        functional.label_smoothing_error_enhancement_cross_entropy,
        maxsup.LabelSmoothingErrorEnhancementLoss,
        error_enhancement(True),
        soft=False,
    ),
    "error-enhancement-classes": Case(
        functional.label_smoothing_error_enhancement_cross_entropy,
        maxsup.LabelSmoothingErrorEnhancementLoss,
        error_enhancement(False),
        options={"form": "classes"},
        soft=False,
    ),
    "error-enhancement-max": Case(
        functional.label_smoothing_error_enhancement_cross_entropy,
        maxsup.LabelSmoothingErrorEnhancementLoss,
        lambda z, y, c: z[y.index(1.0)] - max(z),
        options={"form": "max"},
        soft=False,
    ),
    "online": Case(
        functional.online_label_smoothing_cross_entropy,
        maxsup.OnlineLabelSmoothingLoss,
        online,
        extra=lambda logits, classes: {"table": TABLE[classes][:, classes]},
        soft=False,
    ),
    "zipf-dense": Case(
        functional.zipf_label_smoothing_cross_entropy,
        maxsup.ZipfLabelSmoothingLoss,
        zipf(dense_votes),
        extra=lambda logits, classes: {"dense_logits": dense_logits(logits, classes)},
        soft=False,
        dense=False,
    ),
    "zipf-logits": Case(
        functional.zipf_label_smoothing_cross_entropy,
        maxsup.ZipfLabelSmoothingLoss,
        zipf(lambda z, classes: z),
        extra=lambda logits, classes: {"dense_logits": None},
        options={"ranking": "logits"},
        soft=False,
    ),
    "logit-penalty": Case(
        functional.logit_penalty_cross_entropy,
        maxsup.LogitPenaltyLoss,
        lambda z, y, c: sum(value * value for value in z) / 2,
    ),
    "confidence": Case(
        functional.confidence_penalty_cross_entropy, maxsup.ConfidencePenaltyLoss, lambda z, y, c: -entropy(z)
    ),
    "confidence-hinge": Case(
        functional.confidence_penalty_cross_entropy,
        maxsup.ConfidencePenaltyLoss,
        lambda z, y, c: max(0.0, 1.0 - entropy(z)),
        options={"threshold": 1.0},
    ),
}


def one_hot(label, classes):
    return [1.0 if k == label else 0.0 for k in range(classes)]


def expected_rows(case, logits, target, alpha):
    """The oracle over rows (N, K) and a target of indices or probabilities, as a float64 tensor."""
    rows = []
    for z, y in zip(logits.detach().double().tolist(), target.tolist(), strict=True):
        rows.append(case.row(z, y if isinstance(y, list) else one_hot(y, len(z)), alpha))
    return torch.tensor(rows, dtype=torch.float64)


def batch(n=6, k=5, *more, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(n, k, *more, generator=generator, dtype=torch.float64) * 3).to(dtype)
    target = torch.randint(k, (n, *more), generator=generator)
    return logits.requires_grad_(), target


def value_and_gradient(function, logits, *args, **kwargs):
    loss = function(logits, *args, **kwargs)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach(), gradient
