import pytest
import torch
from torch import nn

from maxsup.lab.analysis.gradcam import grad_cam
from maxsup.lab.models import Classifier, ConvNet, build
from maxsup.lab.recipes import Model

SMALL_VIT = Model("test_vit", image_size=16, patch_size=4, depth=2)


def classifier(network, channels=1):
    shape = (channels, 1, 1)
    return Classifier(network, torch.full(shape, 0.5), torch.full(shape, 0.25)).eval()


def random_images(n, side, channels=1):
    return torch.randint(
        0, 256, (n, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("model", [Model(), Model("resnet18", small_stem=True)])
def test_a_linear_head_on_pooled_maps_has_a_closed_form(model):
    """z_c = mean over positions of w_c·A + b_c, so ∂z_c/∂A_k = w_ck / (h w) everywhere."""
    torch.manual_seed(0)
    network = build(model, channels=1, num_classes=5)
    of, images = classifier(network), random_images(6, 32)
    targets = torch.tensor([0, 1, 2, 3, 4, 0])
    with torch.no_grad():
        maps = network.forward_features(of.normalize(images))
        weights = network.get_classifier().weight[targets] / maps.shape[2:].numel()
        small = torch.einsum("nd,ndhw->nhw", weights, maps).relu()
        expected = nn.functional.interpolate(small.unsqueeze(1), (32, 32), mode="bilinear").squeeze(1)
        expected_logits = of(images)
    cams, logits = grad_cam(of, images, targets)
    assert expected.amax() > 0
    torch.testing.assert_close(cams, expected)
    torch.testing.assert_close(logits, expected_logits)


def test_a_vision_transformer_is_explained_at_its_last_blocks_first_norm():
    """In float64, with the gradient by central differences, token by token."""
    torch.manual_seed(0)
    network = build(SMALL_VIT, channels=1, num_classes=3).double()
    of, images = classifier(network).double(), random_images(2, 16)
    # The initial head and attention are so near zero that a mistake would not show.
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    targets = torch.tensor([2, 0])
    block = network.blocks[-1]
    with torch.no_grad():
        before = network._pos_embed(network.patch_embed(of.normalize(images)))
        tokens = network.blocks[0](before)
        normed = block.norm1(tokens)

        def chosen_logit(changed):
            x = tokens + block.attn(changed)
            x = x + block.mlp(block.norm2(x))
            return network.head(network.norm(x)[:, 0]).gather(1, targets.view(-1, 1)).squeeze(1)

        assert normed.shape == (2, 1 + 16, 64)  # one class token, 4×4 patches
        step, weights = 1e-5, torch.zeros(2, 64, dtype=torch.float64)
        for k in range(64):  # the mean of the gradient is the slope along the mean of the patches
            direction = torch.zeros_like(normed)
            direction[:, 1:, k] = 1 / 16
            slope = chosen_logit(normed + step * direction) - chosen_logit(normed - step * direction)
            weights[:, k] = slope / (2 * step)
        small = torch.einsum("nd,ntd->nt", weights, normed[:, 1:]).relu().view(2, 1, 4, 4)
        expected = nn.functional.interpolate(small, (16, 16), mode="bilinear").squeeze(1)
    cams, logits = grad_cam(of, images, targets)
    assert expected.amax() > 0
    torch.testing.assert_close(cams.double(), expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(logits, of(images).float())


def test_without_targets_each_image_is_explained_for_its_prediction():
    torch.manual_seed(0)
    of, images = classifier(ConvNet(1, 10)), random_images(8, 8)
    cams, logits = grad_cam(of, images)
    assert torch.equal(cams, grad_cam(of, images, logits.argmax(1)).cams)


def test_batches_change_nothing(monkeypatch):
    torch.manual_seed(0)
    of, images = classifier(build(SMALL_VIT, channels=1, num_classes=3)), random_images(5, 16)
    whole = grad_cam(of, images, torch.tensor([0, 1, 2, 0, 1]))
    monkeypatch.setattr("maxsup.lab.analysis.gradcam.BATCH", 2)
    parts = grad_cam(of, images, torch.tensor([0, 1, 2, 0, 1]))
    torch.testing.assert_close(parts.cams, whole.cams)
    torch.testing.assert_close(parts.logits, whole.logits)


@pytest.mark.parametrize("model", [Model(), SMALL_VIT])
def test_modes_gradients_and_hooks_are_left_alone(model):
    torch.manual_seed(0)
    of, images = classifier(build(model, channels=1, num_classes=3)), random_images(2, 16)
    expected = grad_cam(of, images).cams
    of.train()
    of.backbone.blocks[0].eval()
    before = {name: value.clone() for name, value in of.state_dict().items()}
    modes = [module.training for module in of.modules()]
    of.backbone.blocks[0].requires_grad_(False)
    trained = [parameter.requires_grad for parameter in of.parameters()]
    with torch.inference_mode():
        assert torch.equal(grad_cam(of, images).cams, expected)
        assert torch.is_inference_mode_enabled()
    with pytest.raises(ValueError, match=r"targets must be from 0 to 2, got 3"):
        grad_cam(of, images, torch.tensor([0, 3]))
    assert [module.training for module in of.modules()] == modes
    assert [parameter.requires_grad for parameter in of.parameters()] == trained
    assert all(torch.equal(value, before[name]) for name, value in of.state_dict().items())
    assert all(parameter.grad is None for parameter in of.parameters())
    assert not any(module._forward_hooks for module in of.modules())


def test_wrong_input_is_refused_by_name():
    of = classifier(ConvNet(1, 10))
    with pytest.raises(ValueError, match=r"images must be uint8 of shape \(N, C, H, W\).*float32 \(1, 1, 8, 8\)"):
        grad_cam(of, torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"N at least 1, got torch.uint8 \(0, 1, 8, 8\)"):
        grad_cam(of, random_images(0, 8))
    with pytest.raises(ValueError, match=r"targets must have shape \(2,\), a class an image, got \(3,\)"):
        grad_cam(of, random_images(2, 8), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"targets must be from 0 to 9, got -1"):
        grad_cam(of, random_images(2, 8), torch.tensor([-1, 1]))


def test_a_network_without_a_known_layer_is_named():
    import timm

    mixer = timm.create_model("mixer_s32_224", num_classes=3)
    with pytest.raises(ValueError, match=r"Grad-CAM needs a feature map.*MlpMixer ends in features of shape"):
        grad_cam(classifier(mixer, 3), random_images(1, 224, 3))
