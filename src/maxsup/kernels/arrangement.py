"""How logits lie in memory, as the kernels read them: rows of adjacent classes, or planes of adjacent pixels."""

from __future__ import annotations

from torch import Tensor

from maxsup._batch import rows as rows_of

LEAST_PIXELS = 64  # of an image, or a plane has too few to be read at once


def arranged(input: Tensor) -> Tensor:
    """(C,), (N, C) or (N, C, d1, …) as rows (N·d1·…, C) or as planes (images, C, pixels), a view where there is one.

    Rows are read where the classes are adjacent (channels_last), and else planes where the pixels are and there are at
    least `LEAST_PIXELS`; everything else is copied to rows.
    """
    if input.dim() == 1 or input.shape[1] == 1 or input.stride(1) == 1:
        return _with_adjacent_classes(rows_of(input))
    pixels = _adjacent_pixels(input)
    if pixels is not None and pixels >= LEAST_PIXELS:
        return _planes(input)
    return _with_adjacent_classes(rows_of(input))


def arranged_like(logits: Tensor, soft: Tensor) -> Tensor:
    """Probabilities in the arrangement of what `arranged` made of the logits, a copy where they lie otherwise."""
    if logits.dim() == 2:
        return _with_adjacent_classes(rows_of(soft))
    planes = _planes(soft)
    return planes if planes.stride(2) == 1 else planes.contiguous()


def rows_in(logits: Tensor) -> int:
    """The number of rows, of either arrangement."""
    return logits.shape[0] if logits.dim() == 2 else logits.shape[0] * logits.shape[2]


def _with_adjacent_classes(rows: Tensor) -> Tensor:
    return rows if rows.stride(1) == 1 or rows.shape[1] == 1 else rows.contiguous()


def _planes(input: Tensor) -> Tensor:
    return input.t().unsqueeze(0) if input.dim() == 2 else input.flatten(2)


def _adjacent_pixels(input: Tensor) -> int | None:
    """The number of pixels of an image if each comes after the one before, with no gap; N is that of a matrix."""
    dims = [0] if input.dim() == 2 else range(input.dim() - 1, 1, -1)
    count = 1
    for dim in dims:
        if input.shape[dim] != 1 and input.stride(dim) != count:
            return None
        count *= input.shape[dim]
    return count
