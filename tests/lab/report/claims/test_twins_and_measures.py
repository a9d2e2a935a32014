"""Claims between two comparisons, and those on the records of later commands."""

import numpy as np
import pytest

from maxsup.lab.records import read_json, run_directory, write_json
from maxsup.lab.report.claims import summarize_claims
from maxsup.lab.report.claims.claim import Claim
from maxsup.lab.report.claims.page import markdown
from maxsup.lab.report.claims.paper import TOPICS
from maxsup.lab.report.claims.settings import PLAIN
from maxsup.lab.report.claims.tables import numbered
from tests.lab.report import factory
from tests.lab.report.claims.conftest import ALL_UP, CE, EITHER_WAY, LS, OURS, compared, recipe
from tests.lab.report.test_segmentation import MIOU, segmented

CONSTANT = (0.1, 0.1, "constant")


def test_the_gain_by_the_schedule_is_a_difference_between_twins(tmp_path, claim_of):
    compared(tmp_path / "linear", {LS: [by + 1 for by in ALL_UP], OURS: [2 * by for by in ALL_UP]})
    compared(tmp_path / "constant", {LS: ALL_UP, OURS: [0] * 10}, recipe(alpha=CONSTANT))
    compared(tmp_path / "longer", {LS: ALL_UP, OURS: [0] * 10}, recipe(alpha=CONSTANT, epochs=9))  # no twin
    (ls,) = claim_of(tmp_path, f"gain by the schedule: {LS}")["rows"]
    assert (ls["comparison"], ls["twin"], ls["n"]) == ("linear", "constant", 10)
    assert ls["mean"] == pytest.approx(0.001)
    (ours,) = claim_of(tmp_path, f"gain by the schedule: {OURS}")["rows"]
    assert ours["mean"] == pytest.approx(0.011)
    assert ours["verdict"] == "confirmed here"
    (more,) = claim_of(tmp_path, f"gain by the schedule: {OURS} above {LS}")["rows"]
    # 2·by − 1 thousandths: 1, 3, …, 19.
    assert more["mean"] == pytest.approx(0.010)
    assert more["std"] == pytest.approx(np.std(np.arange(1, 20, 2), ddof=1) / 1000)
    assert (more["of_mean"], more["than_mean"]) == (pytest.approx(0.011), pytest.approx(0.001))
    assert more["p_sign_flip"] == 2 / 1024


def test_twins_pair_the_seeds_that_all_four_cells_have(tmp_path, claim_of):
    compared(tmp_path / "linear", {LS: ALL_UP, OURS: ALL_UP})
    compared(tmp_path / "constant", {LS: EITHER_WAY[:8], OURS: EITHER_WAY[:8]}, recipe(alpha=CONSTANT))
    (run_directory(tmp_path / "constant", LS, 1) / "result.json").unlink()
    (row,) = claim_of(tmp_path, f"gain by the schedule: {OURS} above {LS}")["rows"]
    assert row["seeds"] == [0, 2, 3, 4, 5, 6, 7]
    assert row["left_out"] == [
        "constant: label-smoothing seed 1 unfinished: stopped after epoch 4; the command that began it goes on from "
        "there"
    ]


def test_label_noise_is_compared_with_the_same_recipe_without(tmp_path, claim_of):
    name = f"change by label noise: {OURS} above {LS}"
    compared(tmp_path / "clean", {LS: [0] * 10, OURS: EITHER_WAY})
    compared(tmp_path / "noisy", {LS: [-50] * 10, OURS: [-40] * 10}, recipe(label_noise=0.4, noise_kind="pair"))
    (row,) = claim_of(tmp_path, name)["rows"]
    assert (row["comparison"], row["twin"]) == ("noisy", "clean")
    assert row["mean"] == pytest.approx(0.010)
    assert row["verdict"] == "confirmed here"


def test_records_of_probes_and_overlays_give_rows_by_data_set(tmp_path, claim_of):
    directory = factory.analyzed(tmp_path / "x")
    (row,) = claim_of(tmp_path, f"linear probe: {OURS} above {LS}")["rows"]
    assert row["measure"]["key"] == "probe.digits.linear"
    assert row["mean"] == pytest.approx(0.94 - 0.91)
    assert row["verdict"] == "confirmed here"
    (row,) = claim_of(tmp_path, f"Grad-CAM precision: {OURS} above {LS}")["rows"]
    assert row["mean"] == pytest.approx(0.44 - 0.36)
    # One probe's record is damaged, another is missing: named, and left out.
    spoiled = run_directory(directory, OURS, 0) / "probe-digits.json"
    factory.spoil(spoiled)
    (run_directory(directory, LS, 5) / "probe-digits.json").unlink()
    summary = summarize_claims(tmp_path)
    (line,) = summary["unusable"]
    assert line.startswith(f"{spoiled}: not a readable JSON record")
    (row,) = claim_of(tmp_path, f"linear probe: {OURS} above {LS}")["rows"]
    assert row["seeds"] == [1, 2, 3, 4, 6, 7, 8, 9]
    first, second = row["left_out"]
    assert first.startswith("x: max-sup seed 0: probe-digits.json: not a readable JSON record")
    assert second == "x: label-smoothing seed 5: has no probe.digits.linear"
    assert row["remarks"] == []
    assert claim_of(tmp_path, f"accuracy: {OURS} above {LS}")["rows"][0]["n"] == 10


def test_records_that_were_not_made_alike_are_named(tmp_path, claim_of):
    directory = factory.analyzed(tmp_path / "x", seeds=2)
    file = run_directory(directory, OURS, 1) / "probe-digits.json"
    content = read_json(file)
    write_json(file, content | {"settings": {**content["settings"], "neighbors": 5}})
    (row,) = claim_of(tmp_path, f"linear probe: {OURS} above {LS}")["rows"]
    line = "x: probe-digits.json was made with different settings in different runs: they are not comparable."
    assert row["remarks"] == [line]
    assert f"- {line}" in markdown(summarize_claims(tmp_path))
    (row,) = claim_of(tmp_path, f"linear probe: {LS} below {CE}")["rows"]
    assert row["remarks"] == []


def test_segmentation_counts_by_the_test_at_several_scales(tmp_path, claim_of):
    directory = segmented(tmp_path / "x")
    (row,) = claim_of(tmp_path, f"mIoU: {OURS} above {CE}")["rows"]
    assert row["measure"]["key"] == "segment.scenes.multi.miou"
    assert row["mean"] == pytest.approx(np.mean(np.subtract(MIOU[OURS], MIOU[CE])))
    assert (row["n"], row["verdict"]) == (3, "cannot be shown with this n")
    # A fine-tuning that diverged is no damaged record's fault but leaves its pair out.
    file = run_directory(directory, OURS, 1) / "segment-scenes" / "result.json"
    write_json(file, {"status": "diverged", "iterations": 7})
    (row,) = claim_of(tmp_path, f"mIoU: {OURS} above {CE}")["rows"]
    assert row["seeds"] == [0, 2]
    assert row["left_out"] == [
        "x: max-sup seed 1: segment-scenes/result.json: the fine-tuning diverged after 7 iterations"
    ]


def test_keys_that_a_claim_is_tested_on():
    claims = {claim.name: claim for topic in TOPICS for claim in topic.claims}
    miou = claims[f"mIoU: {OURS} above {LS}"]
    found = {"segment.a.single.miou", "segment.a.multi.miou", "segment.b.single.miou", "segment.a.multi.iou@x"}
    assert miou.keys(found) == ["segment.a.multi.miou", "segment.b.single.miou"]
    assert miou.keys(set()) == []
    assert claims[f"accuracy: {OURS} above {LS}"].keys(set()) == ["test.accuracy"]
    probe = claims[f"linear probe: {OURS} above {LS}"]
    assert probe.keys({"probe.b.linear", "probe.a.linear", "probe.a.knn"}) == ["probe.a.linear", "probe.b.linear"]


def test_a_claim_needs_something_to_compare_with():
    with pytest.raises(ValueError, match="claim 'x' needs a method that it compares with, or a twin"):
        Claim("x", "x.", "", "test.accuracy", OURS, None, "higher", PLAIN, ())


def test_names_and_numbers_are_unique(tmp_path):
    compared(tmp_path, {OURS: ALL_UP})
    pairs = list(numbered(summarize_claims(tmp_path)))
    assert len({number for number, _ in pairs}) == len({claim["name"] for _, claim in pairs}) == len(pairs)
