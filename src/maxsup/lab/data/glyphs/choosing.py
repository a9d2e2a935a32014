"""Which fonts serve: those that draw letters and digits, each once, and not as a font taken before."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maxsup.lab.data.glyphs.drawing import Images, draw
from maxsup.lab.data.glyphs.fonts import FontError
from maxsup.lab.data.glyphs.sets import BASE

PER_TYPEFACE = 3
# Thresholds found by looking at the fonts on both sides of each, sorted by the measure.
DISTINCT = 50
LEGIBLE = 0.4
ALIKE = 0.7
COPY = 0.93
REPEATS = 3
# Capitals and small letters of different shapes.
_UNLIKE_PAIRS = [(BASE.index(letter.upper()), BASE.index(letter)) for letter in "abdeghnqrt"]
# Width in pixels over which images are averaged before shapes are compared, so that hairlines meet bold strokes.
_BLUR = 5

Floats = NDArray[np.float32]


def unit(images: Images | Floats) -> Floats:
    """Images (..., 32, 32) as vectors (..., 1024) of mean 0 and length 1, whose products are correlations."""
    vectors = images.reshape(*images.shape[:-2], -1).astype(np.float32)
    vectors -= vectors.mean(axis=-1, keepdims=True)
    units: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)
    return units


def check(images: Images) -> None:
    """Whether the images (62, 32, 32) of `BASE`'s characters are letters and digits.

    Raises:
        FontError: for an empty glyph; for one drawing for many characters, as fonts of placeholders have; for capitals
            in place of small letters, the mean correlation of ten pairs such as a/A reaching 0.7; and for symbols and
            letters in boxes: less than 40% of the glyphs look most like their own character in one of DejaVu's fonts.
    """
    empty = [BASE[i] for i in np.flatnonzero(images.reshape(len(images), -1).max(axis=1) == 0)]
    if empty:
        raise FontError(f"empty glyphs ({''.join(empty)})")
    distinct = len({image.tobytes() for image in images})
    if distinct < DISTINCT:
        raise FontError(f"repeated glyphs ({distinct} different ones of {len(images)})")
    units = unit(images)
    alike = float(np.mean([units[i] @ units[j] for i, j in _UNLIKE_PAIRS]))
    if alike >= ALIKE:
        raise FontError(f"capitals for small letters (correlation {alike:.2f})")
    legible = legibility(images)
    if legible < LEGIBLE:
        raise FontError(f"symbols or decoration ({legible:.0%} of the glyphs look like their character)")


def legibility(images: Images) -> float:
    """Share of the images (62, 32, 32) of `BASE` that look most like their own character, in either case, in DejaVu."""
    references = _references()
    # One product of two matrices: (12 · 62, 1024) with (1024, 62).
    closeness = references.reshape(-1, references.shape[2]) @ _blurred(images).T
    nearest = closeness.reshape(*references.shape[:2], len(images)).max(axis=0).argmax(axis=0)
    letters = np.array(list(BASE.upper()))
    return float((letters[nearest] == letters).mean())


def _blurred(images: Images) -> Floats:
    from scipy.ndimage import uniform_filter

    return unit(uniform_filter(images.astype(np.float32), size=(1, _BLUR, _BLUR), mode="constant"))


@functools.cache
def _references() -> Floats:
    """`BASE` in the DejaVu fonts that come with matplotlib, blurred: (12, 62, 1024)."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    names = [f"DejaVu{kind}" for kind in ("Sans", "SansMono", "Serif")]
    slants = {"DejaVuSerif": "Italic"}
    styles = [(name, slants.get(name, "Oblique")) for name in names]
    files = [f"{name}{end}.ttf" for name, slant in styles for end in ("", "-Bold", f"-{slant}", f"-Bold{slant}")]
    return np.stack([_blurred(draw(folder / file, BASE)) for file in files])


def choose(typefaces: Sequence[str], names: Sequence[str], images: Sequence[Images]) -> list[str | None]:
    """Goes through fonts in the given order and says of each why it is left out, or None where it is taken.

    At most three files of a typeface are taken, and none whose mean correlation, over the 62 images of `BASE`, with
    those of a font taken before reaches 0.93: families are renamed, and lent to other scripts, and a copy of a training
    typeface in the test set would be a leak. Nor is a font taken of which more than 3 images are, pixel by pixel,
    images of fonts taken before: pixel fonts borrow letters from each other (and bars such as l meet by chance).
    """
    vectors = np.stack([unit(of).reshape(-1) for of in images])
    closeness = vectors @ vectors.T / len(BASE)
    per_typeface: Counter[str] = Counter()
    taken: list[int] = []
    drawn: set[bytes] = set()
    reasons: list[str | None] = []
    for i, typeface in enumerate(typefaces):
        near, own = closeness[i, taken], {image.tobytes() for image in images[i]}
        if per_typeface[typeface] == PER_TYPEFACE:
            reasons.append(f"more than {PER_TYPEFACE} files of the typeface")
        elif taken and near.max() >= COPY:
            reasons.append(f"copy (draws as {names[taken[near.argmax()]]}, correlation {near.max():.2f})")
        elif len(own & drawn) > REPEATS:
            reasons.append(f"copy (repeats {len(own & drawn)} glyphs of fonts taken before)")
        else:
            reasons.append(None)
            taken.append(i)
            drawn |= own
            per_typeface[typeface] += 1
    return reasons
