"""timm: the dense logits that Zipf label smoothing votes with, and a check against smoothing twice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from maxsup.schedules import awaits_step

__all__ = ["DenseLogits", "check_mixup", "collect_dense_logits"]


class DenseLogits:
    """The logits at every position of a model's latest forward pass; made by `collect_dense_logits`."""

    def __init__(self, model: nn.Module) -> None:
        self._model: Any = model
        self._features: Tensor | None = None

    def __call__(self) -> Tensor:
        """(N, K, H, W), or (N, K, P) of a ViT whose patches are no grid, without gradient.

        A second call needs another forward pass.

        Raises:
            RuntimeError: if the model made no forward pass since the last call.
        """
        if self._features is None:
            raise RuntimeError("the model made no forward pass since the dense logits were last taken")
        features, self._features = self._features, None
        with torch.no_grad(), _evaluating(self._model):
            if features.dim() == 3:  # (N, tokens, D), the final norm done
                tokens = features[:, getattr(self._model, "num_prefix_tokens", 0) :]
                logits = torch.as_tensor(self._model.head(self._model.fc_norm(tokens))).movedim(-1, 1)
                grid = getattr(getattr(self._model, "patch_embed", None), "grid_size", None)
                return logits.unflatten(2, grid) if grid and math.prod(grid) == logits.shape[2] else logits
            # Each position as a map of one pixel: pooling it changes nothing, and norms in the head are applied.
            n, channels, height, width = features.shape
            pixels = features.movedim(1, -1).reshape(-1, channels, 1, 1)
            logits = torch.as_tensor(self._model.forward_head(pixels))
            return logits.reshape(n, height, width, -1).movedim(-1, 1)

    def _keep(self, features: Tensor) -> None:
        self._features = features.detach()


@contextmanager
def collect_dense_logits(model: nn.Module) -> Iterator[DenseLogits]:
    """Collects what `model` sees at each position, by a forward hook that is gone afterwards.

    A convolutional network applies its classification head at every position of its last feature map. A ViT has no such
    map: its head is applied to the final-normed patch tokens, which is our choice and not in the publication. Only
    forward passes in training mode are kept.

    Args:
        model: a timm model with a pooling layer over (N, C, H, W), or a timm vision transformer. Not wrapped by DDP.

    Raises:
        TypeError: if the model is neither.

    Example:
        >>> from timm import create_model
        >>> from maxsup import ZipfLabelSmoothingLoss
        >>> model, loss = create_model("resnet10t", num_classes=10), ZipfLabelSmoothingLoss()
        >>> with collect_dense_logits(model) as dense:
        ...     logits = model(torch.zeros(2, 3, 64, 64))
        ...     value = loss(logits, torch.tensor([3, 1]), dense())
        >>> value.shape
        torch.Size([])

    Reference:
        Liang et al., Efficient One Pass Self-distillation with Zipf's Label Smoothing, ECCV 2022.
    """
    dense = DenseLogits(model)
    pool = _pool(model)
    if pool is not None:

        def before_pool(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if module.training:
                dense._keep(inputs[0])

        handle = pool.register_forward_pre_hook(before_pool)
    else:

        def after_norm(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if module.training:
                dense._keep(output)

        handle = _final_norm(model).register_forward_hook(after_norm)
    try:
        yield dense
    finally:
        handle.remove()


def check_mixup(mixup: Any, loss: nn.Module) -> None:
    """Raises if timm's `Mixup` would smooth the labels of a loss that regularises them itself.

    timm's `Mixup` (and `FastCollateMixup`) sets ``label_smoothing=0.1`` unless told otherwise, and timm's training
    script hands it ``--smoothing``, 0.1 too, on top of whatever the loss does. Call this once, before training.

    Args:
        mixup: the `Mixup` object, a loader that collates with one, or None.
        loss: the loss that gets its targets.

    Raises:
        ValueError: if both smooth.

    Example:
        >>> from timm.data import Mixup
        >>> from maxsup import MaxSupCrossEntropyLoss
        >>> check_mixup(Mixup(label_smoothing=0.0), MaxSupCrossEntropyLoss())
        >>> check_mixup(Mixup(), MaxSupCrossEntropyLoss())
        Traceback (most recent call last):
        ...
        ValueError: mixup smooths labels by 0.1 on top of MaxSupCrossEntropyLoss: make it with label_smoothing=0.0
    """
    loader = getattr(mixup, "loader", mixup)  # within timm's PrefetchLoader
    collate = getattr(loader, "collate_fn", None)
    smoothing = max(float(getattr(each, "label_smoothing", 0.0)) for each in (mixup, collate))
    strengths = (float(getattr(loss, name, 0.0)) for name in ("alpha", "label_smoothing", "smoothing"))
    # A schedule with a warm-up starts at 0 and will not stay there.
    regularises = any(strengths) or awaits_step(loss)
    if smoothing != 0.0 and regularises:
        raise ValueError(
            f"mixup smooths labels by {smoothing:g} on top of {type(loss).__name__}: make it with label_smoothing=0.0"
        )


def _pool(model: nn.Module) -> nn.Module | None:
    for owner in (model, getattr(model, "head", None)):
        pool = getattr(owner, "global_pool", None)
        # A pool that is not over (N, C, H, W) says so.
        if isinstance(pool, nn.Module) and str(getattr(pool, "input_fmt", "NCHW")).endswith("NCHW"):
            return pool
    return None


def _final_norm(model: nn.Module) -> nn.Module:
    norm = getattr(model, "norm", None)
    if not (isinstance(norm, nn.Module) and hasattr(model, "fc_norm") and hasattr(model, "num_prefix_tokens")):
        raise TypeError(
            f"model must be a timm model that pools an (N, C, H, W) map or a timm vision transformer, "
            f"got {type(model).__name__}"
        )
    return norm


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, so that the extra pass through the head draws no dropout and updates no statistics."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
