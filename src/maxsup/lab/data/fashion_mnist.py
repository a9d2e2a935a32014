"""Fashion-MNIST, and the IDX files that it comes in."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from maxsup.lab.data.splits import DataSet, Split, hold_out
from maxsup.lab.records import DataError

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


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


def load_fashion_mnist(data_dir: Path | None = None, image_size: int | None = None) -> DataSet:
    """Fashion-MNIST: 60,000 + 10,000 grey images, 28×28, 10 classes; 5,000 of the 60,000 held out for validation."""
    folder = _fashion_mnist_folder(data_dir)
    full, test = _idx_split(folder, "train"), _idx_split(folder, "t10k")
    names = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"]
    for split in (full, test):
        if int(split.labels.max()) >= len(names):
            raise DataError(f"{folder}: label {int(split.labels.max())} where there are {len(names)} classes")
    # A smaller copy of the set (as tests make one) holds out the same share.
    train, validation = hold_out(full, len(full) // 12)
    return DataSet("fashion-mnist", tuple(names), train, validation, test).resized(image_size)
