import dataclasses
import math

import pytest
import torch

from maxsup.lab import models
from maxsup.lab.recipes import Model, Optimizer, Recipe
from maxsup.lab.training.optimization import optimizer_of, scheduler_of, updates_per_epoch

# 10 epochs of 4 updates, the last of an epoch on 5 images.
RECIPE = Recipe("r", epochs=10, batch_size=10)
IMAGES = 35


def rates(optimizer):
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer)
    assert updates_per_epoch(recipe, IMAGES) == 4
    built = optimizer_of(torch.nn.Linear(3, 2), recipe.optimizer)
    scheduler = scheduler_of(built, recipe, IMAGES)
    values = []
    for update in range(40):
        scheduler.step_update(update)
        assert len({group["lr"] for group in built.param_groups}) == 1
        values.append(built.param_groups[0]["lr"])
    return values


def test_cosine_falls_from_the_peak_to_its_least_after_a_linear_warm_up():
    got = rates(Optimizer(lr=0.4, warmup_epochs=2, warmup_lr=0.08, min_lr=0.04))
    warm = [0.08 + (0.4 - 0.08) * t / 8 for t in range(8)]
    fall = [0.04 + (0.4 - 0.04) * (1 + math.cos(math.pi * t / 40)) / 2 for t in range(8, 40)]
    assert got == pytest.approx(warm + fall)
    assert rates(Optimizer(lr=0.4, warmup_epochs=1))[0] == pytest.approx(0.004)


def test_step_decays_at_the_beginning_of_every_so_many_epochs():
    got = rates(Optimizer(lr=0.1, warmup_epochs=0, schedule="step", step_epochs=3, gamma=0.5))
    assert got == pytest.approx([0.1 * 0.5 ** (t // 12) for t in range(40)])


def test_multistep_decays_at_the_first_update_of_its_epochs():
    got = rates(Optimizer(lr=0.1, warmup_epochs=0, schedule="multistep", milestones=(3, 4, 8), gamma=0.2))
    expected = [0.1] * 12 + [0.02] * 4 + [0.004] * 16 + [0.0008] * 8
    assert got == pytest.approx(expected)


def test_constant_stays_after_its_warm_up():
    got = rates(Optimizer(lr=0.1, warmup_epochs=1, warmup_lr=0.0, schedule="constant"))
    assert got == pytest.approx([0.0, 0.025, 0.05, 0.075] + [0.1] * 36)


def decayed(network, **settings):
    """Names of the weights that decay."""
    optimizer = optimizer_of(network, Optimizer(weight_decay=0.3, **settings))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert set(decays.values()) <= {0.0, 0.3}
    return {name for name, p in network.named_parameters() if decays[id(p)]}


def classifier(name, **sizes):
    network = models.build(Model(name, **sizes), 1, 3)
    return models.Classifier(network, torch.zeros(1, 1, 1), torch.ones(1, 1, 1))


def test_embeddings_are_spared_from_decay_and_biases_and_norms_unless_asked():
    small = classifier("convnet")
    matrices = {name for name, p in small.named_parameters() if p.dim() > 1}
    assert decayed(small) == matrices
    assert decayed(small, decay_norm_bias=True) == {name for name, _ in small.named_parameters()}
    transformer = classifier("deit_tiny_patch16_224", image_size=8, patch_size=4, depth=1)
    spared = {name for name, p in transformer.named_parameters() if p.dim() > 1} - decayed(transformer)
    assert spared == {"backbone.pos_embed", "backbone.cls_token"}
    assert decayed(transformer, decay_norm_bias=True) == {name for name, _ in transformer.named_parameters()} - spared


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw", "lamb"])
def test_one_kernel_makes_the_steps_of_the_plain_optimizer(name):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    after = []
    for fused in (False, True):
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2).to(device)
        before = layer.weight.detach().clone()
        optimizer = optimizer_of(layer, Optimizer(name, lr=0.1), fused=fused)
        for _ in range(3):
            layer(torch.ones(1, 3, device=device)).square().sum().backward()
            optimizer.step()
        assert not torch.equal(layer.weight, before)
        after.append(layer.weight.detach())
    torch.testing.assert_close(*after)
