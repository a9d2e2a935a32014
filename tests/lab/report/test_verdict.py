import numpy as np
import pytest

from maxsup.lab.records import read_comparison
from maxsup.lab.report import summarize
from maxsup.lab.statistics import detectable_effect
from tests.lab.report import factory


def verdict_of(directory, reference=None):
    return summarize(read_comparison(directory), reference)["verdict"]


def values(n, shift=0.0, scale=0.001):
    """n values around 0.9 + shift whose differences from values(n) have both signs if shift is small."""
    noise = np.array([1, -1, 0.5, -0.5, 0.8, -0.8, 0.2, -0.2, 0.9, -0.9, 0.1, -0.1])[:n]
    return [0.9 + 0.01 * seed + shift + (scale * noise[seed] if shift or scale != 0.001 else 0) for seed in range(n)]


def test_wins_losses_and_what_was_not_seen(tmp_path):
    base = values(8)
    verdict = verdict_of(
        factory.measured(
            tmp_path,
            accuracy={"cross-entropy": base, "label-smoothing": values(8, 0, 0.002), "max-sup": values(8, 0.01)},
            nll={"cross-entropy": base, "label-smoothing": values(8, 0.02), "max-sup": values(8, 0.03)},
            confidence_wrong={"cross-entropy": base, "label-smoothing": base, "max-sup": values(8, -0.1)},
        )
    )
    assert verdict[0] == (
        "max-sup against cross-entropy: it loses in NLL; it wins in accuracy and confidence when wrong; "
        "no difference was seen in within-class variation (d_within) and class separation (R²)."
    )
    accuracy = next(line for line in verdict if line.startswith("Accuracy"))
    std = np.std(np.subtract(values(8, 0, 0.002), base), ddof=1)
    found = f"{100 * detectable_effect(8, std, 2):.2f}"
    assert accuracy == (
        "Accuracy in percentage points: significantly higher (better) with max-sup (+1.000); no significant difference "
        f"seen for label-smoothing (+0.00), where one of {found} had an 80% chance to be found."
    )
    assert any(
        line == "NLL: significantly higher (worse) with label-smoothing (+0.02000) and max-sup (+0.03000)."
        for line in verdict
    )
    assert verdict[-2:] == [
        "Differences are from cross-entropy, paired by seed, and count as significant where the exact sign-flip test "
        "has p ≤ 0.05 after Holm's correction over 2 methods.",
        "With n = 8 the exact test's p cannot be below 2/2ⁿ = 0.0078, and Holm multiplies the smallest by 2: n ≥ 7 can "
        "show a difference at 5%.",
    ]


@pytest.mark.parametrize(
    ("methods", "n", "floor"),
    [
        # 2/2⁵ = 0.0625 alone is too much; six methods need n = 8, whatever five pairs look like.
        (
            1,
            5,
            "n = 5 cannot show a difference at 5%: the exact test's p cannot be below 2/2ⁿ = 0.062; it takes n ≥ 6.",
        ),
        (
            6,
            5,
            "n = 5 cannot show a difference at 5% over 6 methods: the exact test's p cannot be below 2/2ⁿ = 0.062, and "
            "Holm multiplies the smallest by 6; it takes n ≥ 8.",
        ),
        (
            6,
            7,
            "n = 7 cannot show a difference at 5% over 6 methods: the exact test's p cannot be below 2/2ⁿ = 0.016, and "
            "Holm multiplies the smallest by 6; it takes n ≥ 8.",
        ),
    ],
)
def test_nothing_is_called_significant_or_absent_below_the_floor(tmp_path, methods, n, floor):
    accuracy = {"cross-entropy": values(n)} | {f"method-{i}": values(n, 0.5) for i in range(methods)}
    verdict = verdict_of(factory.measured(tmp_path, accuracy))
    assert verdict[0] == floor
    assert verdict[1] == "So no difference is called significant here, and none absent."
    assert "significantly" not in " ".join(verdict)
    assert "not seen" not in " ".join(verdict)


def test_a_method_with_too_few_pairs_is_left_open(tmp_path):
    # The other method has pairs enough, so the verdict speaks; of MaxSup it says neither.
    verdict = verdict_of(
        factory.measured(
            tmp_path,
            {"cross-entropy": values(8), "label-smoothing": values(8, 0.1), "max-sup": values(3, 0.1)},
        )
    )
    assert verdict[0].startswith(
        "max-sup against cross-entropy: too few pairs leave open accuracy, confidence when wrong"
    )
    assert "loses" not in verdict[0]
    assert "too few pairs to tell for max-sup (n = 3)" in verdict[1]


def test_maxsup_as_the_reference_is_judged_against_each(tmp_path):
    accuracy = {"max-sup": values(7), "label-smoothing": values(7, 0.1), "cross-entropy": values(7, -0.1)}
    first, second, *_ = verdict_of(factory.measured(tmp_path, accuracy))
    assert first.startswith("max-sup against label-smoothing: it loses in accuracy; no difference was seen in")
    assert second.startswith("max-sup against cross-entropy: it wins in accuracy; no difference was seen in")


def test_a_comparison_without_maxsup_or_without_another(tmp_path):
    verdict = verdict_of(
        factory.measured(tmp_path / "a", {"cross-entropy": values(6), "label-smoothing": values(6, 0.1)})
    )
    assert verdict[0] == "Accuracy in percentage points: significantly higher (better) with label-smoothing (+10.000)."
    assert verdict_of(factory.measured(tmp_path / "b", {"max-sup": values(6)})) == [
        "max-sup alone was run: there is nothing to compare."
    ]
    nothing = factory.measured(tmp_path / "c", {"cross-entropy": values(6), "max-sup": []})
    assert verdict_of(nothing)[0] == "No seed was finished by both, so nothing can be said."


def test_probes_have_their_sentence(tmp_path):
    verdict = verdict_of(factory.analyzed(tmp_path))
    assert "linear probe on digits" in verdict[0]
    assert (
        "Linear probe on digits in percentage points: significantly lower (worse) with label-smoothing (−4.00) and "
        "max-sup (−1.00)." in verdict
    )


def test_the_largest_effect_that_could_have_been_missed_is_named(tmp_path):
    base = values(8)
    accuracy = {"cross-entropy": base, "a": values(8, 0, 0.002), "b": values(8, 0, 0.005), "c": base}
    verdict = verdict_of(factory.measured(tmp_path, accuracy))
    std = np.std(np.subtract(accuracy["b"], base), ddof=1)
    assert verdict[0] == (
        "Accuracy in percentage points: no significant difference seen for a (+0.00), b (+0.00) and c (+0.00), where "
        f"one of {100 * detectable_effect(8, std, 3):.2f} had an 80% chance to be found."
    )
