import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchmetrics.functional.classification import multiclass_calibration_error

from maxsup.lab.analysis import corruption as module
from maxsup.lab.analysis.corruption import measure_corruptions
from maxsup.lab.analysis.weights import load_model, trained_data
from maxsup.lab.data import load
from maxsup.lab.data.corruptions import CORRUPTIONS, corrupt
from maxsup.lab.records import RecordError, read_json

# Fast and of different families; the command takes all.
FEW = ("impulse-noise", "brightness", "contrast")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    kinds = {name: CORRUPTIONS[name] for name in FEW}
    monkeypatch.setattr(module, "CORRUPTIONS", kinds)
    monkeypatch.setattr(module, "FAMILIES", ("noise", "weather", "digital"))


def test_the_record_is_the_measures_of_the_models_outputs(run_dir, monkeypatch):
    monkeypatch.setattr(module, "EVALUATION_BATCH", 50)  # 181 test images: four batches, the last of 31
    record = measure_corruptions(run_dir)
    assert read_json(run_dir / "corruptions.json") == record
    model, test = load_model(run_dir), load(trained_data(run_dir)).test
    assert record["data"] == {"name": "digits", "n": len(test)}

    def measured(images):
        with torch.inference_mode():
            logits = model(images).double()
        ece = multiclass_calibration_error(logits.softmax(1), test.labels, num_classes=5, n_bins=15)
        error = (logits.argmax(1) != test.labels).double().mean()
        return float(error), float(torch.nn.functional.cross_entropy(logits, test.labels)), float(ece)

    # Sums over the network's products differ with the size of the batch.
    clean = [record["clean"][name] for name in module.MEASURES]
    assert clean == pytest.approx(measured(test.images), rel=1e-5, abs=1e-6)
    for name in FEW:
        for severity in (1, 5):
            found = [record["corruptions"][name][measure][severity - 1] for measure in module.MEASURES]
            images = corrupt(test.images, name, severity, torch.arange(len(test)))
            assert found == pytest.approx(measured(images), rel=1e-5, abs=1e-6)


def test_the_clean_error_is_that_of_training(run_dir):
    accuracy = read_json(run_dir / "result.json")["measures"]["test"]["accuracy"]
    assert measure_corruptions(run_dir)["clean"]["error"] == pytest.approx(1 - accuracy, abs=1e-9)


def test_means_by_hand():
    found = {("", 0): dict.fromkeys(module.MEASURES, 0.0)}
    for place, name in enumerate(FEW):
        for severity in range(1, 6):
            found[name, severity] = dict.fromkeys(module.MEASURES, 10 * place + severity)
    of = module._arranged(found)
    assert of["corruptions"]["brightness"]["nll"] == [11, 12, 13, 14, 15]
    assert of["by_severity"]["error"] == [11, 12, 13, 14, 15]
    assert [of["by_family"][family]["ece"] for family in ("noise", "weather", "digital")] == [3, 13, 23]
    assert of["mean"] == {"error": 13, "nll": 13, "ece": 13}


def test_it_is_kept_until_the_weights_change(run_dir, monkeypatch):
    record = measure_corruptions(run_dir)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_measure", None)  # not to be called
        assert measure_corruptions(run_dir) == record
    weights = load_file(run_dir / "model.safetensors")
    weights["backbone.fc.bias"] += torch.tensor([50.0, 0, 0, 0, 0])
    save_file(weights, run_dir / "model.safetensors")
    changed = measure_corruptions(run_dir)
    assert changed["clean"]["error"] > 0.5
    assert changed["model_sha256"] != record["model_sha256"]


def test_other_test_images_and_bad_weights_are_errors(run_dir, monkeypatch):
    data_set = load(trained_data(run_dir))
    fewer = dataclasses.replace(data_set, test=data_set.test.take(torch.arange(20)))
    with monkeypatch.context() as patch:
        patch.setattr(module, "load", lambda data, data_dir: fewer)
        with pytest.raises(RecordError, match="digits has other test images here than when the run was tested"):
            measure_corruptions(run_dir)
    weights = load_file(run_dir / "model.safetensors")
    weights["backbone.fc.bias"] += float("nan")
    save_file(weights, run_dir / "model.safetensors")
    with pytest.raises(RecordError, match=r"model.safetensors: the logits of corrupted images are not finite"):
        measure_corruptions(run_dir)
    assert not (run_dir / "corruptions.json").exists()
