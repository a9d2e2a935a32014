"""A comparison folder with every record that a picture is made of; the values are random but fixed."""

import base64
import io
import shutil

import numpy as np
import pytest
import torch
from matplotlib import image

from maxsup.lab.analysis import curves
from maxsup.lab.records import Json, read_comparison, run_directory, write_json
from maxsup.lab.report import figures
from tests.lab.report import factory

CLASSES = ["shirt", "coat", "bag", "ankle boot"]


def analysis(seed: int) -> Json:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (400,), generator=generator)
    logits = 2 * torch.randn(400, 4, generator=generator)
    logits[torch.arange(400), labels] += 3
    return {
        "curves": {
            "reliability": curves.reliability(logits, labels),
            "reliability_scaled": curves.reliability(logits / 1.5, labels),
            "risk_coverage": curves.risk_coverage(logits, labels, 2.0),
            "logit_density": curves.logit_density(logits, labels),
            "near_zero": curves.near_zero(logits),
        }
    }


def projection() -> Json:
    generator = np.random.default_rng(0)
    labels = [0] * 5 + [1] * 5 + [2] * 5

    def split() -> Json:
        return {"points": generator.normal(size=(15, 2)).round(3).tolist(), "labels": labels}

    return {
        "settings": {},
        "classes": CLASSES[:3],
        "chosen_by": "named",
        "images": 80,
        "methods": {
            method: {"seed": 0, "templates": [[0, 0], [2, 0], [1, 3]], "train": split(), "validation": split()}
            for method in factory.METHODS
        },
    }


def png(level: float) -> str:
    out = io.BytesIO()
    image.imsave(out, np.full((8, 8, 3), level), format="png")
    return base64.b64encode(out.getvalue()).decode()


def gradcam() -> Json:
    def cams(*predictions: int) -> Json:
        return {
            "seed": 0,
            "cams": [{"prediction": CLASSES[p], "confidence": 0.1 * p + 0.5, "png": png(0.5)} for p in predictions],
        }

    return {
        "classes": CLASSES,
        "images": [
            {"index": 7, "label": "ankle boot", "png": png(0.2)},
            {"index": 9, "label": "shirt", "png": png(0.9)},
        ],
        "methods": {"cross-entropy": cams(3, 1), "max-sup": cams(3, 0)},
    }


def overlap(shift: float) -> Json:
    return {
        "thresholds": [0.1, 0.5, 0.9],
        "precision": [0.3 + shift, 0.5, 0.7],
        "recall": [0.9, 0.6, 0.2 + shift],
        "iou": [0.2, 0.4 + shift, 0.1],
        "energy_inside": 0.5,
        "pointing_game": 0.6,
    }


@pytest.fixture(scope="session")
def complete(tmp_path_factory):
    """The comparison of the factory with analyses, projection, Grad-CAM and overlaps; for reading alone."""
    directory = factory.comparison(tmp_path_factory.mktemp("complete"))
    for i, method in enumerate(factory.METHODS):
        for seed in range(3):
            run = run_directory(directory, method, seed)
            write_json(run / "analysis.json", analysis(10 * i + seed))
            write_json(run / "localization-scenes.json", overlap(0.02 * seed))
    write_json(directory / "analysis" / "projection.json", projection())
    write_json(directory / "analysis" / "gradcam.json", gradcam())
    return directory


@pytest.fixture(scope="session")
def drawn(complete):
    """All its pictures and notes."""
    return figures.all_figures(read_comparison(complete))


@pytest.fixture
def everything(complete, tmp_path):
    """A copy of the complete comparison, to damage."""
    return shutil.copytree(complete, tmp_path / "comparison")
