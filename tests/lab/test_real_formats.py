"""A run from end to end on the file formats of large data sets: folders of JPEGs, shards, CIFAR's pickles."""

import dataclasses

import pytest

from maxsup.lab.data import imagenet
from maxsup.lab.recipes import Data, Model, Optimizer, Recipe
from maxsup.lab.records import read_run
from maxsup.lab.train import train
from tests.lab.real_files import write_folder, write_shards
from tests.lab.test_user_data import cifar10  # noqa: F401

AUGMENTED = {"random_resized_crop": True, "crop_scale": (0.6, 1.0), "interpolation": "bicubic", "eval_crop": 0.875}


def recipe(data):
    return Recipe(
        name="tiny",
        epochs=2,
        batch_size=16,
        data=data,
        model=Model(name="convnet"),
        optimizer=Optimizer(lr=0.05),
    )


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def run(data, folder, tmp_path):
    result = train(recipe(data), "max-sup", 0, tmp_path / "run", data_dir=folder)
    assert result["status"] == "finished"
    assert read_run(tmp_path / "run").status == "finished"
    return result["measures"]


def test_an_image_folder_of_jpegs_is_trained_on_by_workers(tmp_path):
    write_folder(tmp_path / "images" / "train", ["one", "two"], 20)
    write_folder(tmp_path / "images" / "val", ["one", "two"], 8, start=20)
    data = Data(name="image-folder", image_size=24, streaming="on", loader_workers=2, **AUGMENTED)
    measured = run(data, tmp_path / "images", tmp_path)
    assert [measured[name]["n"] for name in ("train", "validation", "test")] == [32, 8, 16]
    # The number of workers decides nothing.
    alone = dataclasses.replace(data, loader_workers=0)
    again = train(recipe(alone), "max-sup", 0, tmp_path / "again", data_dir=tmp_path / "images")
    assert again["measures"] == measured


def test_imagenets_layout_is_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "CLASSES", 2)
    monkeypatch.setattr(imagenet, "HELD_OUT", 4)
    write_folder(tmp_path / "images" / "train", ["n01", "n02"], 20)
    write_folder(tmp_path / "images" / "val", ["n01", "n02"], 8, start=20)
    data = Data(
        name="imagenet",
        image_size=24,
        rand_augment="rand-m9-mstd0.5-inc1",
        flip=True,
        normalize="imagenet",
        loader_workers=0,
        repeats=2,
        **AUGMENTED,
    )
    measured = run(data, tmp_path / "images", tmp_path)
    assert [measured[name]["n"] for name in ("train", "validation", "test")] == [32, 8, 16]


def test_shards_are_trained_on(tmp_path):
    write_shards(tmp_path / "shards", {"train": (0, 15), "validation": (15, 5)}, 3)
    data = Data(name="webdataset", image_size=24, loader_workers=0, **AUGMENTED)
    measured = run(data, tmp_path / "shards", tmp_path)
    assert [measured[name]["n"] for name in ("train", "validation", "test")] == [36, 9, 15]


def test_cifars_pickles_are_trained_on(cifar10, tmp_path):  # noqa: F811
    data = Data(name="cifar10", pad_crop=4, flip=True, rotation=15)
    measured = run(data, cifar10, tmp_path)
    assert [measured[name]["n"] for name in ("train", "validation", "test")] == [180, 20, 30]
