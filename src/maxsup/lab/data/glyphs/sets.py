"""The two sets: which characters are classes, and how many of them a font must draw."""

from __future__ import annotations

import string
from dataclasses import dataclass

BASE = string.digits + string.ascii_uppercase + string.ascii_lowercase

# Letters that at least 80 of the typefaces of Debian's packages in docs/glyphs-packages.txt draw, homoglyphs left out:
# those whose image correlates above 0.97, in the median font, with that of a letter before them (Greek Α,
# Cyrillic А, Latin Đ beside Ð).
_LATIN = (
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿĀāĂăĄąĆćĈĉĊċČčĎďđĒēĔĕĖėĘęĚěĜĝĞğĠġĢģĤĥĦħĨĩĪīĬĭĮįİıĲĳ"
    "ĴĵĶķĸĹĺĻļĽľĿŀŁłŃńŅņŇňŉŊŋŌōŎŏŐőŒœŔŕŖŗŘřŚśŜŝŞşŠšŢţŤťŦŧŨũŪūŬŭŮůŰűŲųŴŵŶŷŸŹźŻżŽžſƒƠơƯưǺǻǼǽǾǿȘșȚțȷ"
)
_GREEK = "ΆΈΉΊΌΎΏΐΓΔΘΛΞΠΣΦΨΩάέήίΰαβγδεζηθιλμνξπρςστυφχψωϊϋόύώ"
_CYRILLIC = "ЂЃЄЉЊЋЌЎЏБДЖЗИЙКЛУЦЧШЩЪЫЬЭЮЯбвгджзийклмнптфцчшщъыьэюяђѓєљњќўџҐґ"
_LATIN_ADDITIONAL = "ẀẁẂẃẄẅẠạẢảẤấẦầẪẫẬậẮắẰằẴẵẶặẸẹẼẽẾếỀềỄễỆệỈỉỊịỌọỎỏỐốỒồỖỗỘộỤụỦủỲỳỴỵỶỷỸỹ"


@dataclass(frozen=True)
class GlyphSet:
    """A set: its classes are `characters`; a font is taken if it draws the share `coverage` of them."""

    name: str
    characters: str
    coverage: float


GLYPH_SETS = {
    "glyphs": GlyphSet("glyphs", BASE, 1.0),
    "glyphs-large": GlyphSet("glyphs-large", BASE + _LATIN + _GREEK + _CYRILLIC + _LATIN_ADDITIONAL, 0.5),
}
