"""Accumulation, clipping, the moving average, precision and stochastic depth, each against what it stands for."""

import copy
import dataclasses
import gc
import math
import weakref

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from maxsup.lab import data, models, train
from maxsup.lab.checkpoint import CheckpointFile
from maxsup.lab.processes import Processes
from maxsup.lab.recipes import Data, Model, Optimizer
from maxsup.lab.recipes.small import digits_convnet
from maxsup.lab.records import read_json_lines
from maxsup.lab.training.epoch import train_epoch
from maxsup.lab.training.run import building

# A vision transformer has no batch norm, so that a batch in parts is the batch. 102 images: the last batch has 6.
RECIPE = dataclasses.replace(
    digits_convnet(),
    epochs=2,
    batch_size=32,
    data=Data(name="digits", train_size=102, pad_crop=1),
    model=Model("deit_tiny_patch16_224", image_size=8, patch_size=4, depth=2),
    optimizer=Optimizer(lr=0.01, warmup_epochs=0),
)


@pytest.fixture(autouse=True)
def a_checkpoint_every_epoch(monkeypatch):
    """However busy the machine is: a slow disk would otherwise be spared."""
    monkeypatch.setattr(CheckpointFile, "SLOW_SECONDS", float("inf"))


def trained(watch=lambda run: None, **changes):
    """Loss, accuracy and weights after an epoch; `watch` sees the run after every update."""
    recipe = dataclasses.replace(RECIPE, **changes)
    digits = data.load(recipe.data)
    with building(recipe, "max-sup", 0, digits, Processes(torch.device("cpu"))) as run:
        step = run.optimizer.step

        def watched():
            step()
            watch(run)

        run.optimizer.step = watched
        epoch = train_epoch(run, digits.train, recipe, 0)
        return epoch.loss, epoch.accuracy, run


def weights(run):
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])


def test_a_batch_in_parts_is_the_batch():
    updates = []
    loss, accuracy, whole = trained(lambda run: updates.append(0))
    for parts in (2, 8):
        same_loss, same_accuracy, run = trained(accumulate=parts)
        assert (same_loss, same_accuracy) == (pytest.approx(loss, rel=1e-5), accuracy)
        assert_close(weights(run), weights(whole), rtol=1e-4, atol=1e-6)
    assert len(updates) == 4


@pytest.mark.parametrize(
    ("parts", "augmentation", "updates"),
    [
        (1, {"mixup": 0.8}, 3),  # the last 6 images of 102 are left out
        (4, {"mixup": 0.8, "cutmix": 1.0}, 3),  # 12 parts of 8 images
        (1, {"repeats": 3}, 4),
        (1, {"train_size": 97}, 3),  # batch norm could not take the one that is left
    ],
)
def test_the_schedule_ends_with_the_last_update(parts, augmentation, updates):
    settings = dataclasses.replace(RECIPE.data, **augmentation)
    recipe = dataclasses.replace(RECIPE, accumulate=parts, data=settings)
    digits = data.load(recipe.data)
    asked, rates = [], []
    with building(recipe, "max-sup", 0, digits, Processes(torch.device("cpu"))) as run:
        step_update, step = run.scheduler.step_update, run.optimizer.step

        def scheduled(update):
            asked.append(update)
            step_update(update)

        def stepped():
            rates.append(run.optimizer.param_groups[0]["lr"])
            step()

        run.scheduler.step_update, run.optimizer.step = scheduled, stepped
        for _ in range(recipe.epochs):
            train_epoch(run, digits.train, recipe, 0)
            run.epoch += 1
    total = recipe.epochs * updates
    assert asked == list(range(total))
    assert rates == pytest.approx([0.01 * (1 + math.cos(math.pi * t / total)) / 2 for t in range(total)])


def test_an_epoch_tells_how_long_its_device_waited_for_images(tmp_path):
    # Random crops of each image are made by the loader, as a file's are.
    streamed = dataclasses.replace(RECIPE.data, random_resized_crop=True, pad_crop=0, loader_workers=0)
    train.train(dataclasses.replace(RECIPE, data=streamed), "max-sup", 0, tmp_path / "streamed")
    train.train(RECIPE, "max-sup", 0, tmp_path / "held")
    rows = [read_json_lines(tmp_path / name / "metrics.jsonl") for name in ("streamed", "held")]
    assert all(0 < row["waiting_seconds"] < row["seconds"] for row in rows[0])
    assert [row["waiting_seconds"] for row in rows[1]] == [0, 0]


def test_the_gradient_is_clipped_to_the_norm():
    def norms(**changes):
        seen = []

        def watch(run):
            seen.append(torch.cat([p.grad.flatten() for p in run.model.parameters()]).double().norm().item())

        trained(watch, **changes)
        return seen

    free, bound = norms(), norms(clip_norm=0.5)
    assert min(free) > 0.5
    assert bound == pytest.approx([0.5] * 4, rel=1e-4)
    assert norms(clip_norm=1e6) == pytest.approx(free)


def test_the_moving_average_is_that_of_the_weights_after_each_update(tmp_path):
    steps = []
    _, _, run = trained(lambda run: steps.append(weights(run).double()), ema=0.8)
    _, _, plain = trained()
    assert torch.equal(weights(run), weights(plain))
    with building(RECIPE, "max-sup", 0, data.load(RECIPE.data), run.processes) as first:
        average = weights(first).double()
    for step in steps:
        average = 0.8 * average + 0.2 * step
    averaged = torch.cat([p.detach().flatten() for p in run.evaluated.parameters()])
    assert_close(averaged.double(), average, rtol=1e-5, atol=1e-7)
    assert plain.evaluated is plain.model
    _, _, run = trained(ema=0.8, epochs=1)
    train.train(dataclasses.replace(RECIPE, ema=0.8, epochs=1), "max-sup", 0, tmp_path)
    assert_close(load_file(tmp_path / "model.safetensors"), dict(run.evaluated.state_dict()))


def test_bfloat16_is_near_full_precision_and_the_weights_stay_float32():
    loss, _, full = trained()
    half_loss, _, half = trained(precision="bfloat16")
    assert half_loss == pytest.approx(loss, rel=0.01)
    assert half_loss != loss
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}
    assert 0 < (weights(half) - weights(full)).norm() / weights(full).norm() < 0.05


def test_drop_path_skips_blocks_in_training_alone():
    torch.manual_seed(0)
    network = models.build(dataclasses.replace(RECIPE.model, drop_path=0.5), 1, 10)
    images = torch.rand(64, 1, 8, 8)
    assert not torch.equal(network.train()(images), network(images))
    assert torch.equal(network.eval()(images), network(images))
    rates = [block.drop_path1.drop_prob if hasattr(block.drop_path1, "drop_prob") else 0.0 for block in network.blocks]
    assert rates == [0.0, 0.5]


@pytest.mark.parametrize("name", ["convnet", "vgg11"])
def test_drop_path_is_refused_where_no_block_can_be_skipped(name):
    with pytest.raises(ValueError, match=rf"model\.drop_path: '{name}' has no residual blocks"):
        models.build(Model(name, drop_path=0.1), 3, 10)


def test_a_resumed_run_with_everything_on_equals_an_unbroken_one(tmp_path):
    recipe = dataclasses.replace(
        RECIPE,
        epochs=4,
        accumulate=2,
        clip_norm=1.0,
        ema=0.9,
        precision="bfloat16",
        model=dataclasses.replace(RECIPE.model, drop_path=0.3),
        optimizer=Optimizer(
            "adamw", lr=1e-3, weight_decay=0.05, schedule="multistep", milestones=(2, 3), warmup_lr=1e-5
        ),
    )
    whole = train.train(recipe, "online-label-smoothing", 0, tmp_path / "whole")

    def interrupt(row):
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train(recipe, "online-label-smoothing", 0, tmp_path / "broken", on_epoch=interrupt)
    resumed = train.train(recipe, "online-label-smoothing", 0, tmp_path / "broken")
    assert resumed["measures"] == whole["measures"]
    ends = [copy.deepcopy(load_file(tmp_path / name / "model.safetensors")) for name in ("whole", "broken")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    rows = [read_json_lines(tmp_path / name / "metrics.jsonl") for name in ("whole", "broken")]
    assert [{**row, "seconds": 0} for row in rows[0]] == [{**row, "seconds": 0} for row in rows[1]]


def test_a_step_is_compiled_once_while_alpha_moves(monkeypatch):
    compile, compiled = torch.compile, []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda function, **options: compile(function, backend=backend, **options))
    recipe = dataclasses.replace(RECIPE, model=Model("convnet"), compile=True)
    digits = data.load(recipe.data)
    with building(recipe, "max-sup", 0, digits, Processes(torch.device("cpu"))) as run:
        for _ in range(recipe.epochs):
            train_epoch(run, digits.train, recipe, 0)
            run.alpha.step()
            run.epoch += 1
    assert float(run.loss.alpha) == pytest.approx(recipe.alpha.end)
    assert len(compiled) == 1


def test_the_memory_of_a_run_is_free_when_it_is_over():
    """Without the collector of circles, which knows nothing of a GPU's memory."""
    digits = data.load(RECIPE.data)
    gc.collect()
    gc.disable()
    try:
        with building(RECIPE, "max-sup", 0, digits, Processes(torch.device("cpu"))) as run:
            train_epoch(run, digits.train, RECIPE, 0)
        model = weakref.ref(run.model)
        del run
        assert model() is None
    finally:
        gc.enable()
