"""docs/results/recompute.py: cells of the tables from raw outputs, by NumPy alone."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from maxsup.lab import evaluate
from maxsup.lab.records import read_comparison, read_json, run_directory, write_json
from maxsup.lab.report import summarize
from tests.lab.report import factory

SCRIPT = Path(__file__).parents[3] / "docs" / "results" / "recompute.py"
# The script in a process in which importing any of these fails.
BARRED = f"""
import runpy, sys
sys.modules.update(dict.fromkeys(["maxsup", "torch", "safetensors", "scipy", "sklearn"]))
sys.argv = sys.argv[1:]
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""
TESTED = {"accuracy", "confidence_wrong", "nll", "ece", "d_within", "r_squared"}


def recompute(*arguments):
    command = [sys.executable, "-c", BARRED, "recompute.py", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def outputs(seed, shift):
    """Raw outputs of 200 images of 4 classes, some of them misclassified."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(200) % 4
    features = torch.randn(200, 8, generator=generator) + 2 * torch.eye(4, 8)[labels]
    logits = features[:, :4] + shift * torch.randn(200, 4, generator=generator)
    return {"features": features, "logits": logits, "labels": labels}


@pytest.fixture
def recorded(tmp_path):
    """Two methods × two seeds whose measures the lab's own functions took of the recorded outputs."""
    write_json(tmp_path / "comparison.json", {"recipe": {"name": "made"}, "methods": factory.METHODS, "seeds": [0, 1]})
    for place, method in enumerate(factory.METHODS):
        for seed in (0, 1):
            path = factory.write_run(tmp_path, method, seed, 0.5)
            parts = outputs(10 * place + seed, 1 + place)
            save_file({f"test.{name}": value for name, value in parts.items()}, path / "outputs.safetensors")
            measures = {"test": evaluate.measures(evaluate.Outputs(**parts)), "train": factory.split(0.5)}
            write_json(path / "result.json", {"status": "finished", "epochs": 1, "measures": measures})
    write_json(tmp_path / "summary.json", summarize(read_comparison(tmp_path)))
    return tmp_path


def test_every_cell_agrees_with_the_summary(recorded):
    code, out, err = recompute(recorded)
    assert (code, err) == (0, "")
    assert out.endswith("all cells agree\n")
    for method in factory.METHODS:
        assert f"{method}, test images, seeds 0, 1" in out
    names = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert names.count("accuracy") == 2
    assert set(names) == TESTED
    entry = read_json(recorded / "summary.json")["methods"]["max-sup"]["measures"]["test.d_within"]
    assert f"summary.json {entry['mean']:.6f} ± {entry['std']:.6f} (n = 2)" in out


def test_one_altered_logit_is_found(recorded):
    file = run_directory(recorded, "max-sup", 1) / "outputs.safetensors"
    tensors = load_file(file)
    tensors["test.logits"][0, 0] += 50  # the first image's class is 0: surely right now
    save_file(tensors, file)
    assert recompute(recorded, "cross-entropy")[0] == 0
    code, out, _ = recompute(recorded, "max-sup")
    assert code == 1
    differing = {line.split()[0] for line in out.splitlines() if line.endswith("DIFFERS")}
    assert "nll" in differing
    assert not differing & {"d_within", "r_squared"}  # of the features, which are as they were
    assert out.endswith(f"{len(differing)} cells differ\n")


def test_what_is_missing_is_named(recorded):
    assert recompute(recorded, "maxsup") == (
        1,
        "",
        f"unknown method 'maxsup'; {recorded / 'summary.json'} has cross-entropy, max-sup\n",
    )
    file = run_directory(recorded, "max-sup", 1) / "outputs.safetensors"
    file.unlink()
    assert recompute(recorded, "max-sup") == (1, "", f"{file}: no recorded outputs\n")
    (recorded / "summary.json").unlink()
    assert recompute(recorded)[2].startswith(f"{recorded / 'summary.json'}: missing")


def test_tensors_of_every_type_are_read_as_the_library_reads_them(tmp_path):
    spec = importlib.util.spec_from_file_location("recompute", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    values = torch.tensor([[1.5, -2.25, 3e-3], [0.0, 1e4, -7.0]])
    types = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32]
    tensors = {str(dtype): values.to(dtype) for dtype in types}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = script.read_safetensors(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.double().numpy())


def test_measures_by_hand():
    spec = importlib.util.spec_from_file_location("recompute", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    # Two classes; top-1 probabilities 0.9, 0.8, 0.6, of which the second is wrong.
    logits = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]))
    features = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    found = script.measures(features, logits, np.array([0, 1, 1]))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["confidence_wrong"] == pytest.approx(0.8)
    assert found["nll"] == pytest.approx(-np.log([0.9, 0.2, 0.6]).mean())
    assert found["ece"] == pytest.approx((0.1 + 0.8 + 0.4) / 3)
    # Each class lies on one ray, and the two rays are at right angles: distance 0 within, half of the pairs apart.
    assert found["d_within"] == pytest.approx(0)
    assert found["r_squared"] == pytest.approx(1)
