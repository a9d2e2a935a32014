"""Data sets as arrays: fixed splits, and batches with augmentation on the device that trains."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maxsup.lab.names import lookup
from maxsup.lab.recipes import Data
from maxsup.lab.records import DataError

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
# The split belongs to the data set: it is the same for every recipe, method and seed.
SPLIT_SEED = 0


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W), uint8, and labels (N,), int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        """The split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))

    def take(self, indices: Tensor) -> Split:
        """The images at `indices`."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class DataSet:
    """A data set with its three splits; `mean` and `std` per channel, of the training images scaled to 0..1."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return self.train.images.shape[1]

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per channel, shape (C, 1, 1)."""
        images = self.train.images.double() / 255
        return (
            images.mean(dim=(0, 2, 3)).float().view(-1, 1, 1),
            images.std(dim=(0, 2, 3)).float().view(-1, 1, 1),
        )


def _stratified(labels: Tensor, size: int) -> Tensor:
    """`size` indices, the same at every call, with each class's share kept to within one image."""
    generator = np.random.default_rng(SPLIT_SEED)
    shuffled = torch.from_numpy(generator.permutation(len(labels)))
    # Rank of each image within its class, as a fraction: the `size` smallest take every class's head evenly.
    classes = labels[shuffled]
    fraction = torch.empty(len(labels), dtype=torch.float64)
    for c in classes.unique():
        members = (classes == c).nonzero().squeeze(1)
        fraction[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return shuffled[fraction.argsort(stable=True)[:size]].sort().values


def _hold_out(split: Split, size: int) -> tuple[Split, Split]:
    held = _stratified(split.labels, size)
    rest = torch.ones(len(split), dtype=torch.bool)
    rest[held] = False
    return split.take(rest.nonzero().squeeze(1)), split.take(held)


def load_digits(data_dir: Path | None = None) -> DataSet:
    """Scikit-learn's handwritten digits: 1,797 images, 8×8, 10 classes; 60/20/20 stratified, embedded."""
    from sklearn.datasets import load_digits as sklearn_digits

    digits = sklearn_digits()
    # 17 grey levels, 0..16, stretched to the 0..255 that every image here has.
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    everything = Split(images, torch.from_numpy(digits.target).long())
    rest, test = _hold_out(everything, 360)
    train, validation = _hold_out(rest, 360)
    return DataSet("digits", tuple(str(c) for c in range(10)), train, validation, test)


def read_idx(path: Path) -> np.ndarray:
    """Reads an IDX file of unsigned bytes, gzipped or not.

    Raises:
        DataError: if the file is truncated, corrupt or not IDX; it names the file.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: corrupt or truncated gzip file ({error})") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"{path}: not an IDX file of unsigned bytes")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise DataError(f"{path}: truncated in its header")
    shape = struct.unpack(f">{content[3]}I", content[4:header])
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise DataError(f"{path}: {len(content):,} bytes where shape {shape} needs {expected:,}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()


def _idx_split(folder: Path, prefix: str) -> Split:
    arrays = []
    for part in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        found = [p for p in (folder / f"{prefix}-{part}", folder / f"{prefix}-{part}.gz") if p.is_file()]
        if not found:
            raise DataError(f"{folder}: {prefix}-{part} (or .gz) is missing")
        arrays.append(read_idx(found[0]))
    images, labels = arrays
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(f"{folder}: {prefix} has images of shape {images.shape} and labels of shape {labels.shape}")
    if not len(labels):
        raise DataError(f"{folder}: {prefix} holds no image")
    return Split(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long())


def _fashion_mnist_folder(data_dir: Path | None) -> Path:
    """The first place that has the IDX files: `data_dir`, Debian's package, torchvision's download."""
    probe = "train-images-idx3-ubyte"
    for folder in ([data_dir] if data_dir else []) + [DEBIAN_FASHION_MNIST]:
        if any((folder / name).is_file() for name in (probe, f"{probe}.gz")):
            return folder
    from torchvision.datasets import FashionMNIST

    root = Path.home() / ".cache" / "maxsup"
    try:
        FashionMNIST(str(root), train=True, download=True)
    except Exception as error:  # torchvision lets urllib's, http's and its own errors through
        raise DataError(
            f"Fashion-MNIST: no IDX files in --data-dir ({data_dir or 'not given'}), none in {DEBIAN_FASHION_MNIST} "
            f"(Debian package dataset-fashion-mnist), and torchvision's download to {root} failed: {error}"
        ) from error
    return root / "FashionMNIST" / "raw"


def load_fashion_mnist(data_dir: Path | None = None) -> DataSet:
    """Fashion-MNIST: 60,000 + 10,000 grey images, 28×28, 10 classes; 5,000 of the 60,000 held out for validation."""
    folder = _fashion_mnist_folder(data_dir)
    full, test = _idx_split(folder, "train"), _idx_split(folder, "t10k")
    names = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"]
    for split in (full, test):
        if int(split.labels.max()) >= len(names):
            raise DataError(f"{folder}: label {int(split.labels.max())} where there are {len(names)} classes")
    # A smaller copy of the set (as tests make one) holds out the same share.
    train, validation = _hold_out(full, len(full) // 12)
    return DataSet("fashion-mnist", tuple(names), train, validation, test)


DATA_SETS: dict[str, Callable[[Path | None], DataSet]] = {
    "digits": load_digits,
    "fashion-mnist": load_fashion_mnist,
}


def load(data: Data, data_dir: Path | None = None) -> DataSet:
    """The data set of a recipe.

    Raises:
        UnknownNameError: for a name that is not in `DATA_SETS`.
        DataError: if files are absent or damaged, or `train_size` exceeds what there is.
    """
    everything = lookup("data set", data.name, DATA_SETS)(data_dir)
    if data.train_size is None:
        return everything
    if data.train_size > len(everything.train):
        raise DataError(f"data.train_size {data.train_size} exceeds the {len(everything.train)} images of {data.name}")
    train = everything.train.take(_stratified(everything.train.labels, data.train_size))
    return DataSet(everything.name, everything.class_names, train, everything.validation, everything.test)


def augment(images: Tensor, data: Data, generator: torch.Generator) -> Tensor:
    """Random crop and flip of a batch (N, C, H, W), each image on its own, on the images' device."""
    n, _, height, width = images.shape
    if data.pad_crop:
        pad = data.pad_crop
        padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
        shifts = torch.randint(2 * pad + 1, (2, n, 1), generator=generator, device=images.device)
        rows = (shifts[0] + torch.arange(height, device=images.device)).view(n, 1, height, 1)
        columns = (shifts[1] + torch.arange(width, device=images.device)).view(n, 1, 1, width)
        index = torch.arange(n, device=images.device).view(n, 1, 1, 1)
        channel = torch.arange(images.shape[1], device=images.device).view(1, -1, 1, 1)
        images = padded[index, channel, rows, columns]
    if data.flip:
        mirrored = torch.rand(n, generator=generator, device=images.device) < 0.5
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    return images


def training_batches(
    split: Split, data: Data, batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order, augmented; a last batch of a single image is left out (batch norm needs two)."""
    order = torch.randperm(len(split), generator=generator, device=split.images.device)
    for indices in order.split(batch_size):
        if len(indices) > 1:
            yield augment(split.images[indices], data, generator), split.labels[indices]
