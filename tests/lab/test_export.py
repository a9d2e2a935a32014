import dataclasses
import json
import re

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from maxsup import cli
from maxsup.lab import records
from maxsup.lab.analysis.weights import load_model
from maxsup.lab.data import load as load_data
from maxsup.lab.export import export, load
from maxsup.lab.recipes import Data, Model
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.records import RecordError
from maxsup.lab.train import train

RECIPE = dataclasses.replace(digits_convnet(), epochs=1, data=Data(name="digits", train_size=60, image_size=32))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A ResNet-10 of timm's with its usual stem, trained for an epoch on grey images of 32×32."""
    directory = tmp_path_factory.mktemp("resnet")
    train(dataclasses.replace(RECIPE, model=Model("resnet10t")), "max-sup", 3, directory)
    return directory


def images_of(run):
    """Ten test images as uint8, as pictures for timm, and the logits of the run's own classifier."""
    images = load_data(RECIPE.data).test.images[:10]
    with torch.no_grad():
        return images, [Image.fromarray(np.asarray(image[0])) for image in images], load_model(run)(images)


def test_timm_builds_the_exported_network_and_its_transform_normalises_as_the_run_did(resnet, tmp_path, monkeypatch):
    written = export(resnet, tmp_path / "out")
    assert [path.name for path in written] == ["model.safetensors", "config.json", "record.json", "README.md"]
    _, pictures, logits = images_of(resnet)
    monkeypatch.chdir(tmp_path / "out")
    code = re.search(r"```python\n(.*?)```", (tmp_path / "out/README.md").read_text(), re.DOTALL)[1]
    names = {}
    exec(code, names)  # the card's own lines
    with torch.no_grad():
        theirs = names["model"](torch.stack([names["transform"](picture) for picture in pictures]))
    torch.testing.assert_close(theirs, logits, rtol=1e-4, atol=1e-4)
    # Channels, size and classes come from the file and not from timm's own network of the name.
    assert names["model"].pretrained_cfg["input_size"] == [1, 32, 32]
    assert names["model"].num_classes == 10


def test_timm_loads_the_folder_by_its_path(resnet, tmp_path):
    export(resnet, tmp_path)
    _, pictures, logits = images_of(resnet)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.no_grad():
        theirs = model(torch.stack([transform(picture) for picture in pictures]))
    torch.testing.assert_close(theirs, logits, rtol=1e-4, atol=1e-4)


def test_the_card_states_recipe_measures_and_versions(resnet, tmp_path):
    export(resnet, tmp_path)
    card = (tmp_path / "README.md").read_text()
    result, info = (records.read_json(resnet / name) for name in ("result.json", "run.json"))
    assert f"| accuracy | {result['measures']['test']['accuracy']:.4f} |" in card
    assert "method `max-sup` on 60 training images of digits, seed 3" in card
    for line in (
        "| `seed` | 3 |",
        "| `alpha.end` | 0.2 |",
        "| `model.name` | resnet10t |",
        "| `data.train_size` | 60 |",
    ):
        assert line in card
    assert f"torch {info['versions']['torch']}" in card
    assert info["source_sha256"] in card or info["git_commit"] in card
    assert json.loads((tmp_path / "config.json").read_text())["label_names"] == [str(digit) for digit in range(10)]
    assert records.read_json(tmp_path / "record.json")["result"]["measures"] == result["measures"]


def test_a_vision_transformer_keeps_its_sizes(tmp_path):
    model = Model("deit_tiny_patch16_224", image_size=32, patch_size=16, depth=1)
    train(dataclasses.replace(RECIPE, model=model), "cross-entropy", 0, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["model_args"] == {"img_size": 32, "patch_size": 16, "depth": 1, "in_chans": 1}
    images, pictures, logits = images_of(tmp_path / "run")
    overlay = {**config["pretrained_cfg"], "file": str(tmp_path / "out/model.safetensors")}
    network = timm.create_model(
        config["architecture"], pretrained=True, pretrained_cfg_overlay=overlay, **config["model_args"]
    ).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    with torch.no_grad():
        theirs = network(torch.stack([transform(picture) for picture in pictures]))
        torch.testing.assert_close(theirs, logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(load(tmp_path / "out")(images), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [Model("convnet"), Model("resnet10t", small_stem=False)])
def test_load_builds_every_exported_network(tmp_path, model):
    train(dataclasses.replace(RECIPE, model=model), "max-sup", 0, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    images, _, logits = images_of(tmp_path / "run")
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "out")(images), logits, rtol=1e-4, atol=1e-4)


def test_a_stem_that_timm_cannot_build_gets_no_config_and_a_card_that_says_so(tmp_path, monkeypatch):
    model = Model("resnet18", small_stem=True)
    train(dataclasses.replace(RECIPE, data=Data("digits", train_size=20), model=model), "max-sup", 0, tmp_path / "run")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/config.json").write_text("{}")  # of an earlier export
    written = export(tmp_path / "run", tmp_path / "out")
    assert [path.name for path in written] == ["model.safetensors", "record.json", "README.md"]
    assert not (tmp_path / "out/config.json").exists()
    card = (tmp_path / "out/README.md").read_text()
    assert "its stem is that for small images" in card
    monkeypatch.chdir(tmp_path / "out")
    names = {}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], names)
    images = load_data(Data("digits")).test.images[:10]
    with torch.no_grad():
        torch.testing.assert_close(names["model"](images), load_model(tmp_path / "run")(images), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_exported_is_refused(resnet, tmp_path):
    with pytest.raises(RecordError, match="no run here"):
        export(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="out must not be the folder of a run"):
        export(resnet, resnet)
    with pytest.raises(RecordError, match=r"record\.json: missing; `maxsup export` writes it"):
        load(tmp_path)
    export(resnet, tmp_path / "out")
    record = json.loads((tmp_path / "out/record.json").read_text())
    (tmp_path / "out/record.json").write_text(json.dumps({**record, "num_classes": 9}))
    with pytest.raises(RecordError, match="do not fit together"):
        load(tmp_path / "out")


def test_exported_weights_have_the_networks_own_names(resnet, tmp_path):
    export(resnet, tmp_path)
    network = timm.create_model("resnet10t", in_chans=1, num_classes=10)
    assert load_file(tmp_path / "model.safetensors").keys() == network.state_dict().keys()


def test_the_command_exports_and_says_what_is_wrong(resnet, tmp_path, capsys):
    assert cli.main(["export", str(resnet), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith(f"written: {tmp_path / 'out/model.safetensors'}, ")
    for arguments, message in (
        (["export"], "`maxsup export` takes the folder of a finished run first"),
        (["export", "--out", "x"], "`maxsup export` takes the folder of a finished run first"),
        (["export", str(tmp_path), "--out", "x"], "no run here (run.json is missing)"),
        (["import", "--model", "resnet18"], "`maxsup import` takes the file of a checkpoint first"),
        (["import", "x.pth", "--model", "resnet81", "--out", "x"], "unknown model 'resnet81'; did you mean"),
        (["import", "x.pth", "--model", "resnet18", "--out", "x"], "x.pth: no such checkpoint"),
    ):
        assert cli.main(arguments) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert message in err
