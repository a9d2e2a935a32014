"""Hugging Face Transformers: a loss for `Trainer`, a callback that moves its α, and language models without logits."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import TrainerCallback
from transformers.loss import loss_utils

from maxsup import OnlineLabelSmoothingLoss, ZipfLabelSmoothingLoss
from maxsup.integrations._fused_head import FusedHead, head_of, unwrapped
from maxsup.integrations._schedules import Interval, Schedule, check_schedule
from maxsup.losses.base import Loss
from maxsup.methods.common import Number

__all__ = ["AlphaCallback", "TrainerLoss", "fused_head"]

_IGNORED = -100  # what Trainer leaves out when it counts the items of a batch


class TrainerLoss:
    """A loss of this package as the `compute_loss_func` of `transformers.Trainer`.

    Works for models that classify sequences, images or tokens, masked and causal language models (whose labels it
    shifts, as the models do: the logits at a position predict the next label) and encoder-decoders (whose labels are
    not shifted). Labels of −100 do not count. The sum of the losses is divided by Trainer's `num_items_in_batch`, the
    number of labels in the whole batch, so that it does not matter into how many parts gradient accumulation or
    processes divide it. Evaluation uses the same loss. With class weights the divisor stays the number of labels.

    Args:
        criterion: the loss, with ``reduction="mean"`` and ``ignore_index=-100``. Not `OnlineLabelSmoothingLoss`, whose
            table Trainer's checkpoints do not hold.
        model: the model that is trained, which tells the task; a PEFT model too.
        shift: whether labels are shifted, for models whose task Transformers does not tell.

    Raises:
        TypeError: if `criterion` is no such loss.
        ValueError: if its options do not fit, or if the model's task is no classification with one class each.

    Example:
        >>> from maxsup import MaxSupCrossEntropyLoss
        >>> from transformers import BertConfig, BertForSequenceClassification, Trainer
        >>> config = BertConfig(vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, num_labels=3)
        >>> model = BertForSequenceClassification(config)
        >>> loss = TrainerLoss(MaxSupCrossEntropyLoss(0.1), model)  # Trainer(model, …, compute_loss_func=loss)
        >>> loss({"logits": torch.tensor([[2.0, 1.0, 0.0]])}, torch.tensor([0]), num_items_in_batch=1)
        tensor(0.5076)
    """

    def __init__(self, criterion: nn.Module, model: nn.Module, *, shift: bool | None = None) -> None:
        _check_criterion(criterion)
        self.criterion = criterion
        self.shift = _shifts(unwrapped(model)) if shift is None else shift
        self._head = head_of(model)

    def __call__(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Number | None = None) -> Tensor:
        """The loss of a model's outputs at `labels`, divided by `num_items_in_batch`; None takes those of `labels`.

        Raises:
            TypeError: if `labels` is absent or holds no class indices.
            ValueError: for what would be wrong in silence: an auxiliary loss in the outputs, which Trainer drops where
                it has a loss function, and `DataParallel`.
        """
        if not isinstance(labels, Tensor) or labels.is_floating_point():
            got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
            raise TypeError(f"labels must be a tensor of class indices, got {got}")
        if isinstance(num_items_in_batch, Tensor) and num_items_in_batch.dim():
            raise ValueError(
                "DataParallel scales the loss of a compute_loss_func wrongly: launch with torchrun instead"
            )
        if isinstance(outputs, dict):
            if outputs.get("aux_loss") is not None:
                raise ValueError("the model has an auxiliary loss, which would be lost: set output_router_logits=False")
            logits = outputs["logits"]
        else:
            logits = outputs[0]
        labels = labels.to(logits.device, torch.int64)
        if self.shift:
            labels = F.pad(labels, (0, 1), value=_IGNORED)[..., 1:]
        if isinstance(num_items_in_batch, Tensor):
            num_items_in_batch = num_items_in_batch.to(logits.device)
        fused = None if self._head is None else self._head.__dict__.get("forward")
        if isinstance(fused, FusedHead) and fused.holds_hidden():
            return fused.loss(self.criterion, logits, labels, num_items_in_batch)
        if logits.shape[:-1] != labels.shape:
            raise ValueError(f"labels must have shape {tuple(logits.shape[:-1])}, got {tuple(labels.shape)}")
        # In float32, as the models' own losses are.
        logits = logits.flatten(0, -2).float()
        loss: Tensor = self.criterion(logits, labels.flatten(), num_items=num_items_in_batch)
        return loss


class AlphaCallback(TrainerCallback):  # type: ignore[misc]
    """Moves α with `transformers.Trainer`, and writes it into the log history.

    The schedule follows the numbers of epochs and updates that Trainer's checkpoints hold, so that a resumed run has
    the values of an unbroken one. An epoch's α does not change within it; gradient accumulation counts one update.

    Args:
        schedule: one of `maxsup.schedules` on the criterion of a `TrainerLoss`.
        interval: what the schedule's steps are: ``"epoch"``, or ``"step"`` for optimiser updates.

    Raises:
        TypeError: if `schedule` is none.
        ValueError: if `interval` is unknown, and when training starts if ``label_smoothing_factor`` is set, which
            Trainer ignores beside a `compute_loss_func`.

    Example:
        >>> from maxsup import MaxSupCrossEntropyLoss
        >>> from maxsup.schedules import LinearAlpha
        >>> criterion = MaxSupCrossEntropyLoss()
        >>> callback = AlphaCallback(LinearAlpha(criterion, start=0.1, end=0.2, total_steps=3))  # callbacks=[callback]
    """

    def __init__(self, schedule: Schedule, *, interval: Interval = "epoch") -> None:
        check_schedule(schedule, interval)
        self.schedule = schedule
        self.interval = interval

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Sets α to where training starts."""
        if args.label_smoothing_factor:
            raise ValueError(
                f"Trainer ignores label_smoothing_factor={args.label_smoothing_factor:g} beside a compute_loss_func: "
                f"set it to 0, or take LabelSmoothingCrossEntropyLoss"
            )
        self._move(state)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Sets the epoch's α."""
        self._move(state)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Sets the update's α."""
        if self.interval == "step":
            self._move(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Adds α to training's logs."""
        if logs is not None and "loss" in logs:
            logs["alpha"] = state.log_history[-1]["alpha"] = self.schedule.get_last_alpha()

    def _move(self, state: Any) -> None:
        # A fraction of an epoch is one that has begun.
        self.schedule.move_to(state.global_step if self.interval == "step" else int(state.epoch or 0))


@contextmanager
def fused_head(model: nn.Module) -> Iterator[None]:
    """Within it, a causal language model trains without its logits, by `linear_max_sup_cross_entropy`.

    Memory does not grow with tokens × vocabulary. The result is that of the logits to rounding; where it would not be,
    an error says so. In evaluation and generation the model is as ever. ::

        with fused_head(model):
            trainer.train()

    The first training step checks that the model returns what its last layer gives, unchanged: models that cap or
    scale their logits are refused there. Gradient accumulation, mixed precision, DDP and PEFT (with the last layer
    itself left alone) work; FSDP, DeepSpeed's stage 3 and `torch.compile` do not.

    Args:
        model: the model that Trainer gets, with a `TrainerLoss` of it whose criterion is a `MaxSupCrossEntropyLoss`.

    Raises:
        TypeError: if the model's last layer is not a plain `nn.Linear`.
        ValueError: in training, for what is named above.
    """
    head = head_of(model)
    if type(head) is not nn.Linear:
        raise TypeError(f"the model's last layer must be a plain nn.Linear, got {type(head).__name__}")
    if "forward" in head.__dict__ or head._forward_hooks or head._forward_pre_hooks:
        raise ValueError("the model's last layer has hooks or a forward of its own, which would not see its logits")
    head.__dict__["forward"] = FusedHead(head)
    try:
        yield
    finally:
        del head.__dict__["forward"]


def _check_criterion(criterion: nn.Module) -> None:
    if not isinstance(criterion, Loss):
        raise TypeError(f"criterion must be a loss of maxsup, got {type(criterion).__name__}")
    if isinstance(criterion, OnlineLabelSmoothingLoss):
        raise TypeError("criterion must not be OnlineLabelSmoothingLoss: Trainer's checkpoints do not hold its table")
    if isinstance(criterion, ZipfLabelSmoothingLoss) and criterion.ranking != "logits":
        raise ValueError("criterion must not need dense logits: ZipfLabelSmoothingLoss takes ranking='logits' here")
    if criterion.reduction != "mean":
        raise ValueError(f"criterion must have reduction='mean', got {criterion.reduction!r}")
    if criterion.ignore_index != _IGNORED:
        raise ValueError(f"criterion must have ignore_index={_IGNORED}, as Trainer has, got {criterion.ignore_index}")


def _shifts(model: nn.Module) -> bool:
    """Whether the model's own loss shifts its labels; raises unless the model's task is known and a classification."""
    config, task = getattr(model, "config", None), getattr(model, "loss_type", None)
    own = loss_utils.LOSS_MAPPING.get(task)
    # Some decoders are named as language models and don't shift; those that do call `loss_function`.
    shifting = "loss_function" in inspect.unwrap(type(model).forward).__code__.co_names
    if own is loss_utils.ForCausalLMLoss and getattr(config, "is_encoder_decoder", False):
        return False
    if shifting and own in (None, loss_utils.ForCausalLMLoss):  # None: the default of Transformers' models
        return True
    if own is loss_utils.ForSequenceClassificationLoss:
        problem, classes = getattr(config, "problem_type", None), getattr(config, "num_labels", None)
        if problem in ("regression", "multi_label_classification") or classes == 1:
            raise ValueError(f"model must classify with one class each, got {problem or 'regression'}")
        return False
    if own in (loss_utils.ForMaskedLMLoss, loss_utils.ForTokenClassification):
        return False
    raise ValueError(
        f"model must be one that classifies or models language, and Transformers does not tell what "
        f"{type(model).__name__} (loss_type {task}) does with its labels: if its logits are those of classes, pass "
        f"shift=True where a position's logits predict the next label, else shift=False"
    )
