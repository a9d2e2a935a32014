"""Times fine-tuning and testing with the recipe ade20k-upernet on synthetic images, with the memory they take.

    python benchmarks/bench_segmentation.py [--out benchmarks/results/bench_segmentation_gpu.md] [--steps 30] [--tiny]

A step is what `maxsup segment` does in one iteration: forward pass, both losses, backward pass, AdamW; the images lie
on the device. On a GPU it computes in bf16, as there. Tested is one image, in full precision. `--tiny` makes everything
small, to see on a CPU that it runs.
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
from pathlib import Path

import timm
import torch
from torch import Tensor

from maxsup.lab import models, recipes
from maxsup.lab.models import Classifier
from maxsup.lab.segmentation.evaluate import probabilities
from maxsup.lab.segmentation.model import Segmenter
from maxsup.lab.segmentation.objective import batch_loss, loss_function, optimizer_of
from maxsup.lab.segmentation.recipes import SegmentationRecipe, ade20k_upernet
from maxsup.lab.training.reproducible import reproducible
from maxsup.lab.training.step import autocast

CLASSES = 150
BACKBONES = ("deit_small_patch16_224", "resnet50")
LOSSES = ("cross-entropy", "label-smoothing", "max-sup")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def network(name: str, recipe: SegmentationRecipe, classes: int) -> Segmenter:
    """The fine-tuned network, with random weights."""
    torch.manual_seed(0)
    backbone = models.build(recipes.Model(name), 3, 1000, any_size=True)
    side = recipe.augmentation.crop or 512
    classifier = Classifier(backbone, torch.full((3, 1, 1), 0.45), torch.full((3, 1, 1), 0.22))
    return Segmenter(classifier, classes, (side, side), recipe.decoder).to(DEVICE, memory_format=torch.channels_last)


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


def stepper(model: Segmenter, recipe: SegmentationRecipe, images: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """One iteration of fine-tuning."""
    optimizer = optimizer_of(model, recipe.optimizer)
    loss = loss_function(recipe.loss, recipe.alpha)
    model.train()

    def step() -> Tensor:
        with autocast("auto", DEVICE):
            outputs = model(images)
        value = batch_loss(loss, outputs, labels, recipe.decoder.auxiliary_weight) / labels.numel()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return value.detach()

    return step


def percentiles(values: list[float]) -> str:
    ordered = sorted(1000 * value for value in values)
    at = [ordered[round(share * (len(ordered) - 1))] for share in (0.05, 0.5, 0.95)]
    return f"{at[1]:.1f} ({at[0]:.1f}-{at[2]:.1f})"


def training(arguments: argparse.Namespace, recipe: SegmentationRecipe, classes: int) -> list[str]:
    lines = [
        "| backbone | loss | kernels | ms a step | images/s | GiB | hours for the recipe |",
        "|---|---|---|---|---|---|---|",
    ]
    side, n = recipe.augmentation.crop or 512, recipe.batch_size
    generator = torch.Generator(DEVICE).manual_seed(0)
    images = torch.randint(0, 256, (n, 3, side, side), generator=generator, device=DEVICE, dtype=torch.uint8)
    # In blocks, as objects are.
    coarse = torch.randint(0, classes, (n, 1, side // 16, side // 16), generator=generator, device=DEVICE)
    labels = torch.nn.functional.interpolate(coarse.float(), (side, side))[:, 0].byte()
    cases = [(name, loss, False) for name in BACKBONES for loss in LOSSES] + [(BACKBONES[0], LOSSES[0], True)]
    for name, loss, deterministic in cases:
        fresh()
        of = dataclasses.replace(recipe, loss=loss)
        kernels = "deterministic" if deterministic else "fastest"
        step = stepper(network(name, of, classes), of, images, labels)
        try:
            with reproducible(DEVICE, "all" if deterministic else "fastest"):
                times = seconds(step, arguments.steps, arguments.warmup)
        except torch.OutOfMemoryError:
            row = [name, loss, kernels, "out of memory", "–", memory(), "–"]
        else:
            middle = statistics.median(times)
            hours = middle * of.iterations / 3600
            row = [name, loss, kernels, percentiles(times), f"{n / middle:.1f}", memory(), f"{hours:.1f}"]
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
        del step
    return lines


def testing(arguments: argparse.Namespace, recipe: SegmentationRecipe, classes: int) -> list[str]:
    lines = ["| backbone | scales | flip | ms an image | GiB |", "|---|---|---|---|---|"]
    short = recipe.augmentation.resize[1] if recipe.augmentation.resize else 512
    size = (short, short * 4 // 3)
    image = torch.randint(0, 256, (1, 3, *size), device=DEVICE, dtype=torch.uint8)
    for name in BACKBONES:
        model = network(name, recipe, classes).eval()
        for scales, flip in (((1.0,), False), (recipe.multi_scale.scales, recipe.multi_scale.flip)):
            fresh()

            def predict(model: Segmenter = model, scales: tuple[float, ...] = scales, flip: bool = flip) -> Tensor:
                return probabilities(
                    model.logits, image, size, scales, flip=flip, multiple=model.pyramid.multiple
                ).argmax(1)

            with torch.inference_mode():
                times = seconds(predict, max(2, arguments.steps // 3), min(arguments.warmup, 3))
            named = ", ".join(f"{scale:g}" for scale in scales)
            lines.append(f"| {name} | {named} | {'yes' if flip else 'no'} | {percentiles(times)} | {memory()} |")
            print(lines[-1], flush=True)
    return lines


def hardware() -> str:
    if DEVICE.type == "cuda":
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    processor = platform.processor() or platform.machine()
    return f"{processor}, one thread, load {os.getloadavg()[0]:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=10, help="steps before those that count")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--tiny", action="store_true", help="everything small, to see that it runs")
    options = parser.parse_args(arguments)
    recipe, classes = dataclasses.replace(ade20k_upernet(), batch_size=options.batch_size), CLASSES
    if options.tiny:
        options.steps, options.warmup, classes = 2, 1, 5
        recipe = dataclasses.replace(
            recipe,
            batch_size=2,
            augmentation=dataclasses.replace(recipe.augmentation, crop=64, resize=(256, 64)),
            decoder=dataclasses.replace(recipe.decoder, channels=16, auxiliary_channels=8),
            multi_scale=dataclasses.replace(recipe.multi_scale, scales=(0.5, 1.0)),
        )
    precision = "bf16" if DEVICE.type == "cuda" else "float32"
    side = recipe.augmentation.crop
    head = [
        f"{hardware()}; torch {torch.__version__}, timm {timm.__version__}, Python {platform.python_version()}; "
        f"{classes} classes; median (5th-95th percentile) of {options.steps} after {options.warmup} more; memory: "
        "peak of tensors / of the allocator.",
        "",
        f"## Fine-tuning: {recipe.batch_size} images of {side}×{side}, {precision}",
        "",
    ]
    print("\n".join(head), flush=True)
    lines = [*head, *training(options, recipe, classes)]
    middle = ["", "## Test: one image with a shorter side as the recipe has it, float32", ""]
    print("\n".join(middle), flush=True)
    lines += [*middle, *testing(options, recipe, classes)]
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("# Fine-tuning UPerNet with the recipe ade20k-upernet\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
