"""The scores by which Zipf label smoothing ranks the classes, from what the caller has."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from maxsup._batch import check_choice
from maxsup.methods.zipf import votes


def zipf_scores(input: Tensor, logits: Tensor, dense_logits: Tensor | None, ranking: str, upsample: int) -> Tensor:
    """Votes of the positions, or the rows' own logits if they are asked for by name: (N, K)."""
    check_choice("ranking", ranking, ("dense", "logits"))
    if ranking == "logits":
        if dense_logits is not None:
            raise ValueError("dense_logits must be None with ranking='logits', got a tensor")
        return logits.detach()
    if not isinstance(dense_logits, Tensor):
        raise TypeError(
            f"dense_logits must be a tensor (or ask for ranking='logits' by name), got {type(dense_logits).__name__}"
        )
    if input.dim() > 2:
        raise ValueError(
            f"input must have shape (C,) or (N, C) where positions vote, got {tuple(input.shape)}: a dense input has "
            f"no map per sample; ranking='logits' takes it"
        )
    if dense_logits.dim() <= input.dim() or dense_logits.shape[: input.dim()] != input.shape:
        raise ValueError(
            f"dense_logits must have shape {tuple(input.shape)} followed by its positions, "
            f"got {tuple(dense_logits.shape)}"
        )
    if isinstance(upsample, bool) or not isinstance(upsample, int) or upsample < 1:
        raise ValueError(f"upsample must be a whole number of at least 1, got {upsample!r}")
    dense = dense_logits.detach().reshape(*logits.shape, *dense_logits.shape[input.dim() :])
    if upsample > 1:
        if dense.dim() != 4:
            raise ValueError(
                f"upsample needs dense_logits with two position dimensions, got shape {tuple(dense_logits.shape)}"
            )
        dense = F.interpolate(dense, scale_factor=upsample, mode="bilinear")
    return votes(dense.flatten(2))
