"""From a caller's arguments to rows (N, K), and from one loss per row to what the caller asked for.

The one place that owns shapes, dtypes, `weight`, `ignore_index`, `reduction` and `num_items`.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from maxsup.methods.common import Number, cross_entropy, readable

REDUCTIONS = ("mean", "sum", "none")


class Batch(NamedTuple):
    """A checked batch: every sample (every position of a dense input) is a row."""

    logits: Tensor  # (N, K), float32 or float64
    target: Tensor  # (N,) class indices, 0 in ignored rows; or (N, K) probabilities
    keep: Tensor | None  # (N,) False in ignored rows; None if there are certainly none
    weight: Tensor | None  # (K,) class weights
    shape: torch.Size  # of the loss at reduction="none"
    dtype: torch.dtype  # of the loss

    @property
    def probabilities(self) -> bool:
        """Whether the target holds a probability per class."""
        return self.target.dim() == 2

    def cross_entropy(self, log_q: Tensor) -> Tensor:
        """Cross-entropy per row; class weights act inside the sum for probability targets, as in PyTorch."""
        if self.probabilities and self.weight is not None:
            return cross_entropy(log_q, self.target * self.weight)
        return cross_entropy(log_q, self.target)

    def row_weights(self) -> Tensor | None:
        """The weight of each row's whole loss, for class indices: the weight of its class."""
        if self.probabilities or self.weight is None:
            return None
        return self.weight[self.target]

    def weigh(self, loss: Tensor) -> Tensor:
        """`loss` times the row weights."""
        weights = self.row_weights()
        return loss if weights is None else loss * weights

    def reduce(self, loss: Tensor, reduction: str, num_items: Number | None) -> Tensor:
        """Reduces the weighed loss per row; the mean divides by the weights of the rows that count."""
        if self.keep is not None:
            loss = torch.where(self.keep, loss, 0.0)
        if reduction == "none":
            return loss.reshape(self.shape).to(self.dtype)
        if num_items is not None:
            return (loss.sum() / num_items).to(self.dtype)
        if reduction == "sum":
            return loss.sum().to(self.dtype)
        weights = self.row_weights()
        if weights is None and self.keep is None:
            mean = loss.mean()
            return mean if mean.dtype == self.dtype else mean.to(self.dtype)
        if weights is None:
            assert self.keep is not None
            weights = self.keep
        elif self.keep is not None:
            weights = torch.where(self.keep, weights, 0.0)
        return (loss.sum() / weights.sum()).to(self.dtype)


def prepare(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    num_items: Number | None,
    *,
    probabilities: bool = True,
) -> Batch:
    """Checks the arguments that every function has in common and flattens the batch to rows."""
    checked = check(input, target, weight, ignore_index, reduction, num_items, probabilities=probabilities)
    dtype = torch.float32 if input.dtype in (torch.float16, torch.bfloat16) else input.dtype
    logits = rows(input).to(dtype)
    if weight is not None:
        weight = weight.to(device=logits.device, dtype=dtype)
    keep = None
    if checked.probabilities:
        target_rows = rows(target)
    else:
        flat = target if target.dim() == 1 else target.reshape(-1)
        target_rows, keep = indices(flat.long(), ignore_index, checked.classes)
    return Batch(logits, target_rows, keep, weight, checked.shape, checked.dtype)


class Checked(NamedTuple):
    """What the arguments say once they are found to fit together."""

    classes: int
    probabilities: bool
    shape: torch.Size  # of the loss at reduction="none"
    dtype: torch.dtype  # of the loss


def check(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    num_items: Number | None,
    *,
    probabilities: bool = True,
) -> Checked:
    """Raises unless the arguments fit together; of the values only what costs nothing is read."""
    _check_options(ignore_index, reduction, num_items)
    _check_logits(input)
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a tensor, got {type(target).__name__}")
    classes = input.shape[0] if input.dim() == 1 else input.shape[1]
    if classes == 0:
        raise ValueError(f"input must have at least one class, got shape {tuple(input.shape)}")
    if weight is not None:
        check_weight(weight, classes)
    soft = target.shape == input.shape
    if soft:
        if not probabilities:
            raise ValueError(
                f"target must hold class indices: this loss has no definition for probabilities of shape "
                f"{tuple(target.shape)}"
            )
        _check_probabilities(target, ignore_index)
        shape = _sample_shape(input)
        dtype = torch.promote_types(input.dtype, target.dtype)
        if weight is not None:
            dtype = torch.promote_types(dtype, weight.dtype)
    else:
        _check_indices(input, target)
        shape = target.shape if input.dim() > 1 else torch.Size()
        dtype = input.dtype
    if dtype in (torch.float16, torch.bfloat16) and torch.is_autocast_enabled(input.device.type):
        dtype = torch.float32  # as autocast does for cross_entropy
    return Checked(classes, soft, shape, dtype)


N = TypeVar("N", bound=Number)


def check_number(name: str, value: N, low: float = 0.0, high: float = math.inf) -> N:
    """Raises unless `value` is a finite number in [low, high] or a 0-dim tensor of one, read where that is free.

    Returns it; a number of another library, as NumPy's float32, as a float.
    """
    if isinstance(value, Tensor):
        if value.dim() != 0:
            shape = tuple(value.shape)
            raise ValueError(f"{name} must be {_accepted(low, high)} or a 0-dim tensor, got a tensor of shape {shape}")
        if readable(value):
            check_number(name, float(value.detach()), low, high)
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | Real):
        raise TypeError(f"{name} must be {_accepted(low, high)} or a 0-dim tensor, got {value!r}")
    value = value if isinstance(value, int | float) else cast(N, float(value))
    if not (low <= value <= high and value < math.inf):  # a compiler that traces symbolic numbers has no isfinite
        raise ValueError(f"{name} must be {_accepted(low, high)}, got {value}")
    return value


def _accepted(low: float, high: float) -> str:
    # Made only where it is raised: a compiler that traces symbolic numbers cannot format them.
    return f"a number of at least {low:g}" if high == math.inf else f"a number from {low:g} to {high:g}"


def check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    """Raises unless `value` is one of `accepted`."""
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r}")


def check_weight(weight: Tensor, classes: int | None = None) -> Tensor:
    """Raises unless `weight` is a vector of finite class weights."""
    expected = "one finite weight per class" if classes is None else f"one finite weight for each of {classes} classes"
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight must be a tensor with {expected}, got {type(weight).__name__}")
    if not weight.is_floating_point():
        raise TypeError(f"weight must be a floating-point tensor with {expected}, got {weight.dtype}")
    if weight.dim() != 1 or (classes is not None and weight.shape[0] != classes):
        raise ValueError(f"weight must have {expected}, got shape {tuple(weight.shape)}")
    if readable(weight) and not bool(weight.isfinite().all()):
        bad = int((~weight.isfinite()).nonzero()[0])
        raise ValueError(f"weight must have {expected}, got {float(weight[bad])} for class {bad}")
    return weight


def _check_options(ignore_index: int, reduction: str, num_items: Number | None) -> None:
    if not isinstance(ignore_index, int | Integral):
        raise TypeError(f"ignore_index must be an integer, got {ignore_index!r}")
    check_choice("reduction", reduction, REDUCTIONS)
    if num_items is None:
        return
    if reduction != "mean":
        raise ValueError(f"num_items takes the place of the mean's divisor: reduction must be mean, got {reduction!r}")
    num_items = check_number("num_items", num_items)
    if not isinstance(num_items, Tensor) and num_items == 0:
        raise ValueError("num_items must be above 0, got 0")


def _check_logits(input: Tensor) -> None:
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a tensor of logits, got {type(input).__name__}")
    if not input.is_floating_point():
        raise TypeError(f"input must hold floating-point logits, got {input.dtype}")
    if input.dim() == 0:
        raise ValueError("input must have shape (C,), (N, C) or (N, C, d1, …), got a 0-dim tensor")


def _check_probabilities(target: Tensor, ignore_index: int) -> None:
    if not target.is_floating_point():
        raise TypeError(
            f"target has the shape of input {tuple(target.shape)} and must then hold floating-point probabilities, "
            f"got {target.dtype}"
        )
    if ignore_index >= 0:
        raise ValueError(f"ignore_index is defined for class indices only, got {ignore_index} with probability targets")


def _check_indices(input: Tensor, target: Tensor) -> None:
    expected = input.shape[:1] + input.shape[2:] if input.dim() > 1 else torch.Size()
    if target.shape != expected and not (input.dim() == 1 and target.shape == (1,)):
        raise ValueError(
            f"target must have shape {tuple(expected)} (class indices) or {tuple(input.shape)} (probabilities) for "
            f"input of shape {tuple(input.shape)}, got {tuple(target.shape)}"
        )
    if target.dtype not in (torch.int64, torch.uint8):
        raise TypeError(f"target must hold class indices as torch.int64 or torch.uint8, got {target.dtype}")


def indices(target: Tensor, ignore_index: int, classes: int) -> tuple[Tensor, Tensor | None]:
    """The indices with 0 in ignored rows, and the mask of the rows to keep."""
    if readable(target) and target.numel():
        smallest, largest = target.aminmax()
        low, high = int(smallest), int(largest)
        if low >= 0 and high < classes and not low <= ignore_index <= high:
            return target, None
    keep = target != ignore_index
    kept = torch.where(keep, target, 0)
    if readable(target):
        wrong = ((kept < 0) | (kept >= classes)).nonzero()
        if len(wrong):
            # The type that cross_entropy raises.
            raise IndexError(
                f"target must hold class indices from 0 to {classes - 1}, or {ignore_index} (ignore_index), "
                f"got {int(kept[wrong[0, 0]])}"
            )
    return kept, keep


def rows(tensor: Tensor) -> Tensor:
    """(C,), (N, C) or (N, C, d1, …) -> (N·d1·…, C)."""
    if tensor.dim() == 2:
        return tensor
    if tensor.dim() == 1:
        return tensor.unsqueeze(0)
    return tensor.movedim(1, -1).reshape(-1, tensor.shape[1])


def _sample_shape(input: Tensor) -> torch.Size:
    return torch.Size() if input.dim() == 1 else input.shape[:1] + input.shape[2:]
