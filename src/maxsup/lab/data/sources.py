"""Where streamed images lie: files of a folder, members of tar shards, or memory; each read by its number."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maxsup.lab.records import DataError


class Source(Protocol):
    """Images by number, for processes that read them: what it holds is small or in shared memory."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image:
        """The image, opened; its pixels may be read later. Raises OSError or SyntaxError if it is unreadable."""

    def name(self, index: int) -> str:
        """Where the image is, for a person."""


class Strings:
    """Many short strings in two tensors.

    A list of a million would be copied into each worker, page by page, by the counting of references alone.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        self._text = torch.frombuffer(bytearray(b"".join(encoded) or b" "), dtype=torch.uint8)
        self._ends = torch.tensor([0, *(len(part) for part in encoded)]).cumsum(0)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def digest(self) -> str:
        """A fingerprint of all."""
        return hashlib.sha256(self._ends.numpy().tobytes() + self._text.numpy().tobytes()).hexdigest()

    def __getitem__(self, index: int) -> str:
        start, end = int(self._ends[index]), int(self._ends[index + 1])
        return self._text[start:end].numpy().tobytes().decode("utf-8", "surrogateescape")


class Files:
    """Image files under `root`, by their names relative to it."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root = root
        self.names = Strings(names)

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Image.Image:
        """The image in the file."""
        # Whole at once: Pillow's own reads are small, and each is a journey on a network file system.
        return Image.open(io.BytesIO(Path(self.name(index)).read_bytes()))

    def name(self, index: int) -> str:
        """The file's path."""
        return f"{self.root}/{self.names[index]}"


class Shards:
    """Members of uncompressed tar files: shard, offset and length of each, (n,) int64, and their names."""

    def __init__(
        self, shards: Sequence[Path], shard: Tensor, offset: Tensor, length: Tensor, names: Sequence[str]
    ) -> None:
        self.shards = [str(path) for path in shards]
        self.shard, self.offset, self.length = shard, offset, length
        self.names = Strings(names)

    def __len__(self) -> int:
        return len(self.shard)

    def image(self, index: int) -> Image.Image:
        """The image in the member."""
        length = int(self.length[index])
        content = os.pread(_descriptor(self.shards[int(self.shard[index])]), length, int(self.offset[index]))
        return Image.open(io.BytesIO(content))

    def name(self, index: int) -> str:
        """The shard's path and the member's name."""
        return f"{self.shards[int(self.shard[index])]}:{self.names[index]}"


@lru_cache(maxsize=1024)
def _descriptor(path: str) -> int:
    """The file, opened once a process."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class Memory:
    """Images in memory, (N, C, H, W), uint8, with one channel or three."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Image.Image:
        """The image at `index`."""
        pixels = self.images[index].numpy()
        return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))

    def name(self, index: int) -> str:
        """The image's number."""
        return f"image {index} in memory"


def opened(source: Source, index: int, *, small: bool = False) -> Image.Image:
    """The image at `index` with its pixels; with `small`, those of a JPEG file at an eighth of its size.

    Raises:
        DataError: if it is unreadable; it names it.
    """
    try:
        image = source.image(index)
        if small:
            image.draft(image.mode, (1, 1))
        image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's PNG reader raises SyntaxError
        raise DataError(f"{source.name(index)}: unreadable image ({error})") from error
    return image
