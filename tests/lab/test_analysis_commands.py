import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from maxsup.lab import analysis_commands as commands
from maxsup.lab import records, train
from maxsup.lab.analysis.batch import Outcome
from maxsup.lab.recipes import Data
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.records import Comparison, RecordError, RunRecord


def fake(directory, *runs):
    made = [RunRecord(directory / f"{method}-{seed}", method, seed, "finished") for method, seed in runs]
    return Comparison(directory, {}, ["a", "b"], [0, 1], made)


def record(linear, knn, unconverged=0):
    path = [{"converged": i >= unconverged} for i in range(45)]
    return {
        "data": {"name": "digits", "train": 50, "test": 20},
        "linear": {"accuracy": linear, "strength": 1.0, "path": path, "refit": {"converged": True}},
        "knn": {"neighbors": 20, "accuracy": knn},
    }


def cells(table):
    return list(zip(*(column.cells for column in table.columns), strict=True))


def test_the_table_has_mean_and_deviation_over_the_runs_that_were_probed(tmp_path):
    comparison = fake(tmp_path, ("a", 0), ("a", 1), ("b", 0), ("b", 1))
    records_of = [record(0.5, 0.25), record(0.75, 0.25, unconverged=3), record(0.5, 0.125), None]
    outcomes = [
        Outcome(run, of, None if of else "damaged") for run, of in zip(comparison.runs, records_of, strict=True)
    ]
    elsewhere = Outcome(RunRecord(tmp_path / "other", "a", 0, "finished"), record(0.0, 0.0))
    table = commands.probe_table(comparison, [*outcomes, elsewhere])
    assert table.title == "Probe on digits: 50 training and 20 test images"
    # Of 0.5 and 0.75: mean 0.625, deviation 0.25/√2; a single run has none.
    assert cells(table) == [
        ("a", "2", "62.50 ± 17.68", "25.00 ± 0.00", "3 of 92"),
        ("b", "1", "50.00", "12.50", "0 of 46"),
    ]
    none = commands.probe_table(comparison, [Outcome(run, error="damaged") for run in comparison.runs])
    assert cells(none) == [("a", "0", "–", "–", "0 of 0"), ("b", "0", "–", "–", "0 of 0")]


def test_pictures_that_cannot_be_made_are_told_and_those_of_damaged_records_are_problems(tmp_path, monkeypatch, capsys):
    def fail_with(error):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(commands.overlay, "gallery", fail)
        monkeypatch.setattr(commands.projection, "project", fail)

    comparison = fake(tmp_path)
    fail_with(ValueError("needs a feature map"))
    assert commands.gallery(comparison, None) == []
    assert commands.project(comparison, None, None, None) == []
    assert capsys.readouterr().out == (
        f"{tmp_path}: no Grad-CAM: needs a feature map\n{tmp_path}: no projection: needs a feature map\n"
    )
    with pytest.raises(ValueError, match="needs a feature map"):
        commands.project(comparison, None, ("x", "y", "z"), None)
    fail_with(RecordError("model.safetensors: missing"))
    assert commands.gallery(comparison, None) == [f"{tmp_path}: no Grad-CAM: model.safetensors: missing"]
    assert commands.project(comparison, None, None, "a") == [f"{tmp_path}: no projection: model.safetensors: missing"]


def test_runs_on_images_with_masks_are_localized_too(tmp_path, capfd):
    digits = load_digits()
    for c in (0, 1):
        for kind in ("images", "masks"):
            (tmp_path / "data" / kind / str(c)).mkdir(parents=True)
        for i, image in enumerate(digits.images[digits.target == c][:30]):
            pixels = np.rint(image * (255 / 16)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / "images" / str(c) / f"{i}.png")
            mask = (255 * (pixels > 100)).astype(np.uint8)
            Image.fromarray(mask).save(tmp_path / "data" / "masks" / str(c) / f"{i}.png")
    recipe = dataclasses.replace(digits_convnet(), epochs=1, data=Data("masked-folder"))
    run = tmp_path / "run"
    train.train(recipe, "cross-entropy", 0, run, data_dir=tmp_path / "data")
    (outcome,) = commands.analyze(commands.collect([run])[0], tmp_path / "data", None)
    assert outcome.error is None
    assert outcome.record["measures"] == records.read_json(run / "analysis.json")["measures"]
    assert records.read_json(run / "localization-masked-folder.json")["n"] == 12
    assert "cross-entropy seed 0: " in capfd.readouterr().err
    shutil.rmtree(tmp_path / "data" / "images")
    (outcome,) = commands.analyze(commands.collect([run])[0], tmp_path / "data", None)
    assert f"{tmp_path / 'data' / 'images'}: missing" in outcome.error
