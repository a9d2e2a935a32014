import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from maxsup.lab import models, recipes
from maxsup.lab.analysis.weights import fingerprint, load_model, trained_data
from maxsup.lab.data import load
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.records import RecordError, write_json


def test_the_loaded_model_gives_the_recorded_outputs(trained):
    model = load_model(trained)
    assert not model.training
    out = load_file(trained / "outputs.safetensors")
    with torch.no_grad():
        features, logits = model.features_and_logits(load(trained_data(trained)).test.images)
    assert logits.shape[1] == 5
    torch.testing.assert_close(features, out["test.features"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits, out["test.logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "small_stem"), [("resnet18", True), ("deit_tiny_patch16_224", False)])
def test_channels_and_classes_come_from_the_weights(trained, tmp_path, name, small_stem):
    info = json.loads((trained / "run.json").read_text())
    info["recipe"]["model"] = {"name": name, "small_stem": small_stem}
    (tmp_path / "run.json").write_text(json.dumps(info))
    network = models.build(recipes.Model(name, small_stem), 3, 7)
    written = models.Classifier(network, torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25)).eval()
    save_file(written.state_dict(), tmp_path / "model.safetensors")
    read = load_model(tmp_path)
    assert all(torch.equal(value, read.state_dict()[key]) for key, value in written.state_dict().items())


def test_a_record_older_than_a_field_has_its_default(run_dir):
    info = json.loads((run_dir / "run.json").read_text())
    del info["recipe"]["data"]["classes"], info["recipe"]["data"]["image_size"], info["recipe"]["model"]["small_stem"]
    (run_dir / "run.json").write_text(json.dumps(info))
    assert trained_data(run_dir) == recipes.Data(name="digits", train_size=200)
    load_model(run_dir)


def test_damaged_weights_are_named(run_dir):
    file = run_dir / "model.safetensors"
    whole, before = file.read_bytes(), fingerprint(run_dir)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordError, match=r"model\.safetensors: truncated or corrupt weights"):
        load_model(run_dir)
    assert fingerprint(run_dir) != before
    weights = {name: value for name, value in load_file_of(whole, file).items() if name != "backbone.fc.weight"}
    save_file(weights, file)
    with pytest.raises(RecordError, match=r"model\.safetensors: not the weights of 'convnet'.*fc\.weight"):
        load_model(run_dir)
    file.unlink()
    for read in (load_model, fingerprint):
        with pytest.raises(RecordError, match=r"model\.safetensors: missing"):
            read(run_dir)
    (run_dir / "run.json").unlink()
    with pytest.raises(RecordError, match=r"no run here \(run\.json is missing\)"):
        load_model(run_dir)


def load_file_of(content, file):
    file.write_bytes(content)
    return load_file(file)


def test_the_data_of_a_record_is_the_recipes(tmp_path):
    recipe = dataclasses.replace(digits_convnet(), data=recipes.Data("digits", classes=(3, 1)))
    write_json(tmp_path / "run.json", {"recipe": recipes.as_json(recipe)})
    assert trained_data(tmp_path) == recipe.data
