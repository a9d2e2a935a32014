"""The recipes from end to end on handwritten digits in the file formats of their data; on a GPU, every one."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torchvision.datasets import CIFAR100

from maxsup.lab.data import imagenet

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "run_recipes.py"
GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# Losses that keep a table, or take the logits of all positions.
SOME = ["cross-entropy", "online-label-smoothing", "zipf-label-smoothing", "confidence-penalty", "logit-penalty"]
METHODS = ["--cuda-graph", "--recipes", "cifar100-resnet18", "imagenet-deit-small,", "--methods", *SOME]
# Of the compiler, which recommends TF32 for matrices in float32.
pytestmark = pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")


@pytest.fixture
def rehearse(tmp_path, monkeypatch):
    """Runs the script; returns the cells of its rows. What it changes of other modules is put back."""
    for owner, name in (
        (CIFAR100, "train_list"),
        (CIFAR100, "test_list"),
        (CIFAR100, "meta"),
        (imagenet, "CLASSES"),
        (imagenet, "HELD_OUT"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    for name in ("HOME", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    specification = importlib.util.spec_from_file_location("run_recipes", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)

    def rehearse(*arguments):
        out = tmp_path / "recipes.md"
        module.main([*arguments, "--source", "digits", "--loader-workers", "0", "--out", str(out)])
        rows = out.read_text().splitlines()[4:]
        return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]

    return rehearse


def test_folders_and_shards_of_the_same_images_are_trained_on_alike(rehearse):
    rows = rehearse(
        *("--recipes", "imagenet-v1-resnet18", "--images", "10", "--batch-size", "16", "--image-size", "32")
    )
    assert [row[0] for row in rows] == ["imagenet-v1-resnet18", "imagenet-v1-resnet18, shards"]
    for row in rows:
        assert row[2:4] == ["finished", "80 + 20 + 20"]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], marks=GPU, id="eager"),
        pytest.param(["--cuda-graph"], marks=GPU, id="graph"),
        pytest.param(["--compile", "--recipes", "cifar100-resnet18", "imagenet-deit-small,"], marks=GPU, id="compile"),
        pytest.param(METHODS, marks=GPU, id="methods"),
    ],
)
def test_every_recipe_runs_on_a_gpu(rehearse, options):
    rows = rehearse("--images", "24", "--image-size", "64", "--batch-size", "32", *options)
    ran = [row for row in rows if not row[2].startswith("no data")]
    assert len(ran) >= 2
    assert {row[2] for row in ran} == {"finished"}
