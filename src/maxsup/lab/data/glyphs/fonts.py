"""Font files: which there are, what each says of itself, and the split that its typeface belongs to."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from maxsup.lab.records import DataError

# Shares of the typefaces; they sum to 1.
SHARES = {"train": 0.60, "validation": 0.15, "test": 0.25}

# Words of a family's name that tell a weight, a width, a slant or a finish: with or without them it is one typeface.
_VARIANTS = (
    "thin hairline extralight ultralight light semilight book regular normal medium demi semi demibold semibold bold "
    "extrabold ultrabold black heavy ultra extra italic oblique slanted condensed cond semicondensed extracondensed "
    "narrow compressed extended expanded wide sc caps smallcaps outline outlined solid hollow inline shadow plain brk"
)
_PLAIN_STYLES = {"regular": 0, "book": 0, "roman": 0, "normal": 0, "medium": 0, "bold": 1, "italic": 2, "oblique": 2}
_LONGEST_LICENCE = 80
_DPKG = Path("/var/lib/dpkg/info")


class FontError(ValueError):
    """A font file that does not serve; the message is the reason."""


@dataclass(frozen=True)
class Font:
    """A font file and what it says of itself; `characters` are those that it has glyphs for."""

    path: Path
    family: str
    style: str
    licence: str
    sha256: str
    characters: frozenset[str]

    @property
    def typeface(self) -> str:
        """The family without the words for weight, width, slant and finish."""
        return typeface(self.family)

    @property
    def order(self) -> tuple[str, int, str, str]:
        """By typeface; within it the regular file, the bold, the italic, then the others by name."""
        style = self.style.lower()
        return self.typeface, _PLAIN_STYLES.get(style, 3), f"{self.family} {style}", self.sha256


def typeface(family: str) -> str:
    """A family's name in small letters, without words for weight, width, slant, finish and size after the first word.

    >>> [typeface(name) for name in ("DejaVu Sans Condensed", "LM Roman 10", "NimbusSansNarrow", "B612 Mono")]
    ['dejavu sans', 'lm roman', 'nimbus sans', 'b612 mono']
    """
    # A name in one piece has its words told apart by capitals.
    spaced = family if " " in family else re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", family)
    words = re.findall(r"[^\W_]+", spaced.lower())
    variants = _VARIANTS.split()
    kept = [word for word in words[1:] if word not in variants and len(word) > 1 and not re.search(r"\d", word)]
    return " ".join(words[:1] + kept)


def split_of(typeface: str) -> str:
    """The split of a typeface, by a hash of its name: no other font has a say in it.

    >>> [split_of(name) for name in ("dejavu sans", "dejavu serif", "dejavu sans mono")]
    ['train', 'validation', 'train']
    """
    place = int.from_bytes(hashlib.sha256(typeface.encode()).digest()[:8], "big") / 2**64
    if place < SHARES["train"]:
        return "train"
    return "validation" if place < SHARES["train"] + SHARES["validation"] else "test"


def font_files(folder: Path | None) -> list[Path]:
    """The TrueType and OpenType files below `folder`, or the system's where it is None, in order of path.

    Raises:
        DataError: if `folder` is not there.
    """
    if folder is not None and not folder.is_dir():
        raise DataError(f"--fonts {folder}: no such folder")
    from matplotlib.font_manager import findSystemFonts

    found = findSystemFonts(None if folder is None else [str(folder)])
    return sorted(path for path in map(Path, found) if path.suffix.lower() in (".ttf", ".otf"))


def read_font(path: Path) -> Font:
    """What the file says of itself.

    Raises:
        FontError: if it is no readable font, names no family or has no Unicode characters, as fonts of symbols.
    """
    from fontTools.ttLib import TTFont

    content = path.read_bytes()
    try:
        with TTFont(BytesIO(content), lazy=True) as file:
            names, glyphs = file["name"], file.getBestCmap()
            family = _name(names, 16, 1)
            style = _name(names, 17, 2) or "Regular"
            licence = _name(names, 13, 14)
    except Exception as error:  # fontTools lets struct's, its own and lookup errors of damaged files through
        raise FontError(f"unreadable ({type(error).__name__})") from error
    if not typeface(family):
        raise FontError("names no family")
    if not glyphs:
        raise FontError("no Unicode characters")
    characters = frozenset(chr(code) for code, glyph in glyphs.items() if glyph != ".notdef")
    return Font(path, family, style, licence, hashlib.sha256(content).hexdigest(), characters)


def _name(names: Any, *numbers: int) -> str:
    """The first entry of the font's table of names that has text, in one line."""
    texts = (" ".join((names.getDebugName(number) or "").split()) for number in numbers)
    return next((text for text in texts if text), "")


def package_of(path: Path) -> tuple[str, Path] | None:
    """The Debian package that a file came with, and the package's file of copyrights; None where it is of no package.

    The file may be installed, or lie in a folder named as the package, into which that was unpacked.
    """
    for folder in path.parents:
        copyrights = folder / "usr/share/doc" / folder.name / "copyright"
        if copyrights.is_file():
            return folder.name, copyrights
    package = _installed().get(str(path))
    return None if package is None else (package, Path("/usr/share/doc") / package / "copyright")


@functools.cache
def _installed() -> dict[str, str]:
    """The package of each installed file of a package of fonts."""
    lists = (path for pattern in ("fonts-*.list", "ttf-*.list") for path in _DPKG.glob(pattern))
    return {line: path.stem.split(":")[0] for path in lists for line in path.read_text(encoding="utf-8").splitlines()}


def licence_of(font: Font) -> str:
    """The licences by the short names in the package's file of copyrights, or else the font's own words, shortened."""
    package = package_of(font.path)
    names = licence_names(package[1].read_text("utf-8", "replace")) if package and package[1].is_file() else []
    return ", ".join(names) or font.licence[:_LONGEST_LICENCE] or "not in the file; see the package's copyright"


def licence_names(copyrights: str) -> list[str]:
    """The short names of licences in Debian's machine-readable format, those of the packaging left out.

    >>> licence_names("Files: *\\nLicense: OFL-1.1\\n\\nFiles: debian/*\\nLicense: GPL-2+\\n text\\n")
    ['OFL-1.1']
    """
    names: dict[str, None] = {}
    for paragraph in re.split(r"\n\s*\n", copyrights):
        fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", paragraph, flags=re.MULTILINE))
        if "Files" in fields and not fields["Files"].startswith("debian/") and fields.get("License"):
            names[fields["License"].strip()] = None
    return list(names)
