import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.integrate import trapezoid
from sklearn.metrics import confusion_matrix, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from maxsup.lab.analysis import analyze as module
from maxsup.lab.analysis.analyze import analyze
from maxsup.lab.analysis.batch import collect, run_each
from maxsup.lab.records import RecordError, read_json, run_directory, write_json

NAMES = {
    "brier", "adaptive_ece", "nll_scaled", "brier_scaled", "ece_scaled", "adaptive_ece_scaled",
    "aurc", "coverage_at_1", "coverage_at_5", "coverage_at_10",
    "aurc_logit_norm", "coverage_at_1_logit_norm", "coverage_at_5_logit_norm", "coverage_at_10_logit_norm",
    "vci", "nc1", "nc2", "nc3", "nc4",
    "wrong_share", "error_enhancement_share", "error_enhancement_share_wrong",
}  # fmt: skip


@pytest.fixture(scope="module")
def record(trained, tmp_path_factory):
    directory = shutil.copytree(trained, tmp_path_factory.mktemp("analyzed") / "run")
    return analyze(directory)


@pytest.fixture(scope="module")
def outputs_of_test(trained):
    tensors = load_file(trained / "outputs.safetensors")
    return tensors["test.logits"].double(), tensors["test.labels"], tensors["test.features"].double()


def test_the_record_has_every_measure_of_both_splits(record):
    assert set(record["measures"]) == {"validation", "test"}
    assert all(set(of) == NAMES for of in record["measures"].values())
    assert set(record["curves"]) == {
        "reliability", "reliability_scaled", "risk_coverage", "logit_density", "near_zero",
    }  # fmt: skip
    assert len(record["outputs_sha256"]) == 64


def test_measures_against_other_libraries(record, outputs_of_test):
    logits, labels, _ = outputs_of_test
    measured = record["measures"]["test"]
    temperature = record["temperature"]["value"]
    one_hot = np.eye(5)[labels]
    for suffix, z in (("", logits), ("_scaled", logits / temperature)):
        q = z.softmax(1).numpy()
        assert measured[f"brier{suffix}"] == pytest.approx(np.square(q - one_hot).sum(1).mean(), rel=1e-9)
    q = (logits / temperature).softmax(1)
    assert measured["nll_scaled"] == pytest.approx(log_loss(labels, q.numpy(), labels=range(5)), rel=1e-6)
    ece = multiclass_calibration_error(q, labels, num_classes=5, n_bins=15)
    assert measured["ece_scaled"] == pytest.approx(float(ece), rel=1e-6)
    wrong = (logits.argmax(1) != labels).double()
    order = logits.softmax(1).amax(1).argsort(descending=True)
    risk = (wrong[order].cumsum(0) / torch.arange(1, len(labels) + 1)).numpy()
    coverage = np.arange(1, len(labels) + 1) / len(labels)
    assert measured["aurc"] == pytest.approx(trapezoid(risk, coverage), rel=1e-9)
    assert measured["coverage_at_5"] == pytest.approx(coverage[risk <= 0.05].max())
    assert measured["wrong_share"] == pytest.approx(float(wrong.mean()))


def test_collapse_takes_the_last_layer_and_the_features(record, trained, outputs_of_test):
    logits, labels, features = outputs_of_test
    weight = load_file(trained / "model.safetensors")["backbone.fc.weight"].double().numpy()
    gram = weight @ weight.T
    frame = (np.eye(5) - 1 / 5) / 2  # √(K − 1) = 2
    assert record["measures"]["test"]["nc2"] == pytest.approx(np.linalg.norm(gram / np.linalg.norm(gram) - frame))
    means = torch.stack([features[labels == c].mean(0) for c in range(5)])
    nearest = torch.cdist(features, means).argmin(1)
    assert record["measures"]["test"]["nc4"] == pytest.approx(float((nearest != logits.argmax(1)).double().mean()))


def test_the_temperature_is_fitted_on_the_validation_split(record, trained):
    tensors = load_file(trained / "outputs.safetensors")
    logits, labels = tensors["validation.logits"].double(), tensors["validation.labels"]
    temperature = record["temperature"]["value"]
    assert record["temperature"]["at_bound"] is False

    def nll(t):
        return float(torch.nn.functional.cross_entropy(logits / t, labels))

    assert nll(temperature) < min(nll(temperature * 0.99), nll(temperature * 1.01))
    assert record["measures"]["validation"]["nll_scaled"] == pytest.approx(nll(temperature), rel=1e-9)
    assert record["confusion"] == confusion_matrix(labels, logits.argmax(1), labels=range(5)).tolist()


def test_undefined_measures_are_null():
    from maxsup.lab.evaluate import Outputs

    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    of = Outputs(features, 10 * features, torch.tensor([0, 0, 1, 1]))  # no wrong prediction
    measured = module.measures(of, torch.eye(2), 1.0, 2.0)
    assert measured["error_enhancement_share_wrong"] is None
    assert measured["wrong_share"] == 0
    assert measured["coverage_at_1"] == 1
    assert all(value is None or math.isfinite(value) for value in measured.values())


def test_a_second_call_computes_nothing(run_dir, monkeypatch):
    first = analyze(run_dir)
    monkeypatch.setattr(module, "_analyze", None)  # calling it would raise TypeError
    assert analyze(run_dir) == first


def test_other_outputs_are_analyzed_anew(run_dir):
    first = analyze(run_dir)
    tensors = load_file(run_dir / "outputs.safetensors")
    tensors["test.logits"] = tensors["test.logits"] * 2
    save_file(tensors, run_dir / "outputs.safetensors")
    second = analyze(run_dir)
    assert second["outputs_sha256"] != first["outputs_sha256"]
    assert second["measures"]["test"]["brier"] != first["measures"]["test"]["brier"]
    assert second["measures"]["validation"] == first["measures"]["validation"]


def test_a_damaged_record_is_made_again(run_dir):
    first = analyze(run_dir)
    file = run_dir / "analysis.json"
    file.write_text(file.read_text()[:100])
    assert analyze(run_dir) == first


def test_the_record_of_ten_classes_stays_small(run_dir):
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for split in ("validation", "test"):
        labels = torch.randint(10, (2000,), generator=generator)
        logits = 4 * torch.randn(2000, 10, generator=generator)
        tensors |= {f"{split}.labels": labels, f"{split}.logits": logits, f"{split}.features": torch.randn(2000, 64)}
    save_file(tensors, run_dir / "outputs.safetensors")
    model = load_file(run_dir / "model.safetensors")
    model["backbone.fc.weight"], model["backbone.fc.bias"] = torch.randn(10, 64), torch.zeros(10)
    save_file(model, run_dir / "model.safetensors")
    analyze(run_dir)
    assert (run_dir / "analysis.json").stat().st_size < 60_000


def truncate(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def without_a_tensor(file):
    tensors = load_file(file)
    del tensors["test.labels"]
    save_file(tensors, file)


def with_nan(file):
    tensors = load_file(file)
    tensors["validation.logits"][3, 1] = math.nan
    save_file(tensors, file)


def too_short(file):
    tensors = load_file(file)
    tensors["test.labels"] = tensors["test.labels"][:-1].clone()
    save_file(tensors, file)


def with_an_unknown_label(file):
    tensors = load_file(file)
    tensors["test.labels"][0] = 5
    save_file(tensors, file)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, "truncated or corrupt outputs"),
        (without_a_tensor, r"lacks test\.labels"),
        (with_nan, "validation features or logits are not finite"),
        (too_short, "test features, logits and labels have shapes"),
        (with_an_unknown_label, "a test label is not among the 5 classes"),
    ],
)
def test_damaged_outputs_are_named_and_an_older_record_does_not_outlive_them(run_dir, damage, says):
    whole = (run_dir / "outputs.safetensors").read_bytes()
    first = analyze(run_dir)
    damage(run_dir / "outputs.safetensors")
    with pytest.raises(RecordError, match=rf"outputs\.safetensors: {says}"):
        analyze(run_dir)
    left = read_json(run_dir / "analysis.json")
    assert left["problem"].startswith("outputs.safetensors: ")
    assert "measures" not in left
    (run_dir / "outputs.safetensors").write_bytes(whole)
    assert analyze(run_dir) == first


@pytest.mark.parametrize("gone", ["outputs.safetensors", "model.safetensors"])
def test_what_published_records_hold_is_not_made_again(run_dir, gone):
    first = analyze(run_dir)
    (run_dir / gone).unlink()
    assert analyze(run_dir) == first
    (run_dir / "analysis.json").unlink()
    for _ in range(2):  # the record of the problem is none to return
        with pytest.raises(RecordError, match=rf"{gone}: missing"):
            analyze(run_dir)
    assert read_json(run_dir / "analysis.json")["problem"].startswith(f"{gone}: missing")


def test_a_folder_without_a_run_stays_as_it_is(tmp_path):
    with pytest.raises(RecordError, match=r"outputs\.safetensors: missing"):
        analyze(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_names_damaged_runs_and_leaves_unfinished_ones_out(trained, tmp_path):
    write_json(tmp_path / "comparison.json", {"recipe": {"name": "x"}, "methods": ["max-sup"], "seeds": [0, 1, 2, 3]})
    for seed in (0, 1, 2):
        run = shutil.copytree(trained, run_directory(tmp_path, "max-sup", seed))
        info = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(info | {"seed": seed}))
    truncate(run_directory(tmp_path, "max-sup", 1) / "outputs.safetensors")
    diverged = run_directory(tmp_path, "max-sup", 2)
    write_json(diverged / "result.json", {"status": "diverged", "epochs": 1})
    (diverged / "outputs.safetensors").unlink()
    runs, _ = collect([tmp_path])
    assert [(run.method, run.seed) for run in runs] == [("max-sup", 0), ("max-sup", 1)]
    failed = [outcome for outcome in run_each(analyze, runs, workers=1) if outcome.error is not None]
    assert [(outcome.run.method, outcome.run.seed) for outcome in failed] == [("max-sup", 1)]
    assert "seed-1/outputs.safetensors: truncated" in failed[0].error
    assert (run_directory(tmp_path, "max-sup", 0) / "analysis.json").exists()
    assert not (diverged / "analysis.json").exists()
