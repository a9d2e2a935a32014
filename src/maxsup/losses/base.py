"""What all the losses have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from maxsup._batch import REDUCTIONS, check_choice, check_number, check_weight
from maxsup.kernels.choice import IMPLEMENTATIONS


class Loss(nn.Module):
    """`alpha`, `weight`, `ignore_index` and `reduction`, which all losses have.

    `alpha` is a 0-dim buffer, because a compiled step reads it at run time: a new value recompiles nothing, and
    `state_dict` has it. Assigning a number (``loss.alpha = 0.2``) checks it and writes into the buffer.
    """

    bounds: ClassVar[dict[str, float]] = {
        "alpha": math.inf
    }  # numbers in buffers: the highest accepted; the lowest is 0
    exact: ClassVar[tuple[str, ...]] = ("alpha",)  # buffers that are never cast to 16 bits
    alpha: Tensor
    weight: Tensor | None

    def __init__(
        self,
        alpha: float,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        impl: str = "auto",
        inplace: bool = False,
    ) -> None:
        super().__init__()
        check_choice("reduction", reduction, REDUCTIONS)
        check_choice("impl", impl, IMPLEMENTATIONS)
        check_number("alpha", alpha, high=self.bounds["alpha"])
        self.register_buffer("alpha", torch.tensor(float(alpha)))
        self.register_buffer("weight", None if weight is None else check_weight(weight))
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.impl = impl
        self.inplace = inplace

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.bounds and not isinstance(value, Tensor):
            value = check_number(name, value, high=self.bounds[name])
            buffer = self._buffers[name]
            assert buffer is not None
            buffer.fill_(value)
        else:
            super().__setattr__(name, value)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Loss:
        """As of every module, but `half()` and `bfloat16()` leave the numbers in float32, where schedules need them."""
        before = {name: buffer for name, buffer in self._buffers.items() if name in self.exact and buffer is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in before.items():
            now = self._buffers[name]
            if now is not None and now.dtype.itemsize < buffer.dtype.itemsize:
                self._buffers[name] = buffer.to(now.device)
        return self

    def _options(self) -> dict[str, Any]:
        return {"weight": self.weight, "ignore_index": self.ignore_index, "reduction": self.reduction}

    def _implementation(self) -> dict[str, Any]:
        """The options of the losses that the kernel knows."""
        return {"impl": self.impl, "inplace": self.inplace}

    def extra_repr(self) -> str:
        """The numbers, and the options that differ from their defaults."""
        numbers = {name: getattr(self, name) for name in self.bounds}
        parts = [f"{name}={'…' if number.is_meta else f'{float(number):g}'}" for name, number in numbers.items()]
        if self.weight is not None:
            parts.append(f"weight=<{len(self.weight)} classes>")
        if self.ignore_index != -100:
            parts.append(f"ignore_index={self.ignore_index}")
        if self.reduction != "mean":
            parts.append(f"reduction={self.reduction!r}")
        if self.impl != "auto":
            parts.append(f"impl={self.impl!r}")
        if self.inplace:
            parts.append("inplace=True")
        return ", ".join(parts)
