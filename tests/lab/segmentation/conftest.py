"""ADE20K's layout with a few tiny images."""

import numpy as np
import pytest
from PIL import Image


def write_pair(root, part, name, shape, seed, values=(0, 1, 2, 150)):
    """A photograph of noise and its labels, of `values`, in stripes."""
    random = np.random.default_rng(seed)
    labels = np.array(values, np.uint8)[np.arange(shape[1]) * len(values) // shape[1]]
    for kind, suffix in (("images", "jpg"), ("annotations", "png")):
        (root / kind / part).mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (*shape, 3), np.uint8) if kind == "images" else np.tile(labels, (shape[0], 1))
        Image.fromarray(pixels).save(root / kind / part / f"{name}.{suffix}")


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
