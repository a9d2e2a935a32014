"""Glyphs as grey images of one size."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maxsup.lab.data.glyphs.fonts import FontError

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

SIDE = 32
MARGIN = 3
# Pixels per em at which outlines are drawn before they are scaled down: hinting moves nothing visible at this size.
_DRAWN = 128
# Ink that is wider or taller, in pixels, is no letter's.
_LARGEST = 1024
# A noncharacter, for which every font draws its placeholder.
PLACEHOLDER = "\U0010ffff"

Images = NDArray[np.uint8]


def draw(path: Path, characters: Iterable[str]) -> Images:
    """The characters' glyphs, (N, 32, 32), white on black, each scaled so that its longer side spans 26 pixels.

    A glyph without ink gives an empty image.

    Raises:
        FontError: if FreeType cannot draw the file, or a glyph is enormous.
    """
    from PIL import ImageFont

    try:
        # The basic layout is in every build of Pillow, and joins no letters.
        font = ImageFont.truetype(str(path), _DRAWN, layout_engine=ImageFont.Layout.BASIC)
        return np.stack([_glyph(font, character) for character in characters])
    except OSError as error:
        raise FontError(f"cannot be drawn ({error})") from error


def _glyph(font: FreeTypeFont, character: str) -> Images:
    from PIL import Image, ImageDraw

    image = Image.new("L", (SIDE, SIDE))
    left, top, right, bottom = map(int, font.getbbox(character))
    if max(right - left, bottom - top) > _LARGEST:
        raise FontError(f"enormous glyph ({character!r})")
    if right > left and bottom > top:
        canvas = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(canvas).text((-left, -top), character, fill=255, font=font)
        ink = canvas.getbbox()
        if ink is not None:
            glyph = canvas.crop(ink)
            scale = (SIDE - 2 * MARGIN) / max(glyph.size)
            width, height = (max(1, round(side * scale)) for side in glyph.size)
            glyph = glyph.resize((width, height), Image.Resampling.HAMMING)
            image.paste(glyph, ((SIDE - width) // 2, (SIDE - height) // 2))
    return np.asarray(image)
