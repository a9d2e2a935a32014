"""The losses as functions: check the arguments, compute one loss per row, reduce once.

All are cross-entropy plus ``alpha`` times what the method adds, and ``alpha=0`` is
`torch.nn.functional.cross_entropy`. All take `input` (logits), `target` and the keyword arguments as that does; they
are explained at `max_sup_cross_entropy`, and `docs/losses.md` has the semantics that they share.
"""

from maxsup.functional.label_smoothing import (
    LabelSmoothingParts,
    label_smoothing_cross_entropy,
    label_smoothing_error_enhancement_cross_entropy,
    label_smoothing_parts,
    label_smoothing_regularization_cross_entropy,
)
from maxsup.functional.max_sup import linear_max_sup_cross_entropy, max_sup_cross_entropy
from maxsup.functional.online_label_smoothing import online_label_smoothing_cross_entropy
from maxsup.functional.penalties import confidence_penalty_cross_entropy, logit_penalty_cross_entropy
from maxsup.functional.zipf_label_smoothing import zipf_label_smoothing_cross_entropy

__all__ = [
    "LabelSmoothingParts",
    "confidence_penalty_cross_entropy",
    "label_smoothing_cross_entropy",
    "label_smoothing_error_enhancement_cross_entropy",
    "label_smoothing_parts",
    "label_smoothing_regularization_cross_entropy",
    "linear_max_sup_cross_entropy",
    "logit_penalty_cross_entropy",
    "max_sup_cross_entropy",
    "online_label_smoothing_cross_entropy",
    "zipf_label_smoothing_cross_entropy",
]
