import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from maxsup.lab.analysis import projection as module
from maxsup.lab.analysis.projection import draw, plane_coordinates, project
from maxsup.lab.analysis.weights import load_model
from maxsup.lab.data import Split, load
from maxsup.lab.names import UnknownNameError
from maxsup.lab.recipes import Data
from maxsup.lab.records import RecordError, read_json, run_directory, write_json

DATA = Data(name="digits", train_size=200, classes=(0, 1, 2, 3, 4))


def comparison(directory, trained, methods=("cross-entropy", "max-sup"), seeds=(0, 1)):
    """Runs with the trained run's records; each method's weights are other ones."""
    write_json(directory / "comparison.json", {"recipe": {"name": "x"}, "methods": list(methods), "seeds": list(seeds)})
    for i, method in enumerate(methods):
        for seed in seeds:
            run = shutil.copytree(trained, run_directory(directory, method, seed))
            info = json.loads((run / "run.json").read_text())
            (run / "run.json").write_text(json.dumps(info | {"method": method, "seed": seed}))
            weights = load_file(run / "model.safetensors")
            weights["backbone.fc.weight"] += 0.1 * i
            save_file(weights, run / "model.safetensors")
    return directory


def test_the_templates_have_known_coordinates():
    templates = torch.tensor([[1.0, 2.0, 2.0], [4.0, 2.0, 2.0], [3.0, 2.0, 7.0]])
    # w1 is the origin, w2 lies 3 along the first direction, w3 − w1 = (2, 0, 5).
    expected = torch.tensor([[0.0, 0.0], [3.0, 0.0], [2.0, 5.0]], dtype=torch.float64)
    torch.testing.assert_close(plane_coordinates(templates, templates), expected)
    # What is perpendicular to the plane, here the second axis, does not show.
    features = torch.tensor([[0.0, 99.0, 0.0]])
    torch.testing.assert_close(plane_coordinates(features, templates), torch.tensor([[-1.0, -2.0]]).double())


def test_the_plane_keeps_distances_and_is_nearest():
    generator = torch.Generator().manual_seed(0)
    templates, features = torch.randn(53, 20, generator=generator, dtype=torch.float64).split([3, 50])
    corners = plane_coordinates(templates, templates)
    torch.testing.assert_close(torch.pdist(corners), torch.pdist(templates))
    # Least squares finds the same nearest points of the plane, in the coordinates of two edges.
    edges = (templates[1:] - templates[0]).numpy()
    weights = np.linalg.lstsq(edges.T, (features - templates[0]).numpy().T, rcond=None)[0]
    np.testing.assert_allclose(
        plane_coordinates(features, templates).numpy(), weights.T @ corners[1:].numpy(), atol=1e-9
    )


@pytest.mark.parametrize("third", [[3.0, 3.0], [1.0, 1.0], [2.0, 2.0]])
def test_three_templates_on_a_line_span_no_plane(third):
    with pytest.raises(ValueError, match="templates must span a plane"):
        plane_coordinates(torch.zeros(1, 2), torch.tensor([[1.0, 1.0], [2.0, 2.0], third]))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"templates \(3, D\), got \(4, 5\) and \(2, 5\)"):
        plane_coordinates(torch.zeros(4, 5), torch.zeros(2, 5))


def test_images_are_drawn_once_for_all():
    images = torch.arange(600).view(600, 1, 1, 1)
    split = Split(images, torch.cat([torch.arange(300) % 3, torch.full((300,), 7)]))
    first, second = draw(split, (2, 7)), draw(split, (2, 7))
    assert first.labels.tolist() == [0] * 80 + [1] * 80
    assert torch.equal(first.images, second.images)
    of_two = first.images[:80].flatten()
    assert (of_two % 3 == 2).all()
    assert len(of_two.unique()) == 80
    # Fewer than 80: all of them.
    assert len(draw(split.take(torch.arange(60)), (0, 1))) == 40


def test_the_record_shows_every_method_on_the_same_images(trained, tmp_path):
    record = project(comparison(tmp_path, trained))
    assert record["images"] == 80
    assert list(record["methods"]) == ["cross-entropy", "max-sup"]
    data_set = load(DATA)
    chosen = [data_set.class_names.index(name) for name in record["classes"]]
    for method, of in record["methods"].items():
        assert of["seed"] == 0
        model = load_model(run_directory(tmp_path, method, 0))
        templates = model.backbone.fc.weight.detach()[chosen]
        for split in ("train", "validation"):
            images = draw(getattr(data_set, split), chosen)
            assert of[split]["labels"] == images.labels.tolist()
            with torch.no_grad():
                features, _ = model.features_and_logits(images.images)
            expected = plane_coordinates(features, templates)
            torch.testing.assert_close(torch.tensor(of[split]["points"]).double(), expected, rtol=1e-3, atol=1e-3)
        length = float((templates[1] - templates[0]).norm())
        assert of["templates"][0] == [0.0, 0.0]
        assert of["templates"][1] == pytest.approx([length, 0.0], rel=1e-3, abs=1e-6)


def test_the_classes_are_those_that_the_chosen_method_confuses_on_validation(trained, tmp_path):
    comparison(tmp_path, trained)
    for seed in (0, 1):
        file = run_directory(tmp_path, "max-sup", seed) / "outputs.safetensors"
        tensors = load_file(file)
        labels = tensors["validation.labels"]
        predicted = labels.clone()
        # Seed 0 takes every 4 for a 1, seed 1 every 3 for a 1.
        predicted[labels == 4 - seed] = 1
        tensors["validation.logits"] = torch.nn.functional.one_hot(predicted, 5).float()
        save_file(tensors, file)
    record = project(tmp_path, method="max-sup")
    assert record["classes"] == ["1", "3", "4"]
    count = int(((labels == 3) | (labels == 4)).sum())
    assert record["chosen_by"] == f"max-sup confuses them most, {count} times on the validation images"


def test_a_second_call_computes_nothing_and_another_choice_does(trained, tmp_path, monkeypatch):
    comparison(tmp_path, trained)
    first = project(tmp_path)
    file = tmp_path / "analysis" / "projection.json"
    assert file.stat().st_size < 40_000
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_model", None)  # calling it would raise TypeError
        assert project(tmp_path) == first
    named = project(tmp_path, classes=["4", "0", "2"])
    assert (named["classes"], named["chosen_by"]) == (["4", "0", "2"], "named")
    weights = run_directory(tmp_path, "max-sup", 0) / "model.safetensors"
    tensors = load_file(weights)
    tensors["backbone.fc.weight"] *= 2
    save_file(tensors, weights)
    other = project(tmp_path, classes=["4", "0", "2"])
    assert other["methods"]["cross-entropy"] == named["methods"]["cross-entropy"]
    before, after = (of["methods"]["max-sup"]["templates"][1][0] for of in (named, other))
    assert after == pytest.approx(2 * before, rel=1e-3)


def test_a_method_without_weights_is_left_out_with_the_reason(trained, tmp_path):
    comparison(tmp_path, trained, methods=("cross-entropy", "max-sup", "label-smoothing"))
    for seed in (0, 1):
        file = run_directory(tmp_path, "max-sup", seed) / "model.safetensors"
        file.write_bytes(file.read_bytes()[:1000])
    write_json(run_directory(tmp_path, "label-smoothing", 0) / "result.json", {"status": "diverged"})
    record = project(tmp_path)
    # Seed 1 is the lowest that both others finished.
    assert {method: of["seed"] for method, of in record["methods"].items()} == {
        "cross-entropy": 1,
        "label-smoothing": 1,
    }
    left_out = read_json(tmp_path / "analysis" / "projection.json")["settings"]["left_out"]
    assert list(left_out) == ["max-sup"]
    assert left_out["max-sup"].startswith("seed 1: model.safetensors is damaged (")


def test_a_record_whose_weights_are_gone_stays(trained, tmp_path):
    comparison(tmp_path, trained)
    first = project(tmp_path)
    for seed in (0, 1):
        (run_directory(tmp_path, "max-sup", seed) / "model.safetensors").unlink()
    assert project(tmp_path) == first
    # A plane without a method that was added since would pass for the whole.
    comparison(tmp_path, trained, methods=("label-smoothing",))
    write_json(
        tmp_path / "comparison.json",
        read_json(tmp_path / "comparison.json") | {"methods": [*first["methods"], "label-smoothing"]},
    )
    with pytest.raises(RecordError, match=r"projection\.json: lacks label-smoothing, and cannot be made again"):
        project(tmp_path)
    assert read_json(tmp_path / "analysis" / "projection.json") == first
    assert "max-sup" not in project(tmp_path, classes=["4", "0", "2"])["methods"]


def test_bad_choices_are_named(trained, tmp_path):
    comparison(tmp_path, trained)
    with pytest.raises(UnknownNameError, match="unknown class '7'"):
        project(tmp_path, classes=["0", "1", "7"])
    for classes in (["0", "1"], ["0", "1", "1"], ["0", "1", "2", "3"]):
        with pytest.raises(ValueError, match="classes must be three different ones"):
            project(tmp_path, classes=classes)
    with pytest.raises(UnknownNameError, match="unknown method 'maxsup'; did you mean max-sup"):
        project(tmp_path, method="maxsup")
    with pytest.raises(RecordError, match=r"comparison\.json is missing"):
        project(tmp_path / "nowhere")
    for method in ("cross-entropy", "max-sup"):
        for seed in (0, 1):
            (run_directory(tmp_path, method, seed) / "model.safetensors").unlink()
    with pytest.raises(
        RecordError, match=r"no method has a finished run with its weights \(seed 1: model\.safetensors is m"
    ):
        project(tmp_path)
