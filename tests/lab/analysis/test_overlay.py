import base64
import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from maxsup.lab import train
from maxsup.lab.analysis.gradcam import grad_cam
from maxsup.lab.analysis.overlay import gallery, localize, overlay
from maxsup.lab.analysis.weights import load_model, trained_data
from maxsup.lab.data import load
from maxsup.lab.recipes import Data, as_json
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.records import DataError, RecordError, read_json, run_directory, write_json

MASKED = Data(name="masked-folder", image_size=8)


def write_folder(folder, classes, per_class=5):
    """8×8 images of noise; the mask is a square of 3×3 that moves from image to image."""
    random = np.random.default_rng(0)
    for name in classes:
        for i in range(per_class):
            mask = np.zeros((8, 8), np.uint8)
            mask[i : i + 3, 2:5] = 1
            for kind, array in (("images", random.integers(0, 256, (8, 8), dtype=np.uint8)), ("masks", mask)):
                file = folder / kind / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(file)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Five classes, as many as the run of `trained` knows."""
    return write_folder(tmp_path / "masked", "abcde")


@pytest.fixture(scope="session")
def comparison(tmp_path_factory):
    """Two methods with a seed in common and, of the second, a lower seed that the first has not finished."""
    directory = tmp_path_factory.mktemp("gallery") / "comparison"
    recipe = dataclasses.replace(digits_convnet(), epochs=1, data=Data(name="digits", train_size=100))
    methods, seeds = ["max-sup", "cross-entropy", "logit-penalty"], [0, 1]
    write_json(directory / "comparison.json", {"recipe": as_json(recipe), "methods": methods, "seeds": seeds})
    for method, seed in (("max-sup", 1), ("cross-entropy", 0), ("cross-entropy", 1)):
        train.train(recipe, method, seed, run_directory(directory, method, seed))
    return directory


def png(text):
    return np.array(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.parametrize("target", ["label", "prediction"])
def test_a_localization_is_that_of_each_image_by_hand(run_dir, folder, target):
    record = localize(run_dir, MASKED, folder, target=target, thresholds=(0.3, 0.7))
    test = load(MASKED, folder).test
    model = load_model(run_dir)
    cams, logits = grad_cam(model, test.images, test.labels if target == "label" else None)
    precision, recall, iou, energy, hits = [], [], [], [], []
    for cam, mask in zip(cams.double().numpy(), test.target_masks().numpy(), strict=True):
        assert mask.sum() == 9
        above = [cam >= t * cam.max() if cam.max() > 0 else np.zeros_like(mask) for t in (0.3, 0.7)]
        both = np.array([(b & mask).sum() for b in above])
        sizes = np.array([b.sum() for b in above])
        precision.append(both / np.maximum(sizes, 1))
        recall.append(both / 9)
        iou.append(both / (sizes + 9 - both))
        energy.append(cam[mask].sum() / cam.sum() if cam.max() > 0 else 0.0)
        hits.append(bool(mask.flat[cam.argmax()]) and cam.max() > 0)
    assert record["precision"] == pytest.approx(np.mean(precision, axis=0))
    assert record["recall"] == pytest.approx(np.mean(recall, axis=0))
    assert record["iou"] == pytest.approx(np.mean(iou, axis=0))
    assert record["energy_inside"] == pytest.approx(np.mean(energy))
    assert record["pointing_game"] == pytest.approx(np.mean(hits))
    assert record["accuracy"] == pytest.approx((logits.argmax(1) == test.labels).double().mean().item())
    assert record["zero_maps"] == sum(float(cam.max()) == 0 for cam in cams)
    assert (record["n"], record["cropped_away"], record["target"]) == (5, 0, target)
    assert record["thresholds"] == [0.3, 0.7]
    assert record["data"] == {"name": "masked-folder", "split": "test", "class_names": list("abcde")}
    suffix = "" if target == "label" else "-prediction"
    assert read_json(run_dir / f"localization-masked-folder{suffix}.json") == record


def test_a_record_is_kept_until_weights_images_or_settings_change(run_dir, folder):
    file = run_dir / "localization-masked-folder.json"
    localize(run_dir, MASKED, folder)
    marked = {**read_json(file), "n": -1}
    write_json(file, marked)
    assert localize(run_dir, MASKED, folder)["n"] == -1
    assert localize(run_dir, MASKED, folder, thresholds=(0.5,))["n"] == 5

    write_json(file, marked)
    file.write_text("{")
    assert localize(run_dir, MASKED, folder)["n"] == 5

    write_json(file, marked)
    for mask in (folder / "masks" / "a").iterdir():
        Image.new("1", (8, 8), 1).save(mask)
    assert localize(run_dir, MASKED, folder)["n"] == 5

    marked = {**read_json(file), "n": -1}
    write_json(file, marked)
    weights = load_file(run_dir / "model.safetensors")
    save_file({**weights, "backbone.fc.bias": weights["backbone.fc.bias"] + 1}, run_dir / "model.safetensors")
    assert localize(run_dir, MASKED, folder)["n"] == 5

    (run_dir / "model.safetensors").unlink()  # and then it cannot be made again
    assert localize(run_dir, MASKED, folder)["n"] == 5
    with pytest.raises(RecordError, match=r"model\.safetensors: missing"):
        localize(run_dir, MASKED, folder, thresholds=(0.5,))


def test_images_whose_item_is_cropped_away_do_not_count(run_dir, folder):
    for i in range(5):  # of class a, at the left edge of a wide image: outside its central square
        Image.new("L", (24, 8), 50 * i).save(folder / "images" / "a" / f"{i}.png")
        wide = np.zeros((8, 24), np.uint8)
        wide[:, :4] = 1
        Image.fromarray(wide).save(folder / "masks" / "a" / f"{i}.png")
    record = localize(run_dir, MASKED, folder)
    assert (record["n"], record["cropped_away"]) == (4, 1)


def test_images_are_sized_like_those_that_the_run_was_trained_on(run_dir, folder):
    record = localize(run_dir, Data(name="masked-folder"), folder)
    assert record["settings"]["data"]["image_size"] == 8


def test_what_cannot_be_localized_is_refused(run_dir, folder, tmp_path):
    with pytest.raises(ValueError, match="data: digits has no masks"):
        localize(run_dir, Data(name="digits"))
    with pytest.raises(ValueError, match="target must be 'label' or 'prediction', got 'mask'"):
        localize(run_dir, MASKED, folder, target="mask")
    with pytest.raises(ValueError, match=r"data: 2 classes where the model in .*run has 5"):
        localize(run_dir, MASKED, write_folder(tmp_path / "two", "ab"))
    with pytest.raises(DataError, match="images: missing"):
        localize(run_dir, MASKED, tmp_path)
    weights = load_file(run_dir / "model.safetensors")
    weights["backbone.fc.weight"][0, 0] = float("nan")
    save_file(weights, run_dir / "model.safetensors")
    with pytest.raises(RecordError, match=r"model\.safetensors: the model's class activation maps are not finite"):
        localize(run_dir, MASKED, folder)
    assert not list(run_dir.glob("localization-*"))


def test_the_gallery_shows_each_class_once_for_every_finished_method(comparison):
    record = gallery(comparison)
    assert record == read_json(comparison / "analysis" / "gradcam.json")
    assert record["classes"] == [str(i) for i in range(10)]
    run = run_directory(comparison, "max-sup", 1)
    test = load(trained_data(run)).test
    assert [image["label"] for image in record["images"]] == record["classes"]
    for c, image in enumerate(record["images"]):
        assert image["index"] == test.labels.tolist().index(c)
        assert np.array_equal(png(image["png"]), test.images[image["index"], 0].numpy())
    # The third method has no finished run; seed 1 is the only one that the two others share.
    assert {method: of["seed"] for method, of in record["methods"].items()} == {"max-sup": 1, "cross-entropy": 1}

    shown = test.take(torch.tensor([image["index"] for image in record["images"]]))
    cams, logits = grad_cam(load_model(run), shown.images, shown.labels)
    pictures = record["methods"]["max-sup"]["cams"]
    assert [picture["prediction"] for picture in pictures] == [str(i) for i in logits.argmax(1).tolist()]
    assert [p["confidence"] for p in pictures] == pytest.approx(logits.softmax(1).amax(1).tolist())
    for picture, image, cam in zip(pictures, shown.images, cams, strict=True):
        assert np.array_equal(png(picture["png"]), overlay(image[0].numpy(), cam.numpy()))


def test_the_gallery_shows_chosen_images_and_is_kept(comparison, tmp_path):
    directory = shutil.copytree(comparison, tmp_path / "comparison")
    record = gallery(directory, indices=[7, 3])
    assert [image["index"] for image in record["images"]] == [7, 3]
    file = directory / "analysis" / "gradcam.json"
    write_json(file, {**record, "classes": ["kept"]})
    assert gallery(directory, indices=[7, 3])["classes"] == ["kept"]
    weights = run_directory(directory, "max-sup", 1) / "model.safetensors"
    weights.rename(tmp_path / "weights")
    assert gallery(directory, indices=[7, 3])["classes"] == ["kept"]
    # A method that was finished since: the record does not show it and cannot be made again.
    added = run_directory(directory, "logit-penalty", 1)
    recipe = dataclasses.replace(digits_convnet(), epochs=1, data=Data(name="digits", train_size=100))
    train.train(recipe, "logit-penalty", 1, added)
    with pytest.raises(RecordError, match=r"max-sup/seed-1/model\.safetensors: missing"):
        gallery(directory, indices=[7, 3])
    assert read_json(file)["classes"] == ["kept"]
    shutil.rmtree(added)
    (tmp_path / "weights").rename(weights)
    assert len(gallery(directory)["images"]) == 10
    with pytest.raises(ValueError, match=r"indices must be from 0 to 359, the test images, got 360"):
        gallery(directory, indices=[360])

    shutil.rmtree(run_directory(directory, "cross-entropy", 1))
    assert {m: of["seed"] for m, of in gallery(directory)["methods"].items()} == {"max-sup": 1, "cross-entropy": 0}
    for method in ("max-sup", "cross-entropy"):
        shutil.rmtree(directory / "runs" / method)
    with pytest.raises(RecordError, match="comparison: no finished run to explain"):
        gallery(directory)


def test_an_overlay_blends_the_maps_colour_over_grey():
    cam = np.array([[0.0, 2.0], [1.0, 0.0]], np.float32)
    image = np.array([[0, 100], [200, 255]], np.uint8)
    out = overlay(image, cam)
    # viridis at a half and at its end, in 0..255: (33, 145, 140) and (253, 231, 37).
    assert out[0, 0].tolist() == [0, 0, 0]
    assert out[1, 1].tolist() == [128, 128, 128]
    assert out[0, 1] == pytest.approx(0.15 * 50 + 0.85 * np.array([253, 231, 37]), abs=1.5)
    assert out[1, 0] == pytest.approx(0.575 * 100 + 0.425 * np.array([33, 145, 140]), abs=1.5)
    grey = np.repeat(image[..., None], 3, axis=2)
    assert np.array_equal(overlay(grey, cam), out)
    assert overlay(image, 0 * cam)[..., 0].tolist() == [[0, 50], [100, 128]]


def test_the_settings_of_a_record_are_plain_json(run_dir, folder):
    settings = localize(run_dir, dataclasses.replace(MASKED, classes=(4, 3, 2, 1, 0)), folder)["settings"]
    assert settings == json.loads(json.dumps(settings))
    assert settings["data"]["classes"] == [4, 3, 2, 1, 0]
