"""Makes a set of glyphs of font files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from maxsup.lab.data.glyphs.choosing import check, choose
from maxsup.lab.data.glyphs.drawing import PLACEHOLDER, SIDE, Images, draw
from maxsup.lab.data.glyphs.fonts import Font, FontError, font_files, licence_of, package_of, read_font, split_of
from maxsup.lab.data.glyphs.sets import BASE, GlyphSet
from maxsup.lab.data.glyphs.stored import SPLITS, Glyphs
from maxsup.lab.records import DataError, Json

Show = Callable[[str, int, int], None]


def make_glyphs(which: GlyphSet, folder: Path | None, show: Show = lambda what, done, total: None) -> Glyphs:
    """The set `which` of the fonts below `folder`, or of the system's fonts where it is None.

    A font serves if it draws letters and digits and the set's share of the classes, passes `check`, and is among the
    three of its typeface and no copy of another (`choose`). The manifest names every font that does, and every one that
    does not with the reason. `show` is called with what is done, and how many of how many files.

    Raises:
        DataError: if a split gets no typeface, or a class no image of a split.
    """
    files = font_files(folder)
    candidates: list[tuple[Font, Images]] = []
    dropped: list[tuple[Path, str]] = []
    for done, path in enumerate(files):
        show("reading fonts", done, len(files))
        try:
            candidates.append(_candidate(path, which))
        except FontError as reason:
            dropped.append((path, str(reason)))
    if not candidates:
        raise DataError(f"{which.name}: none of {len(files)} font files serves ({_summary(dropped)}); {_ADVICE}")
    candidates.sort(key=lambda candidate: candidate[0].order)
    names = [f"{font.family} {font.style}" for font, _ in candidates]
    reasons = choose([font.typeface for font, _ in candidates], names, [images for _, images in candidates])
    chosen = [candidate for candidate, reason in zip(candidates, reasons, strict=True) if reason is None]
    dropped += [
        (font.path, reason) for (font, _), reason in zip(candidates, reasons, strict=True) if reason is not None
    ]
    images, labels, fonts = [], [], []
    for done, (font, base) in enumerate(chosen):
        show("drawing glyphs", done, len(chosen))
        drawn, classes = _glyphs(font, base, which)
        images.append(drawn)
        labels.append(classes)
        fonts.append(np.full(len(classes), done, np.uint16))
    manifest: Json = {
        "name": which.name,
        "classes": which.characters,
        "versions": _versions(),
        "fonts": [_entry(font, len(classes)) for (font, _), classes in zip(chosen, labels, strict=True)],
        "dropped": [{"file": path.name, "reason": reason} for path, reason in sorted(dropped)],
    }
    glyphs = Glyphs(np.concatenate(images), np.concatenate(labels), np.concatenate(fonts), manifest)
    for split in SPLITS:
        found = np.unique(glyphs.labels[glyphs.in_split(split)])
        if len(found) < len(which.characters):
            raise DataError(
                f"{which.name}: {len(chosen)} of {len(files)} font files serve, and of these the {split} split has "
                f"{len(found)} of {len(which.characters)} classes; {_ADVICE}"
            )
    return replace(glyphs, manifest={"hash": glyphs.content_hash(), **manifest})


_ADVICE = "more fonts are needed (docs/glyphs.md names packages)"


def _candidate(path: Path, which: GlyphSet) -> tuple[Font, Images]:
    font = read_font(path)
    lacking = [c for c in BASE if c not in font.characters]
    if lacking:
        raise FontError(f"incomplete (lacks {len(lacking)} of the letters and digits)")
    share = sum(c in font.characters for c in which.characters) / len(which.characters)
    if share < which.coverage:
        raise FontError(f"incomplete (draws {share:.0%} of the classes, where {which.coverage:.0%} are needed)")
    images = draw(path, BASE)
    check(images)
    return font, images


def _glyphs(font: Font, base: Images, which: GlyphSet) -> tuple[Images, np.ndarray]:
    """The font's images of the set's classes, and their labels.

    Beyond letters and digits an image is left out that is empty, the font's placeholder, or the same as that of a class
    before it (an accent that the font does not draw).
    """
    further = [c for c in which.characters if c not in BASE and c in font.characters]
    drawn = draw(font.path, [PLACEHOLDER, *further])
    seen = {drawn[0].tobytes(), bytes(SIDE * SIDE), *(image.tobytes() for image in base)}
    images = dict(zip(BASE, base, strict=True))
    for character, image in zip(further, drawn[1:], strict=True):
        if image.tobytes() not in seen:
            seen.add(image.tobytes())
            images[character] = image
    kept = [c for c in which.characters if c in images]
    labels = np.array([which.characters.index(c) for c in kept], np.uint16)
    return np.stack([images[c] for c in kept]), labels


def _entry(font: Font, images: int) -> Json:
    package = package_of(font.path)
    return {
        "file": font.path.name,
        "family": font.family,
        "style": font.style,
        "typeface": font.typeface,
        "split": split_of(font.typeface),
        "images": images,
        "package": None if package is None else package[0],
        "licence": licence_of(font),
        "sha256": font.sha256,
    }


def _versions() -> dict[str, str]:
    """What the pixels depend on beside the font files."""
    import PIL
    from PIL import features

    return {"pillow": PIL.__version__, "freetype": str(features.version("freetype2"))}


def kinds_of_reasons(dropped: Iterable[str]) -> list[tuple[str, int]]:
    """How many fonts were left out for each kind of reason, what stands before the brackets; the most frequent first.

    >>> kinds_of_reasons(["copy (draws as A)", "unreadable (EOFError)", "copy (draws as B)"])
    [('copy', 2), ('unreadable', 1)]
    """
    return Counter(reason.split(" (")[0] for reason in dropped).most_common()


def _summary(dropped: list[tuple[Path, str]]) -> str:
    kinds = kinds_of_reasons(reason for _, reason in dropped)
    return "; ".join(f"{count} × {kind}" for kind, count in kinds) or "there are none"
