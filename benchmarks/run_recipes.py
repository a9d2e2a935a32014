"""Runs every recipe from end to end on a few real images in the file formats of its data, and says how long it took.

    python benchmarks/run_recipes.py [--out benchmarks/results/run_recipes.md] [--recipes imagenet …] [--source digits]
                                     [--data-dir DIR] [--images 80] [--batch-size 64] [--image-size 224] [--methods …]
                                     [--cuda-graph] [--compile] [--shard] [--precision float32]

    torchrun --nproc-per-node 2 benchmarks/run_recipes.py …

The images are Fashion-MNIST's or the digits', enlarged and coloured: as ImageNet's folders of JPEG files, as
WebDataset shards and as CIFAR-100's pickles. Everything of a recipe stays but its epochs, its batch, its number of
images and, if asked for, their size. The recipes of shards are ImageNet's with another reader. Nothing of the numbers
means anything; each run has to end with the status `finished` and measures of all its images.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from maxsup.lab.data import DataSet, imagenet, load
from maxsup.lab.processes import Processes, start
from maxsup.lab.recipes import RECIPES, Data, Recipe
from maxsup.lab.records import DataError
from maxsup.lab.train import train

CLASSES = 10
SHARD = 100


def colored(pixels: NDArray[np.uint8], side: int) -> Image.Image:
    """A grey image (h, w) as RGB of about this side, its channels told apart by their brightness."""
    grey = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))
    return Image.fromarray(np.stack([grey, grey // 2, 255 - grey], axis=-1))


def chosen(data: DataSet, images: int) -> dict[str, list[tuple[NDArray[np.uint8], int]]]:
    """`images` grey images of each class and their labels to train on, and a quarter as many to test."""
    found: dict[str, list[tuple[NDArray[np.uint8], int]]] = {}
    for name, count in (("train", images), ("test", max(2, images // 4))):
        split = getattr(data, name)
        found[name] = [
            (split.images[index, 0].numpy(), label)
            for label in range(CLASSES)
            for index in (split.labels == label).nonzero().flatten()[:count].tolist()
        ]
    return found


def jpeg(pixels: NDArray[np.uint8], side: int) -> bytes:
    content = io.BytesIO()
    colored(pixels, side).save(content, "JPEG", quality=90)
    return content.getvalue()


def write_folders(folder: Path, images: dict[str, list[tuple[NDArray[np.uint8], int]]], side: int) -> None:
    """ImageNet's layout: train and val, a folder for each class."""
    for split, of in images.items():
        for number, (pixels, label) in enumerate(of):
            file = folder / {"train": "train", "test": "val"}[split] / f"n{label:08}" / f"{number:05}.JPEG"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(jpeg(pixels, side + number % 32))  # sizes of their own, as photographs have


def write_shards(folder: Path, images: dict[str, list[tuple[NDArray[np.uint8], int]]], side: int) -> None:
    """Tar files of samples, and the _info.json that timm's reader takes."""
    folder.mkdir(parents=True)
    splits = {}
    for split, of in images.items():
        names = []
        for begin in range(0, len(of), SHARD):
            names.append(f"{split}-{begin // SHARD:04}.tar")
            with tarfile.open(folder / names[-1], "w") as tar:
                for number, (pixels, label) in enumerate(of[begin : begin + SHARD], start=begin):
                    for kind, content in (("jpg", jpeg(pixels, side)), ("cls", str(label).encode())):
                        member = tarfile.TarInfo(f"{number:06}.{kind}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
        lengths = [min(SHARD, len(of) - begin) for begin in range(0, len(of), SHARD)]
        splits[split] = {"name": split, "num_samples": len(of), "filenames": names, "shard_lengths": lengths}
    (folder / "_info.json").write_text(json.dumps({"name": "made", "splits": splits}))


def write_cifar100(folder: Path, images: dict[str, list[tuple[NDArray[np.uint8], int]]]) -> None:
    """CIFAR-100's pickles; the labels take up the first ten of its hundred classes."""
    folder.mkdir(parents=True)
    for split, of in images.items():
        pixels = np.stack([np.asarray(colored(grey, 32)) for grey, _ in of]).transpose(0, 3, 1, 2)
        content = {"data": pixels.reshape(len(of), -1), "fine_labels": [label for _, label in of]}
        (folder / split).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class_{c}" for c in range(100)]}))


def take_for_published(folder: Path) -> None:
    """Lets torchvision take what is in `folder` for CIFAR-100, and the lab ten classes for ImageNet's thousand."""
    from torchvision.datasets import CIFAR100

    def sums(name: str) -> list[str]:
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    CIFAR100.train_list, CIFAR100.test_list = [sums("train")], [sums("test")]
    CIFAR100.meta = {**CIFAR100.meta, "md5": sums("meta")[1]}
    imagenet.CLASSES, imagenet.HELD_OUT = CLASSES, 2


def small(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """The recipe for a few images: what is counted in epochs, images and pixels is cut to them."""
    data, optimizer = recipe.data, recipe.optimizer
    if data.name == "cifar100":
        data = dataclasses.replace(data, held_out=CLASSES)
    elif data.name in ("imagenet", "webdataset"):
        data = dataclasses.replace(data, image_size=options.image_size, loader_workers=options.loader_workers)
    else:
        data = dataclasses.replace(data, train_size=options.images * CLASSES)
    model = recipe.model
    if data.name in ("imagenet", "webdataset") and "deit" in model.name:
        model = dataclasses.replace(model, image_size=options.image_size)
    optimizer = dataclasses.replace(
        optimizer,
        warmup_epochs=min(1, optimizer.warmup_epochs),
        milestones=(1,) if optimizer.milestones else (),
        lr=optimizer.lr * options.batch_size / recipe.batch_size,
    )
    return dataclasses.replace(
        recipe,
        epochs=2,
        batch_size=options.batch_size,
        data=data,
        model=model,
        optimizer=optimizer,
        precision=options.precision,
        compile=options.compile,
        cuda_graph=options.cuda_graph,
        shard=options.shard,
    )


def asked() -> Iterator[tuple[str, Recipe]]:
    """The recipes by name, those of ImageNet's first network and of DeiT on shards too."""
    for name, make in RECIPES.items():
        recipe = make()
        yield name, recipe
        if name in ("imagenet-v1-resnet18", "imagenet-deit-small"):
            yield (
                f"{name}, shards",
                dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, name="webdataset")),
            )


def run(name: str, recipe: Recipe, options: argparse.Namespace, folder: Path, processes: Processes) -> list[str]:
    """The lines of a recipe's runs."""
    places = {"imagenet": folder / "imagenet", "webdataset": folder / "shards", "cifar100": folder}
    place = places.get(recipe.data.name, options.data_dir)
    lines = []
    for method in options.methods:
        begin = time.perf_counter()
        try:
            result = train(small(recipe, options), method, 0, folder / "runs" / f"{name}-{method}", data_dir=place)
        except DataError as error:  # glyphs that were not made, on a machine that has no fonts
            lines.append(f"| {name} | {method} | no data: {' '.join(str(error).split())} | | | |")
            continue
        took = time.perf_counter() - begin
        counts = [str(result["measures"][split]["n"]) for split in ("train", "validation", "test")]
        accuracy = result["measures"]["test"]["accuracy"]
        lines.append(f"| {name} | {method} | {result['status']} | {' + '.join(counts)} | {accuracy:.3f} | {took:.1f} |")
    if processes.first:
        print("\n".join(lines), flush=True)
    return lines


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--recipes", nargs="+", help="names or their beginnings; all by default")
    parser.add_argument("--methods", nargs="+", default=["max-sup"])
    parser.add_argument("--source", choices=["fashion-mnist", "digits"], default="fashion-mnist")
    parser.add_argument("--data-dir", type=Path, help="the folder of the source's files")
    parser.add_argument("--images", type=int, default=80, help="training images a class")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=224, help="of ImageNet's recipes")
    parser.add_argument("--loader-workers", type=int, default=4)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--cuda-graph", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--shard", action="store_true", help="FSDP; not with zipf-label-smoothing")
    options = parser.parse_args(arguments)
    processes = start()
    # The first process alone makes the files, in a folder that all of this machine see.
    folder = Path(processes.of_first(tempfile.mkdtemp))
    try:
        rehearse(options, folder, processes)
    finally:
        if processes.first:
            shutil.rmtree(folder)


def rehearse(options: argparse.Namespace, folder: Path, processes: Processes) -> None:
    images = chosen(load(Data(options.source), options.data_dir), options.images)
    if processes.first:
        write_folders(folder / "imagenet", images, max(16, options.image_size))
        write_shards(folder / "shards", images, max(16, options.image_size))
        write_cifar100(folder / "cifar-100-python", images)
    processes.of_first(lambda: None)  # the others wait for the files
    take_for_published(folder / "cifar-100-python")
    os.environ.setdefault("TRITON_CACHE_DIR", str(Path.home() / ".triton" / "cache"))
    os.environ["HOME"] = str(folder)  # where it is kept that the files are whole
    device = torch.cuda.get_device_name() if processes.device.type == "cuda" else "CPU"
    lines = [
        f"# Every recipe on {options.source}, {processes.world} × {device}, PyTorch {torch.__version__}",
        "",
        "| recipe | method | status | images measured | test accuracy | seconds |",
        "|---|---|---|--:|--:|--:|",
    ]
    if processes.first:
        print("\n".join(lines), flush=True)
    for name, recipe in asked():
        if options.recipes is None or any(name.startswith(begin) for begin in options.recipes):
            lines += run(name, recipe, options, folder, processes)
            if processes.first and options.out:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
