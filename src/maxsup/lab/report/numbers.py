"""How the report writes numbers: as many decimals as their spread gives sense to."""

from __future__ import annotations

import math

from maxsup.lab.records import Json

PLUS_MINUS = "±"
NONE = "–"
MINUS = "−"


def digits(spread: float | None, percent: bool) -> int:
    """Decimals that show two significant digits of `spread`, within what a reader can use."""
    least, most = (1, 3) if percent else (3, 5)
    if not spread or not math.isfinite(spread):
        return least + 1
    rounded = float(f"{spread:.1e}")  # 0.99… shows as 1.0, and needs a digit less than 0.98
    return min(most, max(least, 1 - math.floor(math.log10(rounded))))


def scaled(value: float, measure: Json) -> float:
    """The value as shown: percentages for fractions that are shown as such."""
    return 100 * value if measure["percent"] else value


def mean_and_std(entry: Json, measure: Json) -> str:
    """`mean ± std` of a summary's entry; the mean alone for one value; a dash for none."""
    if entry["mean"] is None:
        return NONE
    mean = scaled(entry["mean"], measure)
    if entry["std"] is None:
        return f"{mean:.{digits(None, measure['percent'])}f}"
    std = scaled(entry["std"], measure)
    places = digits(std, measure["percent"])
    return f"{mean:.{places}f} {PLUS_MINUS} {std:.{places}f}"


def signed(of: Json, measure: Json) -> str:
    """The mean of a paired difference with its sign; a dash for none."""
    if of["mean"] is None:
        return NONE
    return _signed(scaled(of["mean"], measure), _places(of, measure))


def interval(of: Json, measure: Json, kind: str = "interval") -> str:
    """`[low, high]` of a paired difference, empty where it has none; `kind`: interval (t) or bootstrap."""
    if of[kind] is None:
        return ""
    low, high = (scaled(x, measure) for x in of[kind])
    places = _places(of, measure)
    return f"[{_signed(low, places)}, {_signed(high, places)}]"


def effect(value: float, of: Json, measure: Json) -> str:
    """A difference without sign, with the decimals of the difference `of`."""
    return f"{scaled(value, measure):.{_places(of, measure)}f}"


def p_value(p: float | None) -> str:
    """A p-value with three or four decimals."""
    if p is None:
        return NONE
    if p < 1e-4:
        return "< 0.0001"
    return f"{p:.4f}" if p < 1e-2 else f"{p:.3f}"


def as_printed(value: Json, measure: Json) -> str:
    """A published mean, and std if it has one: two decimals for percentages, four for the rest, as the paper prints."""
    if value["mean"] is None:
        return NONE
    places = 2 if measure["percent"] else 4
    text = f"{scaled(value['mean'], measure):.{places}f}"
    return text if value["std"] is None else f"{text} {PLUS_MINUS} {scaled(value['std'], measure):.{places}f}"


def plain_signed(value: float, measure: Json) -> str:
    """A difference of published numbers, or from one, with its sign and the paper's decimals."""
    return _signed(scaled(value, measure), 2 if measure["percent"] else 4)


def _signed(value: float, places: int) -> str:
    return f"{value:+.{places}f}".replace("-", MINUS)


def _places(of: Json, measure: Json) -> int:
    return digits(None if of["std"] is None else scaled(of["std"], measure), measure["percent"])
