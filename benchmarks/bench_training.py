"""Times training on a GPU: images a second of the lab's own loop beside a plain eager one, and the share of the peak.

    python benchmarks/bench_training.py [--out benchmarks/results/bench_training.md] [--works resnet18-28px …]
                                        [--loops plain lab …] [--seconds 3] [--no-waits] [--tiny]

    torchrun --nproc-per-node 2 benchmarks/bench_training.py --works resnet50 --loops lab "lab, own batch norm"

The plain loop is what one writes first: bfloat16 autocast, channels_last, images resident on the GPU with the same
augmentation there, PyTorch's optimizer, `cudnn.benchmark` on. The lab's loop is `train_epoch`, as `maxsup train` calls
it, validation left out. Both see random images. All loops of a work run in one process, one after the other.

Images a second: whole epochs until SECONDS are over, the device waited for at the end of each; the median epoch counts.
Start: seconds from building to the end of the first step, compiling included; PyTorch keeps what it compiled on disk,
and a second start is shorter.
Waits: the share of the time in which no kernel ran, because the host had not issued one. It is 1 less the seconds of
all kernels of a short profiled epoch, an image, times images a second unprofiled.
Share of the peak: floating-point operations of forward and backward, as `torch.utils.flop_counter` counts them, a
second, over the dense bfloat16 peak of the card.

Under torchrun every GPU gets the batch of the work and images a second are those of all GPUs together. The first
process trains alone before that, while the others wait; the last column is the rate over its.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Iterator
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
# Batches of the warm-up, which sees a capture, and of the profiled epoch.
FEW = 6


@dataclasses.dataclass(frozen=True)
class Work:
    """A network, its images and its batch; `batches` make an epoch."""

    model: Model
    side: int
    channels: int
    classes: int
    batch: int
    batches: int
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    pad_crop: int = 2

    @property
    def images(self) -> int:
        return self.batch * self.batches

    def recipe(self, **options: Any) -> Recipe:
        data = Data(name="random", pad_crop=self.pad_crop, flip=True)
        return Recipe("bench", epochs=1000, batch_size=self.batch, data=data, model=self.model,
                      optimizer=self.optimizer, **options)  # fmt: skip

    def for_all(self, world: int) -> Work:
        """The work of `world` processes, each with the batch of one."""
        return dataclasses.replace(self, batch=self.batch * world)


SMALL = Model("resnet18", small_stem=True)
DEIT = Model("deit_small_patch16_224", image_size=224)
ADAMW = Optimizer("adamw", lr=5e-4, weight_decay=0.05)
WORKS = {
    "resnet18-28px-256": Work(SMALL, 28, 1, 10, 256, 200),
    "resnet18-28px-512": Work(SMALL, 28, 1, 10, 512, 100),
    "resnet18-32px-512": Work(SMALL, 32, 3, 10, 512, 100),
    "resnet50-224px-256": Work(Model("resnet50"), 224, 3, 1000, 256, 12, pad_crop=0),
    "deit-small-224px-256": Work(DEIT, 224, 3, 1000, 256, 12, ADAMW, pad_crop=0),
}
TINY = {
    "convnet-8px-4": Work(Model("convnet"), 8, 1, 3, 4, 6),
    "vit-16px-4": Work(Model("deit_tiny_patch16_224", image_size=16, patch_size=8, depth=1), 16, 3, 3, 4, 6, ADAMW),
}
# The lab's loops: the recipe's options, and whether cuDNN has to be deterministic, as it is in training.
LAB: dict[str, tuple[dict[str, bool], bool]] = {
    "lab": ({}, True),
    "lab, graph": ({"cuda_graph": True}, True),
    "lab, compile": ({"compile": True}, True),
    "lab, compile, graph": ({"compile": True, "cuda_graph": True}, True),
    "lab, own batch norm": ({"sync_batch_norm": False}, True),
    "lab, compile, own batch norm": ({"compile": True, "sync_batch_norm": False}, True),
    "lab, shard": ({"shard": True}, True),
    "lab, cuDNN free": ({}, False),
    "lab, graph, cuDNN free": ({"cuda_graph": True}, False),
    "lab, compile, graph, cuDNN free": ({"compile": True, "cuda_graph": True}, False),
}
PLAIN = ("plain", "plain, deterministic")
# What runs unless loops are named: in one process and in several, where there are no graphs.
USUAL = ("plain", "lab", "lab, graph", "lab, compile", "lab, compile, graph")
USUAL_OF_SEVERAL = ("lab", "lab, own batch norm")

# Trains once on the split.
Epoch = Callable[[Split], object]


@contextmanager
def cudnn(deterministic: bool, benchmark: bool) -> Iterator[None]:
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, benchmark
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, False


def random_data(work: Work, device: torch.device) -> DataSet:
    generator = torch.Generator(device).manual_seed(0)
    shape = (work.images, work.channels, work.side, work.side)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator, device=device)
    split = Split(images, torch.randint(work.classes, (work.images,), generator=generator, device=device))
    names = tuple(map(str, range(work.classes)))
    constants = (0.5,) * work.channels, (0.29,) * work.channels
    return DataSet("random", names, split, first(split, 1), first(split, 1), constants=constants)


def first(split: Split, images: int) -> Split:
    return Split(split.images[:images], split.labels[:images])


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def plain_epoch(work: Work, data: DataSet, device: torch.device) -> Iterator[Epoch]:
    """The epoch of a loop as one writes it first."""
    network = models.build(work.model, work.channels, work.classes)
    mean, std = (value.to(device) for value in data.mean_and_std())
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
    loss_function = MaxSupCrossEntropyLoss(0.1).to(device)
    generator = torch.Generator(device).manual_seed(0)
    augmentation = Data(pad_crop=work.pad_crop, flip=True)

    def epoch(split: Split) -> None:
        for indices in torch.randperm(len(split), device=device, generator=generator).split(work.batch):
            images = split.images[indices]
            images = augment(images, augmentation, draw(augmentation, len(images), generator))
            images = ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16):
                loss = loss_function(network(images), split.labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    yield epoch


@contextmanager
def lab_epoch(work: Work, data: DataSet, processes: Processes, options: dict[str, bool]) -> Iterator[Epoch]:
    recipe = work.recipe(precision="bfloat16", **options)
    with parts.building(recipe, "max-sup", 0, data, processes) as run:
        yield lambda split: train_epoch(run, split, recipe, 0)


def operations(work: Work, device: torch.device) -> float:
    """Floating-point operations an image, forward and backward."""
    network = models.build(work.model, work.channels, work.classes).to(device)
    images = torch.rand(2, work.channels, work.side, work.side, device=device)
    with FlopCounterMode(display=False) as counter:
        nn.functional.cross_entropy(network(images), torch.zeros(2, dtype=torch.int64, device=device)).backward()
    return counter.get_total_flops() / 2


def busy_seconds(epoch: Callable[[], object]) -> float:
    """Seconds of the kernels, copies and fills of an epoch on the GPU."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        epoch()
        torch.cuda.synchronize()
    on_device = [
        event
        for event in profile.key_averages()
        if event.device_type == torch.autograd.DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    ]
    return sum(event.self_device_time_total for event in on_device) / 1e6


@dataclasses.dataclass(frozen=True)
class Timing:
    """What one loop showed: images a second of each epoch, seconds of the start, share of waiting, GiB."""

    rates: list[float]
    start: float
    waits: float | None
    memory: float

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


def timed(work: Work, loop: str, data: DataSet, processes: Processes, seconds: float, *, waits: bool = False) -> Timing:
    device = processes.device
    split = data.train
    assert isinstance(split, Split)
    few = first(split, FEW * work.batch)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    options, deterministic = LAB.get(loop, ({}, loop != "plain"))
    begin = time.perf_counter()
    with (
        cudnn(deterministic, not deterministic),
        plain_epoch(work, data, device) if loop in PLAIN else lab_epoch(work, data, processes, options) as epoch,
    ):
        epoch(first(split, work.batch))
        wait(device)
        started = time.perf_counter() - begin
        epoch(few)  # the allocator settles, a graph is captured
        wait(device)
        rates: list[float] = []
        end = time.perf_counter() + seconds
        while processes.of_first(lambda: not rates or time.perf_counter() < end):
            begin = time.perf_counter()
            epoch(split)
            wait(device)
            rates.append(work.images / (time.perf_counter() - begin))
        idle = None
        if waits and device.type == "cuda" and processes.world == 1:
            idle = 1 - busy_seconds(lambda: epoch(few)) / len(few) * statistics.median(rates)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return Timing(rates, started, idle, memory)


def card_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


HEAD = [
    "| work (model, side, batch of a GPU) | loop | images/s | lowest … highest | × plain | start, s | GiB | waits "
    "| share of peak | × one GPU |",
    "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
]


def line(name: str, loop: str, of: Timing, share: float | None, plain: float | None, alone: float | None) -> str:
    cells = [
        f"{of.rate:,.0f}",
        f"{min(of.rates):,.0f} … {max(of.rates):,.0f}",
        "" if plain is None else f"{of.rate / plain:.2f}",
        f"{of.start:.1f}",
        f"{of.memory:.1f}",
        "" if of.waits is None else f"{of.waits:.0%}",
        "" if share is None else f"{share:.1%}",
        "" if alone is None else f"{of.rate / alone:.2f}",
    ]
    return f"| {name} | {loop} | {' | '.join(cells)} |"


def measure(
    name: str, work: Work, loop: str, processes: Processes, options: argparse.Namespace, flops: float, plain: Any
) -> tuple[str, float]:
    """The line of a loop of a work, and its rate."""
    alone = None
    if processes.world > 1:
        one = Processes(processes.device)
        alone = processes.of_first(lambda: timed(work, loop, random_data(work, one.device), one, options.seconds).rate)
        work = work.for_all(processes.world)
    data = random_data(work, processes.device)
    of = timed(work, loop, data, processes, options.seconds, waits=not options.no_waits)
    peak = next((peak for card, peak in PEAKS.items() if card in card_name(processes.device)), None)
    share = None if peak is None else flops * of.rate / (peak * 1e12 * processes.world)
    return line(name, loop, of, share, plain, alone), of.rate


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown file, written anew after each row")
    parser.add_argument("--works", nargs="+", help=f"of {', '.join(WORKS)}; a prefix takes all that begin with it")
    parser.add_argument("--loops", nargs="+", choices=[*PLAIN, *LAB], help=f"{'; '.join(USUAL)} by default")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each loop, after its warm-up")
    parser.add_argument("--no-waits", action="store_true", help="no profiled epoch after the timed ones")
    parser.add_argument("--tiny", action="store_true", help="networks and images for a test of this script")
    options = parser.parse_args(arguments)
    works = TINY if options.tiny else WORKS
    chosen = [name for name in works if not options.works or any(name.startswith(asked) for asked in options.works)]
    if not chosen:
        parser.error(f"--works must name one of {', '.join(works)}, got {', '.join(options.works)}")
    processes = start()
    loops = options.loops or (USUAL if processes.world == 1 else USUAL_OF_SEVERAL)
    if processes.world > 1 and any(loop in PLAIN or "graph" in loop for loop in loops):
        parser.error("several processes have no plain loop and no graphs")
    lines = [f"# Training, {processes.world} × {card_name(processes.device)}, PyTorch {torch.__version__}\n", *HEAD]
    if processes.first:
        print("\n".join(lines), flush=True)
    for name in chosen:
        flops = operations(works[name], processes.device)
        plain = None
        for loop in loops:
            try:
                text, rate = measure(name, works[name], loop, processes, options, flops, plain)
                plain = rate if loop == "plain" else plain
            except Exception as error:  # the other loops are worth their numbers
                if processes.world > 1:
                    raise  # the others would wait for this one
                reason = (str(error).splitlines() or [""])[0]
                text = f"| {name} | {loop} | failed: {type(error).__name__}: {reason} | | | | | | | |"
            lines.append(text)
            if processes.first:
                print(text, flush=True)
                if options.out:
                    options.out.parent.mkdir(parents=True, exist_ok=True)
                    options.out.write_text("\n".join(lines) + "\n")
        if processes.first:
            print(f"({name}: {flops / 1e9:.2f} GFLOP an image, forward and backward)", flush=True)


if __name__ == "__main__":
    main()
