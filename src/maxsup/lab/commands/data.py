"""What `maxsup data make` and `maxsup data show` do."""

from __future__ import annotations

from pathlib import Path

from maxsup.lab import progress
from maxsup.lab.data import load
from maxsup.lab.data.glyphs.making import kinds_of_reasons, make_glyphs
from maxsup.lab.data.glyphs.sets import GLYPH_SETS
from maxsup.lab.data.glyphs.stored import CACHE, SPLITS, Glyphs, write_glyphs
from maxsup.lab.data.sheet import contact_sheet
from maxsup.lab.recipes import Data
from maxsup.lab.records import replacing, write_json


def make(name: str, fonts: Path | None, out: Path | None) -> list[str]:
    """Makes the set of glyphs `name` of font files, writes it and its manifest, and tells what is in it, in lines."""
    folder = CACHE if out is None else out
    with progress.of_steps() as show:
        glyphs = make_glyphs(GLYPH_SETS[name], fonts, show)
    write_json(folder / f"{name}.json", glyphs.manifest)
    # Last, since it is what a loader looks for.
    write_glyphs(folder / f"{name}.npz", glyphs)
    size = (folder / f"{name}.npz").stat().st_size / 1e6
    return [*_told(glyphs), f"written: {folder / name}.npz ({size:.1f} MB), {folder / name}.json"]


def _told(glyphs: Glyphs) -> list[str]:
    manifest = glyphs.manifest
    lines = []
    for split in SPLITS:
        fonts = [font for font in manifest["fonts"] if font["split"] == split]
        typefaces = {font["typeface"] for font in fonts}
        images = int(glyphs.in_split(split).sum())
        lines.append(f"{split}: {images:,} images of {len(fonts)} fonts of {len(typefaces)} typefaces")
    kinds = kinds_of_reasons(font["reason"] for font in manifest["dropped"])
    dropped = "".join(f"\n  {count:5} {kind}" for kind, count in kinds)
    return [
        *lines,
        f"classes: {len(manifest['classes'])}",
        f"left out: {len(manifest['dropped'])} font files{dropped}",
        f"hash: {manifest['hash']}",
    ]


def show(data: Data, out: Path, split: str, per_class: int, data_dir: Path | None) -> None:
    """Writes the contact sheet of a data set as PNG."""
    sheet = contact_sheet(load(data, data_dir), split, per_class)
    with replacing(out) as temporary:
        sheet.save(temporary, "PNG")
