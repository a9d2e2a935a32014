"""The kinds of claims that the paper makes, as functions from methods and words to a claim."""

from __future__ import annotations

from fnmatch import fnmatchcase

from maxsup.lab.report.claims.claim import Claim, Expected, Setting, Twin
from maxsup.lab.report.claims.settings import NOISY, OTHER_ALPHA, PLAIN, SCHEDULED
from maxsup.lab.report.published import PUBLISHED

CE, LS, OURS = "cross-entropy", "label-smoothing", "max-sup"
OLS, ZIPF, LOGIT_PENALTY = "online-label-smoothing", "zipf-label-smoothing", "logit-penalty"
REGULARIZATION, ENHANCEMENT = "ls-regularization", "ls-error-enhancement"
ENHANCEMENT_MAX = "ls-error-enhancement-max"

_SIDE = {"higher": "above", "lower": "below"}
_ALL = " ".join((CE, LS, OURS, OLS, ZIPF, LOGIT_PENALTY))
_PARTS = " ".join((CE, LS, REGULARIZATION, ENHANCEMENT, ENHANCEMENT_MAX, OURS))

# What measures a claim. Comparisons are found under DIR in whatever folder they are.
_COMPARE = f"maxsup compare glyphs-resnet18 --methods {_ALL} --out DIR/glyphs-resnet18"
_PROBE = "maxsup probe DIR/glyphs-resnet18 --data digits"
_SCHEDULED = f"maxsup compare glyphs-deit --methods {_PARTS} --out DIR/glyphs-deit"
_CONSTANT = (
    f"maxsup compare glyphs-deit --alpha.schedule constant --alpha.end 0.1 --methods {_PARTS} "
    "--out DIR/glyphs-deit-alpha-constant"
)
_FASHION = "maxsup compare fashion-mnist-resnet18 --out DIR/fashion-mnist"
_SEGMENT = "maxsup segment DIR/fashion-mnist --data fashion-scenes"
_NOISE = "maxsup compare fashion-mnist-resnet18 --data.label-noise 0.2 --out DIR/fashion-mnist-noise-20"


def _printed(measure: str, of: str, than: str, *tables: str) -> tuple[float, ...]:
    """The differences of the paper's means in these tables."""
    return tuple(
        column[of][0] - column[than][0]
        for published in PUBLISHED.values()
        for table in published
        if table.table in tables
        for key, column in table.columns.items()
        if fnmatchcase(key, measure) and of in column and than in column
    )


def accuracy(of: str, than: str, statement: str, where: str = "Tables 4, 5 and 7; §5.1.2") -> Claim:
    """`of` classifies test images better than `than`."""
    return Claim(
        f"accuracy: {of} above {than}",
        statement,
        where,
        measure="test.accuracy",
        of=of,
        than=than,
        expected="higher",
        setting=PLAIN,
        commands=(_COMPARE,),
        printed=_printed("test.accuracy", of, than, "Table 1", "Table 4", "Table 5", "Table 7"),
    )


def features(measure: str, of: str, than: str, expected: Expected, statement: str, where: str) -> tuple[Claim, Claim]:
    """A measure of the penultimate features, on test images and on training images."""
    first, second = (
        Claim(
            f"{measure}, {images} images: {of} {_SIDE[expected]} {than}",
            f"{statement} ({images} images).",
            where,
            measure=f"{split}.{measure}",
            of=of,
            than=than,
            expected=expected,
            setting=PLAIN,
            commands=(_COMPARE,),
            printed=_printed(f"{split}.{measure}", of, than, "Tables 2 and 9"),
        )
        for split, images in (("test", "test"), ("train", "training"))
    )
    return first, second


def confidence(of: str, than: str, expected: Expected, statement: str, where: str) -> Claim:
    """The mean top-1 probability of wrong predictions."""
    return Claim(
        f"confidence when wrong: {of} {_SIDE[expected]} {than}",
        statement,
        where,
        measure="test.confidence_wrong",
        of=of,
        than=than,
        expected=expected,
        setting=PLAIN,
        commands=(_COMPARE,),
    )


def transfer(of: str, than: str, expected: Expected, statement: str) -> Claim:
    """The linear probe of frozen features on other images."""
    return Claim(
        f"linear probe: {of} {_SIDE[expected]} {than}",
        statement,
        "Table 3; §4.1",
        measure="probe.*.linear",
        of=of,
        than=than,
        expected=expected,
        setting=PLAIN,
        commands=(_COMPARE, _PROBE),
        printed=_printed("probe.*.linear", of, than, "Table 3"),
    )


def neighbours(of: str, than: str, statement: str) -> Claim:
    """The k nearest neighbours among frozen features of other images, which the paper does not have."""
    return Claim(
        f"k-NN: {of} above {than}",
        statement,
        "not in the paper, which probes linearly",
        measure="probe.*.knn",
        of=of,
        than=than,
        expected="higher",
        setting=PLAIN,
        commands=(_COMPARE, _PROBE),
    )


def ablation(of: str, than: str, expected: Expected, statement: str, setting: Setting = PLAIN) -> Claim:
    """The test accuracy of a part of label smoothing."""
    return Claim(
        f"parts: {of} {_SIDE[expected]} {than}",
        statement,
        "Table 1; §3.1",
        measure="test.accuracy",
        of=of,
        than=than,
        expected=expected,
        setting=setting,
        commands=(_CONSTANT,),
        printed=_printed("test.accuracy", of, than, "Table 1"),
    )


def schedule(of: str, than: str | None, statement: str, printed: float) -> Claim:
    """What α from 0.1 to 0.2 gains over α = 0.1, or how much more `of` gains than `than`."""
    gain = f"gain by the schedule: {of}"
    return Claim(
        gain if than is None else f"{gain} above {than}",
        statement,
        "Table 8; Appendix F",
        measure="test.accuracy",
        of=of,
        than=than,
        expected="higher",
        setting=SCHEDULED,
        commands=(_SCHEDULED, _CONSTANT),
        twin=OTHER_ALPHA,
        printed=(printed,),
    )


def noise(of: str, than: str, statement: str, twin: Twin | None = None) -> Claim:
    """The test accuracy after training with wrong labels, or what is lost by them."""
    return Claim(
        f"change by label noise: {of} above {than}" if twin else f"label noise: {of} above {than}",
        statement,
        "§3.2, at its end",
        measure="test.accuracy",
        of=of,
        than=than,
        expected="higher",
        setting=NOISY,
        commands=(_FASHION, _NOISE) if twin else (_NOISE,),
        twin=twin,
    )


def segmentation(of: str, than: str, statement: str) -> Claim:
    """The mean IoU of fine-tuned backbones."""
    return Claim(
        f"mIoU: {of} above {than}",
        statement,
        "Table 6; §5.2",
        measure="segment.*.miou",
        of=of,
        than=than,
        expected="higher",
        setting=PLAIN,
        commands=(_FASHION, _SEGMENT),
        printed=_printed("segment.*.multi.miou", of, than, "Table 6"),
    )
