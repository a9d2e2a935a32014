"""The last layer of a language model that hands on its input while the model trains; the loss makes the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maxsup import MaxSupCrossEntropyLoss
from maxsup.functional import linear_max_sup_cross_entropy
from maxsup.methods.common import Number


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, of a PEFT model."""
    base = getattr(model, "get_base_model", None)
    return base() if callable(base) else model


def head_of(model: nn.Module) -> nn.Module | None:
    """The layer that makes a language model's logits; None of other models."""
    find = getattr(unwrapped(model), "get_output_embeddings", None)
    head = find() if callable(find) else None
    return head if isinstance(head, nn.Module) else None


class FusedHead:
    """In place of the `forward` of a linear layer; `loss` computes what its logits would have given."""

    def __init__(self, head: nn.Linear) -> None:
        self.head = head
        self.shape = head.weight.shape
        self._checked = False
        self._taken: tuple[torch.dtype, torch.dtype | None] | None = None
        self._input: Tensor | None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        """The hidden states in training, the logits elsewhere."""
        head = self.head
        if not (head.training and torch.is_grad_enabled()):
            self._taken = None
            return F.linear(hidden, head.weight, head.bias)
        if torch.compiler.is_compiling():
            raise ValueError("the fused head does not work within torch.compile: train with the logits")
        device = hidden.device.type
        self._taken = hidden.dtype, torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        if not self._checked:
            self._input = hidden.detach()
        passed: Tensor = _Through.apply(hidden, head.weight, head.bias)
        return passed

    def holds_hidden(self) -> bool:
        """Whether the last forward pass gave hidden states."""
        return self._taken is not None

    def loss(self, criterion: nn.Module, hidden: Tensor, labels: Tensor, num_items: Number | None) -> Tensor:
        """The loss of what the model returned for its logits."""
        assert self._taken is not None
        dtype, autocast = self._taken
        self._taken = None
        if type(criterion) is not MaxSupCrossEntropyLoss:
            raise TypeError(f"the fused head needs a MaxSupCrossEntropyLoss, got {type(criterion).__name__}")
        weight, bias = self.head.weight, self.head.bias
        if type(weight) is not nn.Parameter or weight.shape != self.shape:
            raise ValueError("the last layer's weight is sharded, which the fused head does not gather: use the logits")
        self._check(hidden)
        if hidden.shape[:-1] != labels.shape:
            raise ValueError(f"labels must have shape {tuple(hidden.shape[:-1])}, got {tuple(labels.shape)}")
        # The products in the type that the layer would have had; autocast makes the loss float32 in any case.
        compute = autocast or (dtype if dtype.itemsize == 2 else None)
        with torch.autocast(hidden.device.type, dtype=compute, enabled=compute is not None):
            return linear_max_sup_cross_entropy(
                hidden.to(dtype),
                weight,
                labels,
                criterion.alpha,
                bias,
                class_weight=criterion.weight,
                label_smoothing=criterion.label_smoothing,
                num_items=num_items,
                impl=criterion.impl,
            )

    def _check(self, returned: Tensor) -> None:
        """Raises, once, unless the model returned what this layer gave, its type aside."""
        if self._checked:
            return
        given, self._input = self._input, None
        assert given is not None
        same = given.shape == returned.shape
        if not (same and torch.allclose(returned.detach().to(given.dtype), given, rtol=0.0, atol=0.0, equal_nan=True)):
            raise ValueError(
                "the model changes its logits after the last layer (caps, scales or cuts them), which the fused head "
                "cannot follow: train with the logits"
            )
        self._checked = True


class _Through(torch.autograd.Function):
    """Its first argument, in a graph that reaches the weights: DDP looks there for the parameters that are used."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        return upstream[0], None, None
