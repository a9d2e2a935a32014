import pytest
import torch

from maxsup.lab import models
from maxsup.lab.evaluate import outputs
from maxsup.lab.models import Classifier, ConvNet
from maxsup.lab.names import UnknownNameError
from maxsup.lab.recipes import Model


def test_convnet_has_the_size_that_its_docstring_says():
    network = ConvNet(1, 10)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == 0.08
    assert network.forward_features(torch.rand(2, 1, 8, 8)).shape == (2, 64, 2, 2)


@pytest.mark.parametrize("model", [Model(), Model("resnet18", small_stem=True), Model("test_vit")])
def test_features_lead_to_the_logits_through_the_classifier(model):
    side = 160 if model.name == "test_vit" else 16  # test_vit's only size
    network = models.build(model, channels=1, num_classes=7).eval()
    classifier = Classifier(network, torch.zeros(1, 1, 1), torch.ones(1, 1, 1)).eval()
    images = torch.randint(0, 256, (3, 1, side, side), dtype=torch.uint8)
    with torch.no_grad():
        features, logits = classifier.features_and_logits(images)
        torch.testing.assert_close(logits, classifier(images))
    head = network.get_classifier()
    assert features.shape == (3, head.in_features)
    assert logits.shape == (3, 7)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100"])
def test_small_images_end_as_maps_of_4_by_4(name):
    images = torch.zeros(2, 3, 32, 32)
    for small, side in ((True, 4), (False, 1)):
        network = models.build(Model(name, small_stem=small), channels=3, num_classes=10).eval()
        assert network.forward_features(images).shape[2:] == (side, side)


def test_small_stem_keeps_the_resolution():
    network = models.build(Model("resnet18", small_stem=True), channels=1, num_classes=10)
    # Three stages halve 28 to 4; the ImageNet stem would leave 1.
    assert network.forward_features(torch.rand(1, 1, 28, 28)).shape == (1, 512, 4, 4)


def test_unknown_and_unfit_models_are_refused():
    with pytest.raises(UnknownNameError, match="unknown model 'resnet81'; did you mean resnet"):
        models.build(Model("resnet81"), 1, 10)
    with pytest.raises(ValueError, match=r"model\.small_stem: 'test_vit' has no stem to replace"):
        models.build(Model("test_vit", small_stem=True), 1, 10)


def test_classifier_normalises_uint8_images():
    identity = torch.nn.Identity()
    classifier = Classifier(identity, torch.tensor([0.5, 0.25]).view(-1, 1, 1), torch.tensor([0.5, 2.0]).view(-1, 1, 1))
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).repeat(1, 2, 1, 1)
    assert classifier(images).flatten().tolist() == pytest.approx([-1.0, 1.0, -0.125, 0.375])


def test_outputs_are_those_of_evaluation_mode_and_leave_the_mode_alone():
    from maxsup.lab.data import Split

    torch.manual_seed(0)
    classifier = Classifier(ConvNet(1, 10), torch.zeros(1, 1, 1), torch.ones(1, 1, 1)).train()
    split = Split(torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8), torch.arange(5))
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    out = outputs(classifier, split, torch.device("cpu"))
    assert classifier.training
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(out.logits, classifier.eval()(split.images))
    assert torch.equal(out.labels, split.labels)


def test_a_vision_transformer_is_built_for_small_images():
    model = Model("deit_tiny_patch16_224", image_size=64, patch_size=8, depth=6)
    network = models.build(model, channels=1, num_classes=10)
    assert network.forward_features(torch.rand(2, 1, 64, 64)).shape == (2, 1 + 8 * 8, 192)
    assert len(network.blocks) == 6
    for change in ({"image_size": 64}, {"patch_size": 8}, {"depth": 2}):
        for name in ("resnet18", "convnet"):
            with pytest.raises(ValueError, match=rf"a vision transformer's; '{name}' has none of them to set"):
                models.build(Model(name, **change), 1, 10)
