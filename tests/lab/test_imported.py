import argparse
import dataclasses

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image

from maxsup import cli
from maxsup.lab import records
from maxsup.lab.analysis.weights import load_model
from maxsup.lab.export import export, load
from maxsup.lab.imported import NO_DATA, data_of, import_checkpoint, network_of, read_state_dict
from maxsup.lab.recipes import Model
from maxsup.lab.records import RecordError

IMAGES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MEAN, STD = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def normalized(images):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images / 255 - mean) / std


def test_torchvisions_resnet50_gives_the_same_logits(tmp_path):
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(num_classes=7).eval()
    state = {f"module.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 90}, tmp_path / "resnet50.pth.tar")
    model = Model("resnet50")
    result = import_checkpoint(
        tmp_path / "resnet50.pth.tar", model, tmp_path / "run", method="max-sup", data=data_of(model, NO_DATA)
    )
    assert (result["status"], result["measures"]) == ("finished", {})
    with torch.no_grad():
        logits = theirs(normalized(IMAGES))
        torch.testing.assert_close(load_model(tmp_path / "run")(IMAGES), logits, rtol=1e-4, atol=1e-4)
    info = records.read_json(tmp_path / "run/run.json")
    assert info["method"] == "max-sup"
    assert info["imported"]["file"] == "resnet50.pth.tar"
    assert info["recipe"]["data"]["image_size"] == 224
    export(tmp_path / "run", tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "out")(IMAGES), logits, rtol=1e-4, atol=1e-4)


def test_deits_checkpoint_is_read_with_its_arguments(tmp_path):
    network = timm.create_model("deit_small_patch16_224", num_classes=5, depth=1)
    content = {
        "model": network.state_dict(),
        "optimizer": {"state": {}},
        "args": argparse.Namespace(lr=0.1),
        "epoch": 1,
    }
    torch.save(content, tmp_path / "checkpoint.pth")
    read = network_of(Model("deit_small_patch16_224", depth=1), read_state_dict(tmp_path / "checkpoint.pth"), tmp_path)
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(read.eval()(images), network.eval()(images))


@pytest.mark.parametrize("wrapped", ["alone", "model", "state_dict", "compiled", "safetensors"])
def test_every_wrapping_gives_the_same_weights(tmp_path, wrapped):
    from safetensors.torch import save_file

    weights = {"conv1.weight": torch.rand(2, 2), "fc.bias": torch.rand(3)}
    file = tmp_path / ("x.safetensors" if wrapped == "safetensors" else "x.pth")
    if wrapped == "safetensors":
        save_file(weights, file)
    else:
        named = {f"module._orig_mod.{name}": value for name, value in weights.items()}
        torch.save({"alone": weights, "compiled": named}.get(wrapped, {wrapped: weights}), file)
    read = read_state_dict(file)
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name]) for name in weights)


class _Code:
    def __reduce__(self):
        return print, ("executed",)


def test_what_is_no_checkpoint_is_named_and_not_executed(tmp_path, capsys):
    with pytest.raises(RecordError, match=r"absent\.pth: no such checkpoint"):
        read_state_dict(tmp_path / "absent.pth")
    for name, content in (("numbers", {"epoch": 3}), ("list", [torch.rand(2)]), ("empty", {})):
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(RecordError, match=rf"{name}\.pth: no state dict, alone or under 'model' or 'state_dict'"):
            read_state_dict(tmp_path / f"{name}.pth")
    torch.save({"model": _Code()}, tmp_path / "code.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "numbers.pth").read_bytes()[:100])
    (tmp_path / "half.safetensors").write_bytes(b"\x10\x00")
    for name in ("code.pth", "half.pth", "half.safetensors"):
        with pytest.raises(RecordError, match=rf"{name}: unreadable as a checkpoint of tensors"):
            read_state_dict(tmp_path / name)
    assert "executed" not in capsys.readouterr().out


def test_weights_of_another_network_are_refused_with_the_names(tmp_path):
    weights = timm.create_model("resnet18").state_dict()
    with pytest.raises(RecordError, match=r"x: not the weights of 'resnet50': "):
        network_of(Model("resnet50"), weights, "x")
    with pytest.raises(RecordError, match=r"not the weights of 'test_vit': no head\.weight"):
        network_of(Model("test_vit"), weights, "x")
    more = {**weights, "extra.bias": torch.rand(2)}
    with pytest.raises(RecordError, match=r"'resnet18': it has besides extra\.bias"):
        network_of(Model("resnet18"), more, "x")
    fewer = {name: value for name, value in weights.items() if name != "conv1.weight"}
    with pytest.raises(RecordError, match=r"'resnet18': it lacks conv1\.weight"):
        network_of(Model("resnet18"), fewer, "x")
    old = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    assert network_of(Model("resnet18"), old, "x").num_classes == 1000


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    torch.save({"model": torchvision.models.resnet18(num_classes=2).state_dict()}, tmp_path / "c.pth")
    return tmp_path / "c.pth"


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for place in range(24):
        file = tmp_path / "images/train" / ("a", "b")[place % 2] / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file)
    return tmp_path / "images"


def test_an_import_with_data_can_be_analyzed_and_one_without_probed(checkpoint, folder, tmp_path, capsys):
    command = ["import", str(checkpoint), "--model", "resnet18", "--image-size", "32"]
    data = ["--data", "image-folder", "--data-dir", str(folder)]
    assert cli.main([*command, *data, "--out", str(tmp_path / "measured")]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[1].startswith("test: n 5, accuracy ")
    assert cli.main([*command, *data, "--out", str(tmp_path / "measured")]) == 0  # again: nothing to do
    assert capsys.readouterr().out == shown
    assert cli.main(["analyze", str(tmp_path / "measured"), "--workers", "1"]) == 0
    assert records.read_json(tmp_path / "measured/analysis.json")["measures"]["test"]["brier"] > 0

    assert cli.main([*command, "--out", str(tmp_path / "bare")]) == 0
    assert cli.main(["analyze", str(tmp_path / "bare"), "--workers", "1"]) == 1
    assert "outputs.safetensors: missing; a run writes it when it finishes, and `maxsup import`" in (
        capsys.readouterr().err
    )
    probe = ["probe", str(tmp_path / "bare"), "--data", "digits", "--train-size", "50", "--workers", "1"]
    assert cli.main(probe) == 0
    (record,) = tmp_path.glob("bare/probe-*.json")
    assert records.read_json(record)["data"]["features"] == 512


def test_the_outputs_are_the_networks_on_the_images(checkpoint, folder, tmp_path):
    from safetensors.torch import load_file

    from maxsup.lab import data

    model = Model("resnet18")
    described = data_of(model, "image-folder", image_size=32)
    assert (described.eval_crop, described.interpolation) == (0.875, "bilinear")
    import_checkpoint(checkpoint, model, tmp_path / "run", data=described, data_dir=folder)
    out = load_file(tmp_path / "run/outputs.safetensors")
    theirs = torchvision.models.resnet18(num_classes=2).eval()
    theirs.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    test = data.load(described, folder).test
    images = torch.cat([images for images, _ in data.evaluation_batches(test, 3, device=torch.device("cpu"))])
    with torch.no_grad():
        torch.testing.assert_close(out["test.logits"], theirs(normalized(images)), rtol=1e-4, atol=1e-4)


def test_wrong_imports_are_refused(checkpoint, folder, tmp_path):
    model = Model("resnet18")
    none = data_of(model, NO_DATA)
    import_checkpoint(checkpoint, model, tmp_path / "run", data=none)
    with pytest.raises(RecordError, match='holds another run: method: "imported" -> "max-sup"'):
        import_checkpoint(checkpoint, model, tmp_path / "run", method="max-sup", data=none)
    three = dataclasses.replace(data_of(model, "cifar10", image_size=8), name="image-folder", eval_crop=1.0)
    (folder / "train/c").mkdir()
    for place in range(6):
        Image.fromarray(np.full((40, 40, 3), place, dtype=np.uint8)).save(folder / "train/c" / f"{place}.png")
    with pytest.raises(ValueError, match="data must have the network's 2 classes to be measured on, image-folder"):
        import_checkpoint(checkpoint, model, tmp_path / "other", data=three, data_dir=folder)
    assert not (tmp_path / "other").exists()


def test_the_usual_evaluation_of_a_vision_transformer_is_bicubic():
    data = data_of(Model("deit_small_patch16_224"), "imagenet")
    assert (data.image_size, data.eval_crop, data.interpolation, data.normalize) == (224, 0.875, "bicubic", "imagenet")
    memory = data_of(Model("resnet50"), "cifar10")
    assert (memory.eval_crop, memory.interpolation) == (1.0, "bilinear")
