"""Measures images a second from JPEG files to batches on the device, by number of decoding processes.

    python benchmarks/bench_decode.py [--out benchmarks/results/bench_decode.md] [--folder DIR] [--model resnet50]
                                      [--workers 1 4 16] [--batch 256] [--seconds 4] [--tiny]

The files are those of DIR/train/CLASS, or made here: smooth colours with grain, 500×375, about 85 kB, as many bytes a
pixel as ImageNet has. They are in the page cache, having just been written. Work: training batches as
`maxsup train` makes them, random resized crops to 224 (bilinear) and flips; the same with bicubic crops and RandAugment
(rand-m9-mstd0.5-inc1), as DeiT; and evaluation (resize to 256, central crop).

With `--model`, that timm model is trained on the batches (bfloat16, channels last, SGD, cross-entropy), beside the same
loop over one resident batch: images a second of both, and the share of the time in which the GPU waited for images
(`Batches.waited`). On a GPU, `torchvision.io.decode_jpeg` there is timed too, decoding alone.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maxsup.lab import environment
from maxsup.lab.data import Batches, Streamed, evaluation_batches, load, training_batches
from maxsup.lab.recipes import Data

PLAIN = Data(name="image-folder", image_size=224, streaming="on", random_resized_crop=True, flip=True, eval_crop=0.875)
DEIT = replace(PLAIN, interpolation="bicubic", rand_augment="rand-m9-mstd0.5-inc1")


def write_folder(folder: Path, images: int) -> None:
    """Two classes of JPEG files; 32 different ones, each written several times."""
    random = np.random.default_rng(0)
    contents = []
    for _ in range(32):
        colors = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        smooth = np.asarray(colors.resize((500, 375), Image.Resampling.BICUBIC), dtype=np.float32)
        grain = smooth + random.normal(0, 12, smooth.shape)
        jpeg = io.BytesIO()
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(jpeg, "JPEG", quality=90)
        contents.append(jpeg.getvalue())
    for name in ("a", "b"):
        (folder / "train" / name).mkdir(parents=True)
    for i in range(images):
        (folder / "train" / "ab"[i % 2] / f"{i:06}.JPEG").write_bytes(contents[i % len(contents)])


def rate(
    epoch: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    seconds: float,
    device: torch.device,
    epochs: Iterable[int] | None = None,
) -> float:
    """Images a second of epochs one after the other, from the third batch on: the first wait for the processes."""
    batches = (labels for number in epochs or itertools.count() for _, labels in epoch(number))
    next(batches), next(batches)
    begin, images, took = time.perf_counter(), 0, 0.0
    for labels in batches:
        images += len(labels)
        if device.type == "cuda":
            torch.cuda.synchronize()
        took = time.perf_counter() - begin
        if took > seconds:
            break
    return images / took


def with_workers(split: Streamed, workers: int) -> Streamed:
    return replace(split, workers=workers)


def train_epoch(split: Streamed, data: Data, batch: int, device: torch.device, number: int) -> Batches:
    return training_batches(split, data, batch, seed=number, device=device)


def evaluate(split: Streamed, batch: int, device: torch.device, number: int) -> Batches:
    return evaluation_batches(split, batch, device=device)


def trained(name: str, split: Streamed, batch: int, seconds: float, device: torch.device) -> list[str]:
    import timm

    model = timm.create_model(name, num_classes=1000).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scale = torch.tensor([0.5], device=device).view(1, 1, 1, 1)

    def step(images: Tensor, labels: Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model((images.float() / 255 - scale) / scale)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    lines = []
    kept = next(training_batches(split, PLAIN, batch, seed=0, device=device))
    for title, data in (("resident batch", None), ("crops, flips", PLAIN), ("RandAugment", DEIT)):
        images, waited, number = 0, 0.0, 0
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds or number < 2:
            if number == 1:  # the first pass chooses kernels and starts processes
                images, waited, begin = 0, 0.0, time.perf_counter()
            batches = None if data is None else training_batches(split, data, batch, seed=number, device=device)
            for pixels, labels in [kept] * (len(split) // batch) if batches is None else batches:
                step(pixels, labels)
                images += len(labels)
            if device.type == "cuda":
                torch.cuda.synchronize()
            waited += 0.0 if batches is None else batches.waited()
            number += 1
        took = time.perf_counter() - begin
        line = f"| {name}, {title} | {images / took:.0f} | {waited / took:.1%} |"
        print(line, flush=True)
        lines.append(line)
    return ["", f"| training, batch {batch} | images/s | waited for images |", "|---|---|---|", *lines]


def decoded_on_gpu(split: Streamed, batch: int, seconds: float, device: torch.device) -> str:
    from torchvision.io import decode_jpeg

    files = [split.source.name(i) for i in range(batch)]
    contents = [torch.frombuffer(bytearray(Path(file).read_bytes()), dtype=torch.uint8) for file in files]

    def epoch(number: int) -> Iterator[tuple[Tensor, Tensor]]:
        decode_jpeg(contents, device=device)
        yield split.labels[:0], torch.empty(batch)

    found = rate(epoch, seconds, device)
    return f"\n`torchvision.io.decode_jpeg(device='cuda')`, batches of {batch}: {found:.0f} images/s."


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(environment.hardware()["processor"])


def measure(folder: Path, arguments: argparse.Namespace) -> str:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load(PLAIN, folder)
    split, batch, seconds = loaded.train, arguments.batch, arguments.seconds
    assert isinstance(split, Streamed)
    cores = len(os.sched_getaffinity(0))
    lines = [
        f"{device_name(device)}, {cores} cores for this process; torch {torch.__version__}, Python "
        f"{platform.python_version()}; {len(split)} training images, batches of {batch}.",
        "",
        "| processes | crops, flips | bicubic crops, RandAugment | evaluation |",
        "|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for workers in arguments.workers or sorted({1, max(1, cores // 4), max(1, cores // 2), cores}):
        own = with_workers(split, workers)
        rates = [rate(partial(train_epoch, own, data, batch, device), seconds, device) for data in (PLAIN, DEIT)]
        # Once: each evaluation starts its processes anew.
        rates.append(rate(partial(evaluate, own, batch, device), seconds, device, range(1)))
        lines.append(f"| {workers} | {' | '.join(f'{value:.0f}' for value in rates)} |")
        print(lines[-1], flush=True)
    if device.type == "cuda":
        try:
            lines.append(decoded_on_gpu(split, batch, seconds, device))
        except RuntimeError as error:  # a torchvision without nvJPEG; training is worth its numbers
            lines.append(f"\n`torchvision.io.decode_jpeg(device='cuda')` failed: {str(error).splitlines()[0]}")
        print(lines[-1], flush=True)
    if arguments.model:
        lines += trained(
            arguments.model, with_workers(split, max(arguments.workers or [cores])), batch, seconds, device
        )
    return "\n".join(lines) + "\n"


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--folder", type=Path, help="an image folder to read instead of made files")
    parser.add_argument("--model", help="a timm model to train on the batches")
    parser.add_argument("--workers", type=int, nargs="*")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--images", type=int, default=8192, help="how many files to make")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--tiny", action="store_true", help="few files, for a trial on a CPU")
    arguments = parser.parse_args(given)
    if arguments.tiny:
        arguments.images, arguments.batch, arguments.seconds = 64, 8, 0.1
        arguments.workers = arguments.workers or [0, 1]
    with tempfile.TemporaryDirectory() as made:
        if arguments.folder is None:
            write_folder(Path(made), arguments.images)
        text = measure(arguments.folder or Path(made), arguments)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("# From JPEG files to batches\n\n" + text)


if __name__ == "__main__":
    main()
