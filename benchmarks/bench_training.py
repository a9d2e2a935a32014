"""Times training on one GPU: images a second of the lab's own loop beside a plain eager one, and the share of the peak.

    python benchmarks/bench_training.py [--out benchmarks/results/bench_training.md] [--works resnet18 …]
                                        [--loops plain lab …] [--seconds 10] [--tiny]

    torchrun --nproc-per-node 2 benchmarks/bench_training.py --loops lab "lab, compile" …

Under torchrun every GPU gets the batch of the work, images a second are those of all GPUs together, and the loops are
the lab's without graphs.

The plain loop is what one writes first: bfloat16 autocast, channels_last, images resident on the GPU with the same
augmentation there, PyTorch's optimizer, `cudnn.benchmark` on. The lab's loop is `train_epoch`, as `maxsup train` calls
it, validation left out. Both see random images. All loops of a work run in one process, one after the other.

Images a second: whole epochs until SECONDS are over, the device waited for at the end of each; the median epoch counts.
First step: its seconds, compiling included, and those of a second one, whose compiler finds its cache on disk.
Share of the peak: floating-point operations of forward and backward, as `torch.utils.flop_counter` counts them, a
second, over the dense bfloat16 peak of the card.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from maxsup import MaxSupCrossEntropyLoss
from maxsup.lab import models
from maxsup.lab.data import DataSet, Split
from maxsup.lab.data.augment import augment, draw
from maxsup.lab.processes import Processes, start
from maxsup.lab.recipes import Data, Model, Optimizer, Recipe
from maxsup.lab.training import run as parts
from maxsup.lab.training.epoch import train_epoch

# Dense bfloat16 TFLOP/s, by a part of the card's name.
PEAKS = {"H100 PCIe": 756.0, "H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0}


@dataclasses.dataclass(frozen=True)
class Work:
    model: Model
    side: int
    channels: int
    classes: int
    batch: int
    images: int
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    pad_crop: int = 2

    def recipe(self, **options: Any) -> Recipe:
        data = Data(name="random", pad_crop=self.pad_crop, flip=True)
        return Recipe("bench", epochs=1000, batch_size=self.batch, data=data, model=self.model,
                      optimizer=self.optimizer, **options)  # fmt: skip

    def for_all(self, world: int) -> Work:
        """The work of `world` processes, each with the batch of one."""
        return dataclasses.replace(self, batch=self.batch * world, images=self.images * world)


SMALL = Model("resnet18", small_stem=True)
ADAMW = Optimizer("adamw", lr=5e-4, weight_decay=0.05)
WORKS = {
    "resnet18-28px-256": Work(SMALL, 28, 1, 10, 256, 256 * 200),
    "resnet18-28px-512": Work(SMALL, 28, 1, 10, 512, 512 * 100),
    "resnet18-32px-512": Work(SMALL, 32, 3, 10, 512, 512 * 100),
    "resnet50-224px-256": Work(Model("resnet50"), 224, 3, 1000, 256, 256 * 12, pad_crop=0),
    "deit-small-224px-256": Work(
        Model("deit_small_patch16_224", image_size=224), 224, 3, 1000, 256, 256 * 12, ADAMW, pad_crop=0
    ),
}
TINY = {
    "resnet18-8px-4": Work(SMALL, 8, 1, 3, 4, 24),
    "vit-16px-4": Work(Model("deit_tiny_patch16_224", image_size=16, patch_size=8, depth=1), 16, 3, 3, 4, 24, ADAMW),
}
# The lab's loops: the recipe's options, and whether cuDNN has to be deterministic, as it is in training.
LAB: dict[str, tuple[dict[str, bool], bool]] = {
    "lab": ({}, True),
    "lab, cuDNN free": ({}, False),
    "lab, graph": ({"cuda_graph": True}, True),
    "lab, compile": ({"compile": True}, True),
    "lab, compile, graph": ({"compile": True, "cuda_graph": True}, True),
    "lab, compile, graph, cuDNN free": ({"compile": True, "cuda_graph": True}, False),
}
PLAIN = ("plain", "plain, deterministic")


@contextmanager
def cudnn(deterministic: bool, benchmark: bool) -> Any:
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, benchmark
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, False


def random_data(work: Work, device: torch.device) -> DataSet:
    generator = torch.Generator().manual_seed(0)
    shape = (work.images, work.channels, work.side, work.side)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.randint(work.classes, (work.images,), generator=generator)
    split = Split(images, labels).to(device)
    return DataSet(
        "random", tuple(map(str, range(work.classes))), split, split.take(labels[:1]), split.take(labels[:1])
    )


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


Epoch = Callable[[], object]


def plain_epoch(work: Work, data: DataSet, device: torch.device) -> Epoch:
    """The epoch of a loop as one writes it first."""
    network = models.build(work.model, work.channels, work.classes)
    mean, std = (value.to(device) for value in (torch.full((1, 1, 1), 0.5), torch.full((1, 1, 1), 0.29)))
    network = network.to(device).to(memory_format=torch.channels_last).train()
    settings = work.optimizer
    if settings.name == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            network.parameters(), settings.lr, weight_decay=settings.weight_decay
        )
    else:
        optimizer = torch.optim.SGD(
            network.parameters(), settings.lr, settings.momentum, weight_decay=settings.weight_decay, nesterov=True
        )
    loss_function = MaxSupCrossEntropyLoss(0.1)
    generator = torch.Generator(device).manual_seed(0)
    augmentation = Data(pad_crop=work.pad_crop, flip=True)

    def epoch() -> None:
        for indices in torch.randperm(work.images, device=device, generator=generator).split(work.batch):
            images = data.train.images[indices]
            images = augment(images, augmentation, draw(augmentation, len(images), generator))
            images = ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16):
                loss = loss_function(network(images), data.train.labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def operations(work: Work, device: torch.device) -> float:
    """Floating-point operations an image, forward and backward."""
    network = models.build(work.model, work.channels, work.classes).to(device)
    images = torch.rand(2, work.channels, work.side, work.side, device=device)
    with FlopCounterMode(display=False) as counter:
        nn.functional.cross_entropy(network(images), torch.zeros(2, dtype=torch.int64, device=device)).backward()
    return counter.get_total_flops() / 2


def timed_epochs(epoch: Epoch, processes: Processes, seconds: float) -> list[float]:
    epoch()  # allocator, cuDNN's choices, a capture
    wait(processes.device)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while processes.of_first(lambda: not times or time.perf_counter() < end):
        begin = time.perf_counter()
        epoch()
        wait(processes.device)
        times.append(time.perf_counter() - begin)
    return times


@contextmanager
def lab_epoch(work: Work, data: DataSet, processes: Processes, options: dict[str, bool]) -> Any:
    recipe = work.recipe(precision="bfloat16", **options)
    with parts.building(recipe, "max-sup", 0, data, processes) as run:
        yield lambda: train_epoch(run, data.train, recipe, 0)


def first_step(work: Work, data: DataSet, processes: Processes, options: dict[str, bool]) -> float:
    """Seconds of an epoch of one step after the build; what was compiled is forgotten."""
    short = dataclasses.replace(data, train=Split(data.train.images[: work.batch], data.train.labels[: work.batch]))
    with lab_epoch(work, short, processes, options) as epoch:
        wait(processes.device)
        begin = time.perf_counter()
        epoch()
        wait(processes.device)
        return time.perf_counter() - begin


@dataclasses.dataclass(frozen=True)
class Row:
    work: str
    loop: str
    rate: float
    low: float
    high: float
    start: str
    memory: float
    share: float | None


def measure(name: str, work: Work, loop: str, data: DataSet, processes: Processes, seconds: float, flops: float) -> Row:
    device = processes.device
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    first = ""
    if loop in PLAIN:
        with cudnn(loop != "plain", loop == "plain"):
            times = timed_epochs(plain_epoch(work, data, device), processes, seconds)
    else:
        options, deterministic = LAB[loop]
        with cudnn(deterministic, not deterministic):
            first = " / ".join(f"{first_step(work, data, processes, options):.1f}" for _ in range(2))
            with lab_epoch(work, data, processes, options) as epoch:
                times = timed_epochs(epoch, processes, seconds)
    rates = sorted(work.images / taken for taken in times)
    rate = statistics.median(rates)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    peak = next((peak for card, peak in PEAKS.items() if card in card_name(device)), None)
    share = None if peak is None else flops * rate / (peak * 1e12 * processes.world)
    return Row(name, loop, rate, rates[0], rates[-1], first, memory, share)


def card_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


HEAD = [
    "| work (model, side, batch) | loop | images/s | lowest … highest | × plain | first step, s: cold / cached | GiB "
    "| share of peak |",
    "|---|---|--:|--:|--:|--:|--:|--:|",
]


def line(row: Row, plain: float | None) -> str:
    ratio = "" if plain is None else f"{row.rate / plain:.2f}"
    share = "" if row.share is None else f"{100 * row.share:.1f}%"
    spread = f"{row.low:,.0f} … {row.high:,.0f}"
    return (
        f"| {row.work} | {row.loop} | {row.rate:,.0f} | {spread} | {ratio} | {row.start} | {row.memory:.1f} | {share} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown file, written anew after each row")
    parser.add_argument("--works", nargs="+", help=f"of {', '.join(WORKS)}; a prefix takes all that begin with it")
    parser.add_argument("--loops", nargs="+", choices=[*PLAIN, *LAB], help="all by default")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each loop, after its warm-up")
    parser.add_argument("--tiny", action="store_true", help="networks and images for a test of this script")
    options = parser.parse_args()
    works = TINY if options.tiny else WORKS
    chosen = [name for name in works if not options.works or any(name.startswith(asked) for asked in options.works)]
    if not chosen:
        parser.error(f"--works must name one of {', '.join(works)}, got {', '.join(options.works)}")
    processes = start()
    device = processes.device
    loops = options.loops or [*PLAIN, *LAB]
    if processes.world > 1:
        loops = [loop for loop in loops if loop not in PLAIN and "graph" not in loop]
    title = f"# Training, {processes.world} × {card_name(device)}, PyTorch {torch.__version__}\n"
    lines = [title, *HEAD]
    if processes.first:
        print("\n".join(lines), flush=True)
    for name in chosen:
        work = works[name].for_all(processes.world)
        data = random_data(work, device)
        flops = operations(work, device)
        plain = None
        for loop in loops:
            try:
                row = measure(name, work, loop, data, processes, options.seconds, flops)
            except Exception as error:  # the other loops are worth their numbers
                text = f"| {name} | {loop} | failed: {type(error).__name__}: {str(error).splitlines()[0]} | | | | | |"
            else:
                plain = row.rate if loop == "plain" else plain
                text = line(row, plain)
            lines.append(text)
            if processes.first:
                print(text, flush=True)
                if options.out:
                    options.out.write_text("\n".join(lines) + "\n")
        if processes.first:
            print(f"({name}: {flops / 1e9:.2f} GFLOP an image, forward and backward)", flush=True)


if __name__ == "__main__":
    main()
