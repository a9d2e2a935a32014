"""The benchmark scripts that can run small do run, and write what they say."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    def load(name):
        specification = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        module = importlib.util.module_from_spec(specification)
        monkeypatch.setitem(sys.modules, name, module)  # where dataclasses look for it
        specification.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def one_thread():
    """What is tiny is computed faster by one, where others want the cores too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_bench_step_writes_its_table(load, tmp_path, capsys):
    bench_step = load("bench_step")
    bench_step.main(["--tiny", "--out", str(tmp_path / "step.md")])
    rows = json.loads((tmp_path / "step.json").read_text())["rows"]
    assert {row["work"] for row in rows} == {"test_resnet", "lm"}
    assert all(row["rounds"] == bench_step.FEWEST_ROUNDS for row in rows)
    for row in rows:
        assert row["ms_deciles"][0] <= row["ms"] <= row["ms_deciles"][1]
        if row["loss"] == bench_step.PLAIN:
            assert row["over_plain"] == [0, 0, 0]
    written, printed = (tmp_path / "step.md").read_text(), capsys.readouterr().out
    lines = [line for line in written.splitlines() if line.startswith(("| lm", "| test_resnet"))]
    assert len(lines) == len(rows)
    assert all(line in printed for line in lines)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # of the interpreter's NumPy
def test_sanitize_finds_the_kernels_right(load, capsys, monkeypatch):
    monkeypatch.setenv("PYTORCH_NO_CUDA_MEMORY_CACHING", "")  # the script sets it for good
    assert load("sanitize").main(["--few"]) == 0
    assert "0 comparisons failed" in capsys.readouterr().out


@pytest.mark.usefixtures("one_thread")
def test_bench_training_writes_its_table(load, tmp_path, capsys):
    loops = ["plain", "lab", "lab, graph"]
    arguments = ["--tiny", "--works", "convnet", "--seconds", "0", "--out", str(tmp_path / "training.md")]
    load("bench_training").main([*arguments, "--loops", *loops])
    written, printed = (tmp_path / "training.md").read_text(), capsys.readouterr().out
    rows = [line.split(" | ") for line in written.splitlines() if line.startswith("| convnet")]
    assert [row[1] for row in rows] == loops
    # A rate, how often the plain loop's, and nothing that only a GPU has.
    assert all(float(row[2].replace(",", "")) > 0 for row in rows)
    assert [bool(row[4].strip()) for row in rows] == [False, True, True]
    assert "failed" not in written
    assert all(line in printed for line in written.splitlines())


@pytest.mark.usefixtures("one_thread")
def test_bench_decode_writes_its_tables(load, tmp_path, capsys):
    arguments = ["--tiny", "--workers", "0", "--model", "test_resnet", "--out", str(tmp_path / "decode.md")]
    load("bench_decode").main(arguments)
    written, printed = (tmp_path / "decode.md").read_text(), capsys.readouterr().out
    (decoding,) = [line for line in written.splitlines() if line.startswith("| 0 |")]
    assert all(float(rate) > 0 for rate in decoding.strip("| ").split(" | ")[1:])
    training = [line for line in written.splitlines() if line.startswith("| test_resnet, ")]
    assert len(training) == 3
    assert all(line in printed for line in training)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        ("ade20k-upernet", ("deit_small_patch16_224", "resnet50")),
        ("fashion-scenes-upernet", ("resnet18", "deit_tiny_patch16_224")),
    ],
)
def test_bench_segmentation_writes_its_tables(load, tmp_path, recipe, names):
    load("bench_segmentation").main(["--recipe", recipe, "--tiny", "--out", str(tmp_path / "segmentation.md")])
    lines = (tmp_path / "segmentation.md").read_text().splitlines()
    backbones = [line.split(" | ")[0] for line in lines if line.startswith(tuple(f"| {name}" for name in names))]
    # Three losses each, the other kernels once, and two ways of testing each.
    one, other = (f"| {name}" for name in names)
    assert backbones == [one] * 3 + [other] * 3 + [one] * 3 + [other] * 2
