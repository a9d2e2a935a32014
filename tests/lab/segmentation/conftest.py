"""ADE20K's layout with a few tiny images, squares in memory, and finished runs to fine-tune."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from maxsup.lab import records, train
from maxsup.lab.recipes import Data, as_json
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.segmentation import sources
from maxsup.lab.segmentation.data import Arrays, SegmentationData
from maxsup.lab.segmentation.recipes import AdamW, Augmentation, Decoder, MultiScale, SegmentationRecipe


def write_pair(root, part, name, shape, seed, values=(0, 1, 2, 150)):
    """A photograph of noise and its labels, of `values`, in stripes."""
    random = np.random.default_rng(seed)
    labels = np.array(values, np.uint8)[np.arange(shape[1]) * len(values) // shape[1]]
    for kind, suffix in (("images", "jpg"), ("annotations", "png")):
        (root / kind / part).mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (*shape, 3), np.uint8) if kind == "images" else np.tile(labels, (shape[0], 1))
        Image.fromarray(pixels).save(root / kind / part / f"{name}.{suffix}")


@pytest.fixture(autouse=True)
def on_a_cpu(request, monkeypatch):
    """Where there is a GPU too: the digits that the tests compare are a CPU's, and two processes want two GPUs."""
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture
def ade20k(tmp_path):
    root = tmp_path / "ADEChallengeData2016"
    for i in range(8):
        write_pair(root, "training", f"ADE_train_{i:08d}", (20 + i, 30 - i), i)
    for i in range(4):
        write_pair(root, "validation", f"ADE_val_{i:08d}", (24, 18 + 2 * i), 100 + i)
    rows = [f"{c}\t0.1\t10\t1\t0\tname {c}, other {c}" for c in range(1, 151)]
    (root / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tStuff\tName", *rows]) + "\n")
    return root


def scenes(n, seed):
    """Grey squares of class 1 or 2, dark or bright, on black, 16×16."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(n, 1, 16, 16, dtype=torch.uint8)
    labels = torch.zeros(n, 16, 16, dtype=torch.uint8)
    for i in range(n):
        top, left = torch.randint(0, 9, (2,), generator=generator).tolist()
        images[i, 0, top : top + 8, left : left + 8] = 250 if i % 2 else 120
        labels[i, top : top + 8, left : left + 8] = 1 + i % 2
    return Arrays(images, labels)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A comparison of two finished runs on digits; for reading alone."""
    directory = tmp_path_factory.mktemp("compared")
    recipe = dataclasses.replace(digits_convnet(), epochs=1, data=Data(name="digits", train_size=200))
    methods = ["cross-entropy", "max-sup"]
    records.write_json(directory / "comparison.json", {"recipe": as_json(recipe), "methods": methods, "seeds": [0]})
    for method in methods:
        train.train(recipe, method, 0, records.run_directory(directory, method, 0))
    return directory


@pytest.fixture
def compared(trained, tmp_path):
    """A copy of the comparison, to write into."""
    return shutil.copytree(trained, tmp_path / "compared")


@pytest.fixture
def run_dir(compared):
    return records.run_directory(compared, "max-sup", 0)


@pytest.fixture
def squares(monkeypatch):
    """The data set `squares`, in memory."""
    data = SegmentationData("squares", ("nothing", "dark", "bright"), scenes(24, 0), scenes(8, 1), scenes(8, 2))
    monkeypatch.setitem(sources.DATA_SETS, "squares", lambda data_dir: data)
    return data


SHORT = SegmentationRecipe(
    name="short",
    data="squares",
    iterations=6,
    batch_size=8,
    interval=2,
    augmentation=Augmentation(flip=True),
    decoder=Decoder(channels=8, auxiliary_channels=4),
    optimizer=AdamW(lr=3e-3, warmup=2),
    multi_scale=MultiScale(scales=(0.75, 1.0)),
)
