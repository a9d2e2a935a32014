"""On a GPU, the host never waits for the device within an epoch on images in memory."""

import dataclasses
import math

import pytest
import torch

from maxsup.lab.data import DataSet, Split
from maxsup.lab.processes import Processes
from maxsup.lab.recipes import Data, Model, Optimizer, Recipe
from maxsup.lab.training.epoch import train_epoch
from maxsup.lab.training.run import building

RECIPE = Recipe(
    "watched",
    epochs=3,
    batch_size=16,
    data=Data("random", pad_crop=1, flip=True, rotation=10.0),
    model=Model("resnet18", small_stem=True),
    optimizer=Optimizer(warmup_epochs=1),
)
TRANSFORMER = dataclasses.replace(
    RECIPE,
    model=Model("deit_tiny_patch16_224", image_size=16, patch_size=8, depth=2, drop_path=0.1),
    optimizer=Optimizer("adamw", lr=1e-3, weight_decay=0.05),
    data=Data("random", flip=True, random_erasing=0.5),
)
MIXED = dataclasses.replace(TRANSFORMER, data=Data("random", random_erasing=0.5, mixup=0.8, cutmix=1.0))
CASES = {
    "plain": (RECIPE, "cross-entropy"),
    "graph": (dataclasses.replace(RECIPE, cuda_graph=True), "max-sup"),
    "table": (dataclasses.replace(RECIPE, cuda_graph=True), "online-label-smoothing"),
    "positions": (dataclasses.replace(RECIPE, cuda_graph=True), "zipf-label-smoothing"),
    "parts": (dataclasses.replace(RECIPE, accumulate=2, clip_norm=1.0, ema=0.9, cuda_graph=True), "label-smoothing"),
    "transformer": (dataclasses.replace(TRANSFORMER, cuda_graph=True), "confidence-penalty"),
    "mixed": (MIXED, "max-sup"),
    "mixed, graph": (dataclasses.replace(MIXED, cuda_graph=True), "label-smoothing"),
}


class Watched(Processes):
    """Waits of the host are errors from `watch` on, until the sums of the epoch are read."""

    def watch(self):
        if self.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")

    def sum(self, value):
        torch.cuda.set_sync_debug_mode("default")
        return super().sum(value)


def losses(recipe, method, device):
    generator = torch.Generator().manual_seed(0)
    split = Split(
        torch.randint(256, (70, 3, 16, 16), dtype=torch.uint8, generator=generator),
        torch.randint(4, (70,), generator=generator),
    )
    processes = Watched(device)
    found = []
    with building(recipe, method, 0, DataSet("random", tuple("abcd"), split, split, split), processes) as run:
        on_device = split.to(device)
        for run.epoch in range(recipe.epochs):
            if run.epoch:  # the first chooses kernels and captures
                processes.watch()
            found.append(train_epoch(run, on_device, recipe, 0).loss)
    return found


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("name", CASES)
def test_an_epoch_does_not_wait_for_the_device(name):
    recipe, method = CASES[name]
    try:
        found = losses(recipe, method, torch.device("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(found) == recipe.epochs
    assert all(map(math.isfinite, found))
