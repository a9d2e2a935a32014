"""A set of glyphs in one file: how it is written, checked and loaded."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from maxsup.lab.data.glyphs.sets import GLYPH_SETS
from maxsup.lab.data.splits import DataSet, Split
from maxsup.lab.records import DataError, Json, replacing

CACHE = Path.home() / ".cache" / "maxsup"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Glyphs:
    """A set of glyphs; the images are in order of font, then of class.

    `images` are (N, 32, 32), uint8; `labels` (N,) indices into `manifest["classes"]`; `fonts` (N,) indices into
    `manifest["fonts"]`, where each font has its split.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint16]
    fonts: NDArray[np.uint16]
    manifest: Json

    def in_split(self, split: str) -> NDArray[np.bool_]:
        """Which images belong to a split: (N,)."""
        members = np.array([font["split"] == split for font in self.manifest["fonts"]], bool)
        return members[self.fonts]

    def content_hash(self) -> str:
        """SHA-256 of the classes, and of images and labels split by split: two equal sets have the same."""
        digest = hashlib.sha256(self.manifest["classes"].encode())
        for split in SPLITS:
            chosen = self.in_split(split)
            digest.update(self.images[chosen].tobytes())
            digest.update(self.labels[chosen].astype("<u2").tobytes())
        return digest.hexdigest()


def write_glyphs(path: Path, glyphs: Glyphs) -> None:
    """Writes the set with its manifest as a compressed .npz, whole or not at all."""
    manifest = np.frombuffer(json.dumps(glyphs.manifest, ensure_ascii=False).encode(), np.uint8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, images=glyphs.images, labels=glyphs.labels, fonts=glyphs.fonts, manifest=manifest)


def read_glyphs(path: Path) -> Glyphs:
    """Reads what `write_glyphs` wrote.

    Raises:
        DataError: if the file is damaged, or its content is not the one whose hash it has.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            manifest = json.loads(arrays["manifest"].tobytes().decode())
            glyphs = Glyphs(arrays["images"], arrays["labels"], arrays["fonts"], manifest)
        found = glyphs.content_hash()
    except (ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: no readable set of glyphs ({type(error).__name__}: {error})") from error
    if found != manifest.get("hash"):
        raise DataError(f"{path}: the content's hash is {found}, where the manifest says {manifest.get('hash')}")
    return glyphs


def load_glyphs(data_dir: Path | None = None, image_size: int | None = None) -> DataSet:
    """Letters and digits of real typefaces, grey, 32×32, 62 classes, split by typeface; `maxsup data make` makes it."""
    return _load("glyphs", data_dir).resized(image_size)


def load_glyphs_large(data_dir: Path | None = None, image_size: int | None = None) -> DataSet:
    """The same with accented Latin, Greek and Cyrillic letters, 447 classes; `maxsup data make` makes it."""
    return _load("glyphs-large", data_dir).resized(image_size)


def glyphs_file(name: str, data_dir: Path | None) -> Path:
    """The first place that has the set's file: `data_dir`, the cache.

    Raises:
        DataError: if there is none; it says how to make it.
    """
    for folder in ([data_dir] if data_dir else []) + [CACHE]:
        if (folder / f"{name}.npz").is_file():
            return folder / f"{name}.npz"
    raise DataError(
        f"{name}: no {name}.npz in --data-dir ({data_dir or 'not given'}) and none in {CACHE}; "
        f"`maxsup data make {name}` makes it of this machine's fonts, with --fonts DIR of those in a folder"
    )


def _load(name: str, data_dir: Path | None) -> DataSet:
    path = glyphs_file(name, data_dir)
    glyphs = read_glyphs(path)
    if glyphs.manifest["classes"] != GLYPH_SETS[name].characters:
        raise DataError(f"{path}: its classes are not those of {name}; make it anew with `maxsup data make {name}`")
    train, validation, test = (_split(glyphs, split) for split in SPLITS)
    return DataSet(name, tuple(glyphs.manifest["classes"]), train, validation, test)


def _split(glyphs: Glyphs, split: str) -> Split:
    chosen = glyphs.in_split(split)
    images, labels = glyphs.images[chosen], glyphs.labels[chosen].astype(np.int64)
    return Split(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels))
