import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn
from torch.testing import assert_close

from maxsup.lab import models, recipes
from maxsup.lab.models import Classifier
from maxsup.lab.segmentation.model import Neck, Pyramid, Segmenter, parameter_groups
from maxsup.lab.segmentation.recipes import AdamW, Decoder

CONVNET = recipes.Model("convnet")
RESNET = recipes.Model("resnet18", small_stem=True)
VIT = recipes.Model("deit_tiny_patch16_224", image_size=28, patch_size=4, depth=4)
SMALL = Decoder(channels=16, auxiliary_channels=8)


def classifier(model, channels=1):
    torch.manual_seed(0)
    network = models.build(model, channels, 10, any_size=True)
    return Classifier(network, torch.full((channels, 1, 1), 0.3), torch.full((channels, 1, 1), 0.2))


def segmenter(model, size=(32, 32), decoder=SMALL, channels=1):
    return Segmenter(classifier(model, channels), 5, size, decoder)


def images(n=2, channels=1, height=32, width=32):
    return torch.randint(0, 256, (n, channels, height, width), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize(
    ("model", "finest", "auxiliary"),
    [(CONVNET, 32, 16), (RESNET, 32, 8), (VIT, 32, 8), (recipes.Model("mobilenetv2_050"), 8, 2)],
)
def test_every_weight_learns_and_sizes_are_the_backbones(model, finest, auxiliary):
    net = segmenter(model)
    logits, of_auxiliary = net(images())
    assert logits.shape == (2, 5, finest, finest)
    assert of_auxiliary.shape == (2, 5, auxiliary, auxiliary)
    (logits.square().sum() + of_auxiliary.square().sum()).backward()
    # DistributedDataParallel waits for the gradient of each.
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    net.eval()
    with torch.inference_mode():
        logits, of_auxiliary = net(images(height=40, width=52))
    assert of_auxiliary is None
    assert logits.shape[2:] == (40 * finest // 32, 52 * finest // 32)


def test_the_maps_of_a_residual_network_are_its_stages():
    of = classifier(RESNET).eval()
    pyramid = Pyramid(of.backbone, (32, 32)).eval()
    x = torch.randn(2, 1, 32, 32)
    maps = pyramid(x)
    expected = of.backbone.act1(of.backbone.bn1(of.backbone.conv1(x)))
    for found, stage in zip(maps, ("layer1", "layer2", "layer3", "layer4"), strict=True):
        expected = getattr(of.backbone, stage)(expected)
        assert_close(found, expected)
    assert [m.shape[1] for m in maps] == pyramid.channels == [64, 128, 256, 512]
    assert [m.shape[2] for m in maps] == [32, 16, 8, 4]


def test_the_maps_of_a_vision_transformer_are_its_tokens_after_each_quarter():
    deep = recipes.Model("deit_tiny_patch16_224", image_size=32, patch_size=8, depth=12)
    of = classifier(deep).eval()
    blocks = of.backbone
    x = torch.randn(2, 1, 32, 32)
    tokens = blocks.norm_pre(blocks._pos_embed(blocks.patch_embed(x)))
    expected = []
    for i, block in enumerate(blocks.blocks):
        tokens = block(tokens)
        if i in (2, 5, 8):
            expected.append(tokens[:, 1:])
    expected.append(blocks.norm(tokens)[:, 1:])
    pyramid = Pyramid(blocks, (32, 32)).eval()
    assert pyramid.indices == [2, 5, 8, 11]
    pyramid.neck = nn.Identity()
    for found, quarter in zip(pyramid(x), expected, strict=True):
        assert_close(found, quarter.transpose(1, 2).unflatten(2, (4, 4)))
    assert [m.shape[2] for m in Neck(6)([torch.zeros(1, 6, 4, 4)] * 4)] == [16, 8, 4, 2]


def test_position_embeddings_are_resampled_to_the_training_images_and_to_any_other():
    of = classifier(VIT)
    before = of.backbone.pos_embed.detach().clone()
    net = Segmenter(of, 5, (32, 48), SMALL).eval()
    expected = resample_abs_pos_embed(before, new_size=(8, 12), old_size=(7, 7), num_prefix_tokens=1)
    assert_close(net.pyramid.backbone.pos_embed.detach(), expected)
    for size in ((32, 48), (28, 28), (64, 40)):
        assert net(images(height=size[0], width=size[1]))[0].shape[2:] == size
    # Not a multiple of the patch: the image is padded, and the map a little larger.
    assert net(images(height=30, width=45))[0].shape[2:] == (32, 48)


def test_a_grey_backbone_takes_colours_and_the_other_way_round():
    net = segmenter(CONVNET).eval()
    grey = images()
    assert_close(net(grey)[0], net(grey.expand(-1, 3, -1, -1))[0])
    assert segmenter(CONVNET, channels=3).eval()(grey)[0].shape == (2, 5, 32, 32)


def test_an_auxiliary_head_of_no_weight_is_left_out():
    net = segmenter(CONVNET, decoder=Decoder(16, 8, auxiliary_weight=0))
    assert net(images())[1] is None


def test_norms_embeddings_and_tokens_have_no_weight_decay():
    net = segmenter(VIT)
    decays = {id(p): group["weight_decay"] for group in parameter_groups(net, AdamW()) for p in group["params"]}
    named = {name: decays[id(p)] for name, p in net.named_parameters()}
    assert len(decays) == len(named)
    spared = {name for name, decay in named.items() if decay == 0}
    for name in ("pos_embed", "cls_token", "blocks.0.norm1.weight", "blocks.3.norm2.bias", "norm.weight"):
        assert f"pyramid.backbone.{name}" in spared
    assert "decoder.fusion_block.1.weight" in spared
    # Biases of convolutions and linear layers are weights like others.
    assert named["pyramid.backbone.blocks.0.attn.qkv.bias"] == named["head.1.bias"] == 0.01


def test_layers_learn_slower_the_deeper_they_lie():
    net = segmenter(VIT)
    groups = parameter_groups(net, AdamW(lr=1.0, layer_decay=0.5))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    named = {name.removeprefix("pyramid.backbone."): rates[id(p)] for name, p in net.named_parameters()}
    # Four blocks, the stem below them, and the norm that goes with the last.
    assert named["head.1.weight"] == named["pyramid.neck.lateral.0.weight"] == 1
    assert [named[f"blocks.{i}.mlp.fc1.weight"] for i in range(4)] == [1 / 16, 1 / 8, 1 / 4, 1 / 2]
    assert named["norm.weight"] == 1 / 2
    assert named["patch_embed.proj.weight"] == named["pos_embed"] == 1 / 32
    with pytest.raises(ValueError, match="layer_decay must be 1 for ConvNet"):
        parameter_groups(segmenter(CONVNET), AdamW(layer_decay=0.9))


def test_backbones_without_a_pyramid_are_refused():
    with pytest.raises(ValueError, match="needs 4 blocks to be segmented with, this has 3"):
        segmenter(recipes.Model("deit_tiny_patch16_224", image_size=32, patch_size=8, depth=3))
    with pytest.raises(ValueError, match="Linear gives no pyramid"):
        Pyramid(nn.Linear(1, 1), (8, 8))
