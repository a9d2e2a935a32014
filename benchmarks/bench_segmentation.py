"""Times fine-tuning and testing with a segmentation recipe on synthetic images, with the memory they take.

    python benchmarks/bench_segmentation.py [--recipe fashion-scenes-upernet] [--only test] [--out FILE.md] [--tiny]

A step is what `maxsup segment` does in one iteration: forward pass, both losses, backward pass, AdamW; the images lie
on the device. On a GPU it computes in bf16, as there, with its launches replayed (`--cuda-graph`) and without; it tests
in float32. `--tiny` makes everything small, to see that it runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import timm
import torch
from torch import Tensor

from maxsup.lab import models, recipes
from maxsup.lab.models import Classifier
from maxsup.lab.processes import Processes
from maxsup.lab.recipes.small import fashion_scenes_resnet18, fashion_scenes_vit
from maxsup.lab.segmentation.evaluate import probabilities
from maxsup.lab.segmentation.model import Segmenter
from maxsup.lab.segmentation.objective import optimizer_of, step_of
from maxsup.lab.segmentation.recipes import SegmentationRecipe, ade20k_upernet, fashion_scenes_upernet
from maxsup.lab.training.reproducible import reproducible

LOSSES = ("cross-entropy", "label-smoothing", "max-sup")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is timed: a recipe, and what its data and the backbones for it are like."""

    recipe: SegmentationRecipe
    classes: int
    channels: int
    side: int
    """Side in pixels of a training image."""
    test_size: tuple[int, int]
    test_batch: int
    backbones: tuple[recipes.Model, ...]


def of_recipe(name: str) -> Setting:
    """The setting of a recipe."""
    if name == "ade20k-upernet":
        # A photograph of 4:3, as the recipe scales it.
        backbones = (recipes.Model("deit_small_patch16_224"), recipes.Model("resnet50"))
        return Setting(ade20k_upernet(), 150, 3, 512, (512, 683), 1, backbones)
    return Setting(
        fashion_scenes_upernet(), 11, 1, 64, (64, 64), 64, (fashion_scenes_resnet18().model, fashion_scenes_vit().model)
    )


def network(setting: Setting, backbone: recipes.Model) -> Segmenter:
    """The fine-tuned network, with random weights."""
    torch.manual_seed(0)
    built = models.build(backbone, setting.channels, 1000, any_size=True)
    mean, std = (torch.full((setting.channels, 1, 1), value) for value in (0.45, 0.22))
    size = (setting.side, setting.side)
    model = Segmenter(Classifier(built, mean, std), setting.classes, size, setting.recipe.decoder)
    return model.to(DEVICE, memory_format=torch.channels_last)


def wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds(call: Callable[[], object], repeats: int, warmup: int) -> list[float]:
    """Elapsed seconds of each of `repeats` calls, after `warmup` more."""
    found = []
    for i in range(warmup + repeats):
        wait()
        begin = time.perf_counter()
        call()
        wait()
        if i >= warmup:
            found.append(time.perf_counter() - begin)
    return found


def memory() -> str:
    """Peak memory of tensors and of the allocator since the last reset, GiB."""
    if DEVICE.type != "cuda":
        return "–"
    return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} / {torch.cuda.max_memory_reserved() / 2**30:.1f}"


def fresh() -> None:
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def stepper(
    model: Segmenter, recipe: SegmentationRecipe, images: Tensor, labels: Tensor, *, graph: bool
) -> Callable[[], Tensor]:
    """One iteration of fine-tuning, as the lab does it."""
    optimizer = optimizer_of(model, recipe.optimizer)
    step = step_of(model.train(), recipe, Processes(DEVICE), graph=graph)

    def iteration() -> Tensor:
        value = step(images, labels)
        optimizer.step()
        optimizer.zero_grad()
        return value

    return iteration


def percentiles(values: list[float]) -> str:
    ordered = sorted(1000 * value for value in values)
    at = [ordered[round(share * (len(ordered) - 1))] for share in (0.05, 0.5, 0.95)]
    return f"{at[1]:.1f} ({at[0]:.1f}-{at[2]:.1f})"


def training(arguments: argparse.Namespace, setting: Setting) -> list[str]:
    lines = [
        "| backbone | loss | kernels | launches | ms a step | images/s | GiB | minutes for the recipe |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    recipe, side, n = setting.recipe, setting.side, setting.recipe.batch_size
    shape = (n, setting.channels, side, side)
    generator = torch.Generator(DEVICE).manual_seed(0)
    images = torch.randint(0, 256, shape, generator=generator, device=DEVICE, dtype=torch.uint8)
    # In blocks, as objects are.
    coarse = torch.randint(0, setting.classes, (n, 1, side // 16, side // 16), generator=generator, device=DEVICE)
    labels = torch.nn.functional.interpolate(coarse.float(), (side, side))[:, 0].byte()
    own = recipe.deterministic
    replayed = (False, True) if DEVICE.type == "cuda" else (False,)
    cases = [(backbone, loss, own, graph) for backbone in setting.backbones for loss in LOSSES for graph in replayed]
    cases.append((setting.backbones[0], LOSSES[0], not own, False))
    for backbone, loss, deterministic, graph in cases:
        fresh()
        of = dataclasses.replace(recipe, loss=loss)
        kernels = "deterministic" if deterministic else "fastest"
        launches = "graph" if graph else "eager"
        step = stepper(network(setting, backbone), of, images, labels, graph=graph)
        try:
            with reproducible(DEVICE, "all" if deterministic else "fastest"):
                times = seconds(step, arguments.steps, arguments.warmup)
        except torch.OutOfMemoryError:
            row = [backbone.name, loss, kernels, launches, "out of memory", "–", memory(), "–"]
        else:
            middle = statistics.median(times)
            minutes = middle * of.iterations / 60
            speed = [percentiles(times), f"{n / middle:.1f}", memory(), f"{minutes:.1f}"]
            row = [backbone.name, loss, kernels, launches, *speed]
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
        del step
    return lines


def testing(arguments: argparse.Namespace, setting: Setting) -> list[str]:
    lines = ["| backbone | scales | flip | ms a batch | GiB |", "|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    size, several = setting.test_size, setting.recipe.multi_scale
    # Without cuDNN's search: each image may have a size of its own.
    kernels = partial(reproducible, DEVICE, "all") if setting.recipe.deterministic else nullcontext
    shape = (setting.test_batch, setting.channels, *size)
    images = torch.randint(0, 256, shape, device=DEVICE, dtype=torch.uint8)
    for backbone in setting.backbones:
        model = network(setting, backbone).eval()
        for scales, flip in (((1.0,), False), (several.scales, several.flip)):
            fresh()

            def predict(model: Segmenter = model, scales: tuple[float, ...] = scales, flip: bool = flip) -> Tensor:
                return probabilities(
                    model.logits, images, size, scales, flip=flip, multiple=model.pyramid.multiple
                ).argmax(1)

            with torch.inference_mode(), kernels():
                times = seconds(predict, max(2, arguments.steps // 3), min(arguments.warmup, 3))
            named = ", ".join(f"{scale:g}" for scale in scales)
            row = [backbone.name, named, "yes" if flip else "no", percentiles(times), memory()]
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
    return lines


def hardware() -> str:
    if DEVICE.type == "cuda":
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    processor = platform.processor() or platform.machine()
    return f"{processor}, one thread, load {os.getloadavg()[0]:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=("ade20k-upernet", "fashion-scenes-upernet"), default="ade20k-upernet")
    parser.add_argument("--only", choices=("fine-tuning", "test"), help="one of the two parts (default: both)")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=10, help="steps before those that count")
    parser.add_argument("--batch-size", type=int, help="images a step, where not the recipe's")
    parser.add_argument("--tiny", action="store_true", help="everything small, to see that it runs")
    options = parser.parse_args(arguments)
    setting = of_recipe(options.recipe)
    recipe = setting.recipe
    if options.batch_size:
        recipe = dataclasses.replace(recipe, batch_size=options.batch_size)
    if options.tiny:
        options.steps, options.warmup = 2, 1
        recipe = dataclasses.replace(
            recipe,
            batch_size=2,
            decoder=dataclasses.replace(recipe.decoder, channels=16, auxiliary_channels=8),
            multi_scale=dataclasses.replace(recipe.multi_scale, scales=(0.5, 1.0)),
        )
        setting = dataclasses.replace(setting, classes=5, side=64, test_size=(64, 85), test_batch=1)
    setting = dataclasses.replace(setting, recipe=recipe)
    precision = "bf16" if DEVICE.type == "cuda" else "float32"
    lines = [
        f"{hardware()}; torch {torch.__version__}, timm {timm.__version__}, Python {platform.python_version()}; "
        f"{setting.classes} classes; median (5th-95th percentile) of {options.steps} after {options.warmup} more; "
        "memory: peak of tensors / of the allocator.",
        "",
    ]
    print("\n".join(lines), flush=True)
    rows, columns = setting.test_size
    parts = {
        "fine-tuning": (f"{recipe.batch_size} images of {setting.side}×{setting.side}, {precision}", training),
        "test": (f"batches of {setting.test_batch}, {columns}×{rows}, float32", testing),
    }
    for part, (what, timed) in parts.items():
        if options.only in (None, part):
            heading = [f"## {part.capitalize()}: {what}", ""]
            print("\n".join(heading), flush=True)
            lines += [*heading, *timed(options, setting), ""]
            print(flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(f"# Fine-tuning UPerNet with the recipe {recipe.name}\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
