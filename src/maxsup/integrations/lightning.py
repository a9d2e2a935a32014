"""Lightning: a callback that moves α with the trainer and logs it with what MaxSup acts on."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from maxsup.integrations._schedules import Interval, Schedule, check_schedule
from maxsup.metrics import diagnostics as measure

__all__ = ["AlphaCallback"]


class AlphaCallback(Callback):  # type: ignore[misc]
    """Moves α with `lightning.Trainer`, and logs it beside `maxsup.metrics.diagnostics` of the training batches.

    The schedule follows the numbers of epochs and updates that Lightning's checkpoints hold, so that a resumed run has
    the values of an unbroken one. Logged are ``maxsup/alpha``, ``maxsup/penalty``, ``maxsup/top1_gap`` and
    ``maxsup/wrong_top1``, in training, of this process's batch.

    Args:
        schedule: one of `maxsup.schedules`, on a loss that is an attribute of the `LightningModule`.
        interval: what the schedule's steps are: ``"epoch"``, or ``"step"`` for optimiser updates
            (``trainer.global_step``, which counts those of all optimisers).
        diagnostics: False to log α alone. The diagnostics pass over the logits a few times and make the host wait for
            nothing; under `torch.compile` there are none.

    Raises:
        TypeError: if `schedule` is none.
        ValueError: if `interval` is unknown, and when training starts if the module does not have the schedule's loss.

    Example:
        >>> from maxsup import MaxSupCrossEntropyLoss
        >>> from maxsup.schedules import LinearAlpha
        >>> criterion = MaxSupCrossEntropyLoss()  # model.criterion in practice
        >>> callback = AlphaCallback(LinearAlpha(criterion, start=0.1, end=0.2, total_steps=3))  # callbacks=[callback]
    """

    def __init__(self, schedule: Schedule, *, interval: Interval = "epoch", diagnostics: bool = True) -> None:
        check_schedule(schedule, interval)
        self.schedule = schedule
        self.interval = interval
        self.diagnostics = diagnostics
        self._step: int | None = None
        self._latest: dict[str, Tensor] = {}
        self._hook: Any = None

    def on_fit_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Looks for the loss, and starts to watch what it is called with."""
        loss = self.schedule.loss
        if not any(module is loss for module in pl_module.modules()):
            raise ValueError(
                f"the schedule's {type(loss).__name__} is no attribute of {type(pl_module).__name__}: moving its alpha "
                f"would change nothing there"
            )
        self._step = None
        self._unhook()
        if self.diagnostics:
            self._hook = loss.register_forward_hook(self._observe, with_kwargs=True)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Sets α where a new step begins."""
        step = trainer.global_step if self.interval == "step" else trainer.current_epoch
        if step != self._step:
            self.schedule.move_to(step)
            self._step = step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Logs."""
        values = {"alpha": self.schedule.get_last_alpha(), **self._latest}
        self._latest = {}
        pl_module.log_dict({f"maxsup/{name}": value for name, value in values.items()})

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Leaves the loss as it was."""
        self._unhook()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leaves the loss as it was."""
        self._unhook()

    def _observe(self, loss: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], value: Tensor) -> None:
        if torch.compiler.is_compiling() or not (loss.training and torch.is_grad_enabled()):
            return
        given = {**dict(zip(("input", "target"), args, strict=False)), **kwargs}
        self._latest = measure(given["input"], given["target"], ignore_index=getattr(loss, "ignore_index", -100))

    def _unhook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
