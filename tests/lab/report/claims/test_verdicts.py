import numpy as np
import pytest

from maxsup.lab.records import RecordError, run_directory, write_json, write_text
from maxsup.lab.report.claims import headline, summarize_claims
from maxsup.lab.report.claims.tables import numbered
from maxsup.lab.statistics import detectable_effect
from tests.lab.report import factory
from tests.lab.report.claims.conftest import (
    ALL_UP,
    CE,
    EITHER_WAY,
    FIRST_DOWN,
    LS,
    OURS,
    THIRD_DOWN,
    compared,
    recipe,
)

ABOVE_CE = f"accuracy: {OURS} above {CE}"


def verdicts(claim):
    return {row["comparison"]: row["verdict"] for row in claim["rows"]}


def test_holms_correction_is_over_a_claims_rows(tmp_path, claim_of):
    for name, differences in (("a", THIRD_DOWN), ("b/deeper", ALL_UP), ("c", FIRST_DOWN)):
        compared(tmp_path / name, {OURS: differences})
    claim = claim_of(tmp_path, ABOVE_CE)
    rows = claim["rows"]
    assert [row["comparison"] for row in rows] == ["a", "b/deeper", "c"]
    assert [row["p_sign_flip"] for row in rows] == [10 / 1024, 2 / 1024, 4 / 1024]
    # Smallest times 3, next times 2, largest times 1, none below the one before it.
    assert [row["p_sign_flip_holm"] for row in rows] == pytest.approx([10 / 1024, 6 / 1024, 8 / 1024])
    assert {row["comparisons"] for row in rows} == {3}
    assert [row["mean"] for row in rows] == pytest.approx([0.0049, 0.0055, 0.0053])
    assert rows[1]["of_mean"] - rows[1]["than_mean"] == pytest.approx(0.0055)
    half = 2.262157 * np.std(THIRD_DOWN, ddof=1) / 1000 / 10**0.5  # t of 9 degrees of freedom
    assert rows[0]["interval"] == pytest.approx((0.0049 - half, 0.0049 + half), abs=1e-8)
    assert claim["verdict"] == "confirmed here"
    assert claim["counts"] == {"confirmed here": 3}


def test_confirmed_contradicted_and_not_seen(tmp_path, claim_of):
    compared(tmp_path / "up", {OURS: ALL_UP})
    compared(tmp_path / "either", {OURS: EITHER_WAY})
    claim = claim_of(tmp_path, ABOVE_CE)
    assert verdicts(claim) == {"up": "confirmed here", "either": "not seen"}
    assert (claim["verdict"], claim["counts"]) == ("confirmed here", {"not seen": 1, "confirmed here": 1})
    (not_seen,) = (row for row in claim["rows"] if row["comparison"] == "either")
    assert (not_seen["mean"], not_seen["p_sign_flip"]) == (pytest.approx(0, abs=1e-12), 1)
    spread = np.std(EITHER_WAY, ddof=1) / 1000
    assert not_seen["detectable"] == pytest.approx(detectable_effect(10, spread, comparisons=2))
    compared(tmp_path / "down", {OURS: [-by for by in ALL_UP]})
    claim = claim_of(tmp_path, ABOVE_CE)
    assert verdicts(claim)["down"] == "contradicted here"
    assert claim["verdict"] == "mixed"


def test_a_claim_that_expects_lower_is_confirmed_by_lower(tmp_path, claim_of):
    n = len(ALL_UP)
    lower = [0.7 - by / 1000 for by in ALL_UP]
    compared(
        tmp_path / "x",
        {LS: ALL_UP, OURS: ALL_UP},
        confidence_wrong={CE: [0.7] * n, LS: lower, OURS: lower},
        d_within={CE: [0.7] * n, LS: lower, OURS: [0.7 + by / 1000 for by in ALL_UP]},
    )
    assert claim_of(tmp_path, f"confidence when wrong: {OURS} below {CE}")["verdict"] == "confirmed here"
    assert claim_of(tmp_path, f"confidence when wrong: {LS} above {CE}")["verdict"] == "contradicted here"
    assert claim_of(tmp_path, f"d_within, test images: {LS} below {CE}")["verdict"] == "confirmed here"
    assert claim_of(tmp_path, f"d_within, test images: {OURS} below {CE}")["verdict"] == "contradicted here"
    assert claim_of(tmp_path, f"d_within, test images: {OURS} above {LS}")["verdict"] == "confirmed here"


# 2/2⁵ is above 5% alone. 2/2⁶ = 0.031 is enough for one row and not for three, which take n = 7: 3 · 2/2⁷ = 0.047.
@pytest.mark.parametrize(("n", "rows", "least"), [(5, 1, 6), (6, 3, 7)])
def test_what_n_cannot_show_is_called_neither_seen_nor_absent(tmp_path, claim_of, n, rows, least):
    for place in range(rows):
        compared(tmp_path / str(place), {OURS: [10] * n})
    claim = claim_of(tmp_path, ABOVE_CE)
    assert set(verdicts(claim).values()) == {"cannot be shown with this n"}
    assert claim["verdict"] == "cannot be shown with this n"
    assert {row["least_n"] for row in claim["rows"]} == {least}
    assert {row["floor"] for row in claim["rows"]} == {2 / 2**n}
    assert {row["detectable"] for row in claim["rows"]} == {None}
    assert {row["p_sign_flip_holm"] for row in claim["rows"]} == {min(1, rows * 2 / 2**n)}


def test_six_pairs_are_enough_for_a_claim_of_one_row(tmp_path, claim_of):
    compared(tmp_path / "x", {OURS: [10] * 6})
    assert claim_of(tmp_path, ABOVE_CE)["verdict"] == "confirmed here"


def test_claims_without_a_fitting_comparison_are_not_measured(tmp_path):
    compared(tmp_path, {OURS: ALL_UP})
    summary = summarize_claims(tmp_path)
    by_name = {claim["name"]: claim for _, claim in numbered(summary)}
    for name in (f"accuracy: {OURS} above {LS}", f"parts: ls-regularization above {CE}", f"mIoU: {OURS} above {CE}"):
        assert (by_name[name]["verdict"], by_name[name]["rows"]) == ("not measured", [])
        assert by_name[name]["commands"][0].startswith("maxsup compare ")
    assert by_name[ABOVE_CE]["rows"][0]["comparison"] == tmp_path.name
    measured = sum(claim["verdict"] != "not measured" for claim in by_name.values())
    assert headline(summary).endswith(f"{len(by_name) - measured} not measured.")


def test_runs_that_are_missing_or_diverged_are_named_and_left_out(tmp_path, claim_of):
    compared(tmp_path / "x", {OURS: ALL_UP})
    factory.write_run(tmp_path / "x", CE, 2, 0.5, status="diverged")
    for file in run_directory(tmp_path / "x", OURS, 4).iterdir():
        file.unlink()
    claim = claim_of(tmp_path, ABOVE_CE)
    (row,) = claim["rows"]
    assert (row["n"], row["seeds"]) == (8, [0, 1, 3, 5, 6, 7, 8, 9])
    assert row["mean"] == pytest.approx(np.mean([1, 2, 4, 6, 7, 8, 9, 10]) / 1000)
    assert row["left_out"] == [
        "x: max-sup seed 4 missing: run.json is missing: it was not started",
        "x: cross-entropy seed 2 diverged: the loss was not finite any more in epoch 5",
    ]
    assert row["p_sign_flip"] == 2 / 2**8
    for seed in range(10):
        (run_directory(tmp_path / "x", OURS, seed) / "result.json").unlink(missing_ok=True)
    claim = claim_of(tmp_path, ABOVE_CE)
    assert (claim["verdict"], claim["rows"][0]["n"]) == ("not measured", 0)


def test_a_folder_without_comparisons_and_a_damaged_comparison_are_named(tmp_path):
    with pytest.raises(RecordError, match=rf"{tmp_path}: no comparison here or in a folder below"):
        summarize_claims(tmp_path)
    with pytest.raises(RecordError, match=r"no/such: no such folder"):
        summarize_claims(tmp_path / "no" / "such")
    file = compared(tmp_path / "x", {OURS: ALL_UP}) / "comparison.json"
    whole = file.read_text()
    file.write_text(whole[:-20])
    with pytest.raises(RecordError, match=r"x/comparison\.json: not a readable JSON record"):
        summarize_claims(tmp_path)
    write_text(file, whole.replace('"methods"', '"method"'))
    with pytest.raises(RecordError, match=r"x/comparison\.json: not such a record \(KeyError: 'methods'\)"):
        summarize_claims(tmp_path)


def test_a_damaged_run_is_named_with_its_file_and_left_out(tmp_path):
    compared(tmp_path / "x", {OURS: ALL_UP})
    file = run_directory(tmp_path / "x", OURS, 3) / "result.json"
    factory.spoil(file)
    summary = summarize_claims(tmp_path)
    (line,) = summary["unusable"]
    assert line.startswith(f"{file}: not a readable JSON record")
    row = next(claim for _, claim in numbered(summary) if claim["name"] == ABOVE_CE)["rows"][0]
    assert row["n"] == 9
    assert row["left_out"][0].startswith("x: max-sup seed 3 failed: RecordError: result.json: not a readable JSON")
    write_json(file, {"epochs": 4})
    assert summarize_claims(tmp_path)["unusable"] == [f"{file.parent}: KeyError: 'status'"]
    # A run that failed by itself has whole records: it is named where it is missing, and nothing is damaged.
    file.unlink()
    write_text(file.parent / "error.txt", "Traceback …\nRuntimeError: out of luck\n")
    summary = summarize_claims(tmp_path)
    assert summary["unusable"] == []
    row = next(claim for _, claim in numbered(summary) if claim["name"] == ABOVE_CE)["rows"][0]
    assert row["left_out"] == ["x: max-sup seed 3 failed: RuntimeError: out of luck"]


def test_other_alphas_noise_and_imbalance_are_not_the_papers_experiment(tmp_path, claim_of):
    for name, settings in (
        ("paper", recipe()),
        ("constant", recipe(alpha=(0.1, 0.2, "constant"))),
        ("also-constant", recipe(alpha=(0.1, 0.1, "linear"), epochs=7)),
        ("alpha-0.4", recipe(alpha=(0.4, 0.4, "constant"))),
        ("cosine", recipe(alpha=(0.1, 0.2, "cosine"))),
        ("noisy", recipe(label_noise=0.2)),
        ("long-tailed", recipe(imbalance=50.0)),
    ):
        compared(tmp_path / name, {LS: [0] * 10, OURS: ALL_UP}, settings)
    assert sorted(verdicts(claim_of(tmp_path, ABOVE_CE))) == ["also-constant", "constant", "paper"]
    assert sorted(verdicts(claim_of(tmp_path, f"label noise: {OURS} above {LS}"))) == ["noisy"]
    assert sorted(verdicts(claim_of(tmp_path, f"long tail: {OURS} above {LS}"))) == ["long-tailed"]
    assert sorted(verdicts(claim_of(tmp_path, f"parts: {OURS} above {LS}"))) == ["also-constant", "constant"]
    used = {of["name"]: of["used"] for of in summarize_claims(tmp_path)["comparisons"]}
    assert [name for name, is_used in used.items() if not is_used] == ["alpha-0.4", "cosine"]
