"""What the kernels add to the cross-entropy."""

from __future__ import annotations

from typing import NamedTuple

from maxsup.methods.common import Number


class Terms(NamedTuple):
    """Strengths of what is added to the cross-entropy; None leaves a term out of the kernel."""

    max_sup: Number | None = None
    smoothing: Number | None = None
    penalty: Number | None = None
    z_loss: Number | None = None
    strict: bool = False  # smoothing over all classes, as PyTorch's, so that an absent one makes the loss inf
