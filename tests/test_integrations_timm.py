"""Dense logits of real timm models, and the check against smoothing twice."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import maxsup
from maxsup.integrations.timm import check_mixup, collect_dense_logits
from maxsup.schedules import ConstantAlpha

timm = pytest.importorskip("timm", reason="timm is in the extra maxsup[lab]")


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "convnext_atto"])
def test_convolutional_network_votes_with_its_head_at_every_position(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7, drop_rate=0.5)
    images = torch.randn(2, 3, 64, 96)
    maps = []
    with collect_dense_logits(model) as dense:
        logits = model(images)
        state = {key: value.clone() for key, value in model.state_dict().items()}
        maps.append(dense())
        with pytest.raises(RuntimeError, match="no forward pass since"):
            dense()
    assert logits.shape == (2, 7)
    assert maps[0].shape == (2, 7, 2, 3)
    assert not maps[0].requires_grad
    assert hooks(model) == 0
    assert all(module.training for module in model.modules())
    assert_close(model.state_dict(), state, rtol=0, atol=0)  # the extra pass moved no running statistics
    if name == "resnet10t":
        # The head is linear after pooling, so the positions' logits average to the image's.
        with torch.no_grad():
            model.train()
            model.drop_rate = 0.0
            with collect_dense_logits(model) as dense:
                assert_close(dense_mean(model(images), dense), torch.zeros(()), atol=1e-5, rtol=0)


def dense_mean(logits, dense):
    return (dense().mean((2, 3)) - logits).abs().max()


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_vision_transformer_votes_with_its_patch_tokens(pool):
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, num_classes=7, depth=1, embed_dim=24, num_heads=3, global_pool=pool
    )
    images = torch.randn(2, 3, 64, 64)
    with collect_dense_logits(model) as dense:
        model(images)
        votes = dense()
    assert votes.shape == (2, 7, 4, 4)
    assert hooks(model) == 0
    with torch.no_grad():
        tokens = model.forward_features(images)[:, 1:]
        assert_close(votes.flatten(2), model.head(model.fc_norm(tokens)).transpose(1, 2))


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_loss_with_collected_votes_trains_the_network(name):
    torch.manual_seed(0)
    small = {"img_size": 64, "depth": 1, "embed_dim": 24, "num_heads": 3} if name.startswith("vit") else {}
    model = timm.create_model(name, num_classes=7, **small)
    loss = maxsup.ZipfLabelSmoothingLoss(1.0, upsample=2)
    target = torch.tensor([3, 1])
    with collect_dense_logits(model) as dense:
        logits = model(torch.randn(2, 3, 64, 64))
        votes = dense()
        value = loss(logits, target, votes)
        value.backward()
    expected = maxsup.functional.zipf_label_smoothing_cross_entropy(logits, target, votes, 1.0, upsample=2)
    assert_close(value, expected)
    assert value > nn.functional.cross_entropy(logits, target)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_hooks_go_even_after_an_error_and_evaluation_is_not_kept():
    model = timm.create_model("resnet10t", num_classes=7)
    with pytest.raises(KeyError), collect_dense_logits(model):
        raise KeyError
    assert hooks(model) == 0
    with collect_dense_logits(model.eval()) as dense:
        model(torch.zeros(1, 3, 32, 32))
        with pytest.raises(RuntimeError, match="no forward pass"):
            dense()


def test_other_models_are_refused():
    with (
        pytest.raises(TypeError, match=r"model must be a timm model .*, got Linear"),
        collect_dense_logits(nn.Linear(2, 2)),
    ):
        pass


def test_mixup_must_not_smooth_on_top_of_a_loss_that_regularises():
    from timm.data import Mixup
    from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

    for loss in (
        maxsup.MaxSupCrossEntropyLoss(),
        maxsup.LabelSmoothingCrossEntropyLoss(),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        LabelSmoothingCrossEntropy(),
    ):
        with pytest.raises(ValueError, match=r"mixup smooths labels by 0\.1 on top of .*Loss|CrossEntropy"):
            check_mixup(Mixup(), loss)
        check_mixup(Mixup(label_smoothing=0.0), loss)
        check_mixup(None, loss)
    warming_up = maxsup.MaxSupCrossEntropyLoss()
    ConstantAlpha(warming_up, 0.1, warmup_steps=5)
    assert float(warming_up.alpha) == 0.0
    with pytest.raises(ValueError, match=r"mixup smooths labels by 0\.1 on top of MaxSupCrossEntropyLoss"):
        check_mixup(Mixup(), warming_up)
    for loss in (SoftTargetCrossEntropy(), nn.CrossEntropyLoss(), maxsup.MaxSupCrossEntropyLoss(0.0)):
        check_mixup(Mixup(), loss)


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_loader_that_mixes_is_looked_into(prefetch):
    from timm.data import FastCollateMixup
    from timm.data.loader import PrefetchLoader

    def loader(smoothing):
        made = torch.utils.data.DataLoader([0], collate_fn=FastCollateMixup(label_smoothing=smoothing, num_classes=10))
        return PrefetchLoader(made, device=torch.device("cpu")) if prefetch else made

    check_mixup(loader(0.0), maxsup.MaxSupCrossEntropyLoss())
    check_mixup(torch.utils.data.DataLoader([0]), maxsup.MaxSupCrossEntropyLoss())
    with pytest.raises(ValueError, match=r"mixup smooths labels by 0\.1 on top of MaxSupCrossEntropyLoss"):
        check_mixup(loader(0.1), maxsup.MaxSupCrossEntropyLoss())
