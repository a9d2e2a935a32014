"""One training run: recipe, method and seed in, a folder of records out; resumable at every epoch."""

from __future__ import annotations

import dataclasses
import fcntl
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import set_seed
from safetensors.torch import save_file
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from maxsup import OnlineLabelSmoothingLoss, schedules
from maxsup.integrations.timm import DenseLogits, collect_dense_logits
from maxsup.lab import data as datasets
from maxsup.lab import environment, evaluate, models, records
from maxsup.lab.methods import METHODS
from maxsup.lab.names import lookup
from maxsup.lab.recipes import Alpha, Recipe, as_json
from maxsup.lab.records import Json, RecordError

OnEpoch = Callable[[Json], None]


@contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    """Holds the run's folder, so that two processes never write into one run, and clears what a killed one left."""
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RecordError(f"{directory}: another process is training this run") from error
        records.remove_temporary(directory)
        yield
    finally:
        os.close(handle)


@contextmanager
def _reproducible(threads: int, on_cpu: bool) -> Iterator[None]:
    """Sets what makes a seed give one result, and restores it."""
    before = torch.get_num_threads(), torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    if on_cpu:
        torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[1:]


def alpha_schedule(loss: nn.Module, alpha: Alpha, epochs: int) -> Any:
    """The recipe's schedule over `loss.alpha`, one step an epoch."""
    if alpha.schedule == "constant":
        return schedules.ConstantAlpha(loss, alpha.start)
    kind = schedules.LinearAlpha if alpha.schedule == "linear" else schedules.CosineAlpha
    return kind(loss, start=alpha.start, end=alpha.end, total_steps=epochs)


def _seed(seed: int, part: int) -> int:
    """The seed of a run's weights (part 0) or of its epoch `part - 1`; below NumPy's limit of 2³²."""
    return (seed * 100_003 + part) % 2**32


@dataclass
class _Run:
    """What a run carries from epoch to epoch; `state_dict` of it is the checkpoint."""

    method: str
    model: nn.Module
    optimizer: Any
    scheduler: Any
    loss: nn.Module
    alpha: Any | None
    epoch: int = 0
    history: list[Json] = field(default_factory=list)
    selected: dict[str, Tensor] = field(default_factory=dict)
    selected_epoch: int = -1
    best: float = -math.inf

    def state_dict(self) -> Json:
        return {
            "epoch": self.epoch,
            "history": self.history,
            "selected": self.selected,
            "selected_epoch": self.selected_epoch,
            "best": self.best,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loss": self.loss.state_dict(),
            "alpha": None if self.alpha is None else self.alpha.state_dict(),
        }

    def load_state_dict(self, state: Json) -> None:
        for name in ("epoch", "history", "selected", "selected_epoch", "best"):
            setattr(self, name, state[name])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loss.load_state_dict(state["loss"])
        if self.alpha is not None:
            self.alpha.load_state_dict(state["alpha"])


def _train_epoch(
    run: _Run, data: datasets.DataSet, recipe: Recipe, seed: int, accelerator: Accelerator
) -> tuple[float, float]:
    """One pass over the training images; returns mean loss and accuracy on the augmented images."""
    # Seeding each epoch by its number, with no generator that lives on, makes a resumed run equal an unbroken one.
    epoch_seed = _seed(seed, run.epoch + 1)
    set_seed(epoch_seed)
    run.model.train()
    run.loss.train()
    total = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    steps = 0
    network = cast(models.Classifier, accelerator.unwrap_model(run.model)).backbone
    updates_per_epoch = math.ceil(len(data.train) / recipe.batch_size)
    with collect_dense_logits(network) if METHODS[run.method].dense else nullcontext() as dense:
        for images, labels in datasets.training_batches(
            data.train, recipe.data, recipe.batch_size, seed=epoch_seed, device=accelerator.device
        ):
            run.scheduler.step_update(run.epoch * updates_per_epoch + steps)
            logits = run.model(images.contiguous(memory_format=torch.channels_last))
            loss = run.loss(logits, labels) if dense is None else run.loss(logits, labels, _dense(dense, accelerator))
            accelerator.backward(loss)
            run.optimizer.step()
            run.optimizer.zero_grad()
            # Sums stay on the device: the host reads them once an epoch.
            total += torch.stack([loss.detach().double(), (logits.argmax(1) == labels).double().mean()])
            steps += 1
    if isinstance(run.loss, OnlineLabelSmoothingLoss):
        run.loss.next_epoch()
    mean_loss, accuracy = (total / steps).tolist()
    return mean_loss, accuracy


def _dense(dense: DenseLogits, accelerator: Accelerator) -> Tensor:
    with accelerator.autocast():
        return dense().float()


def _finish(run: _Run, data: datasets.DataSet, directory: Path, accelerator: Accelerator) -> Json:
    """Tests the selected weights, writes outputs and weights, and returns the measures per split."""
    model = cast(models.Classifier, accelerator.unwrap_model(run.model))
    model.load_state_dict(run.selected)
    tensors: dict[str, Tensor] = {}
    measured = {}
    for name in ("train", "validation", "test"):
        out = evaluate.outputs(model, getattr(data, name), accelerator.device)
        measured[name] = evaluate.measures(out)
        if name != "train":  # the training split's outputs are large, and the weights give them back
            tensors |= {f"{name}.{part}": getattr(out, part).cpu() for part in ("features", "logits", "labels")}
    with records.replacing(directory / "outputs.safetensors") as path:
        save_file(tensors, path)
    with records.replacing(directory / "model.safetensors") as path:
        save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()}, path)
    return measured


class _Checkpoint:
    """Writes the state after each epoch; where writing is slow, in a tenth of the time at most."""

    SLOW_SECONDS = 0.1

    def __init__(self, path: Path) -> None:
        self.path = path
        self.due = 0.0

    def write(self, run: _Run) -> None:
        begin = time.monotonic()
        if begin < self.due:
            return
        with records.replacing(self.path) as path:
            torch.save(run.state_dict(), path)
        took = time.monotonic() - begin
        self.due = time.monotonic() + 9 * took if took > self.SLOW_SECONDS else 0.0


def _load_checkpoint(path: Path, run: _Run, device: torch.device) -> None:
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise RecordError(f"{path}: unreadable checkpoint; delete it to start this run anew ({error})") from error
    run.load_state_dict(state)
    # The checkpoint may be older or, by a kill between the two writes, newer than the lines.
    records.write_json_lines(path.parent / "metrics.jsonl", run.history)


def _build(recipe: Recipe, method: str, seed: int, data: datasets.DataSet, accelerator: Accelerator) -> _Run:
    set_seed(_seed(seed, 0))
    network = models.build(recipe.model, data.channels, data.num_classes)
    model = models.Classifier(network, *data.mean_and_std()).to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(
        model,
        opt=recipe.optimizer.name,
        lr=recipe.optimizer.lr,
        weight_decay=recipe.optimizer.weight_decay,
        momentum=recipe.optimizer.momentum,
    )
    updates_per_epoch = math.ceil(len(data.train) / recipe.batch_size)
    warmup = min(recipe.optimizer.warmup_epochs, recipe.epochs - 1)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=recipe.epochs,
        warmup_epochs=warmup,
        warmup_lr=recipe.optimizer.lr / 100,
        min_lr=0.0,
        step_on_epochs=False,
        updates_per_epoch=updates_per_epoch,
    )
    how = METHODS[method]
    loss = how.build(recipe.alpha.start, data.num_classes).to(accelerator.device)
    alpha = alpha_schedule(loss, recipe.alpha, recipe.epochs) if how.scheduled else None
    prepared_model, prepared_optimizer = accelerator.prepare(model, optimizer)
    return _Run(method, prepared_model, prepared_optimizer, scheduler, loss, alpha)


def _accelerator() -> Accelerator:
    # Accelerate keeps its state for the whole process; a worker makes several runs in one.
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    cuda = torch.cuda.is_available()
    accelerator = Accelerator(mixed_precision="bf16" if cuda else "no", cpu=not cuda)
    if accelerator.num_processes > 1:
        raise ValueError(f"a run trains in one process; this launch has {accelerator.num_processes}")
    return accelerator


def _epochs(
    run: _Run,
    data: datasets.DataSet,
    recipe: Recipe,
    seed: int,
    directory: Path,
    accelerator: Accelerator,
    on_epoch: OnEpoch | None,
) -> bool:
    """Trains to the recipe's last epoch; False if the loss stopped being finite."""
    model = cast(models.Classifier, accelerator.unwrap_model(run.model))
    checkpoint = _Checkpoint(directory / "checkpoint.pt")
    while run.epoch < recipe.epochs:
        begin = time.perf_counter()
        train_loss, train_accuracy = _train_epoch(run, data, recipe, seed, accelerator)
        if not math.isfinite(train_loss):
            return False
        # In the precision of training: full precision took as long as the epoch, and the end measures with it anyway.
        with accelerator.autocast():
            out = evaluate.outputs(model, data.validation, accelerator.device)
        accuracy = float((out.logits.argmax(1) == out.labels).double().mean())
        row = {
            "epoch": run.epoch,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "validation_nll": records.finite(nn.functional.cross_entropy(out.logits.double(), out.labels)),
            "validation_accuracy": accuracy,
            "learning_rate": run.optimizer.param_groups[0]["lr"],
            "alpha": None if run.alpha is None else float(run.alpha.get_last_alpha()),
            "seconds": time.perf_counter() - begin,
        }
        if recipe.selection == "last" or accuracy >= run.best:
            run.best, run.selected_epoch = accuracy, run.epoch
            run.selected = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if run.alpha is not None:
            run.alpha.step()
        run.history.append(row)
        run.epoch += 1
        checkpoint.write(run)
        records.write_json_lines(directory / "metrics.jsonl", run.history)
        if on_epoch:
            on_epoch(row)
    return True


def train(
    recipe: Recipe,
    method: str,
    seed: int,
    directory: Path,
    *,
    data_dir: Path | None = None,
    on_epoch: OnEpoch | None = None,
) -> Json:
    """Trains one run into `directory` and returns its result; goes on where an interrupted one stopped.

    Model selection looks at the validation split alone; the test split is read once, at the end. A loss that stops
    being finite ends the run with status ``diverged``. An exception is also written to ``error.txt``.

    Raises:
        UnknownNameError: for an unknown method, data set or model.
        RecordError: if `directory` holds a run of another recipe, method or seed, or is in use.
        DataError: if the data is absent or damaged.
    """
    lookup("method", method, METHODS)
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    with _exclusive(directory):
        if (directory / "run.json").exists():
            info = records.read_json(directory / "run.json")
            asked = {"recipe": as_json(recipe), "method": method, "seed": seed}
            changed = records.differences({key: info[key] for key in asked}, asked)
            if changed:
                raise RecordError(f"{directory} holds another run: {'; '.join(changed)}")
        if not (directory / "result.json").exists():
            (directory / "error.txt").unlink(missing_ok=True)
            try:
                _train(recipe, method, seed, directory, data_dir, on_epoch)
            except Exception:
                records.write_text(directory / "error.txt", traceback.format_exc())
                raise
        (directory / "checkpoint.pt").unlink(missing_ok=True)
        return records.read_json(directory / "result.json")


def _train(
    recipe: Recipe, method: str, seed: int, directory: Path, data_dir: Path | None, on_epoch: OnEpoch | None
) -> None:
    accelerator = _accelerator()
    data = datasets.load(recipe.data, data_dir)
    if not (directory / "run.json").exists():
        info = {"method": method, "seed": seed, "recipe": as_json(recipe)}
        started = {"started": datetime.now(UTC).isoformat(timespec="seconds")}
        where = {"versions": environment.versions(), "hardware": environment.hardware()}
        records.write_json(directory / "run.json", {**info, **environment.source_state(), **where, **started})
    with _reproducible(recipe.cpu_threads, on_cpu=accelerator.device.type == "cpu"):
        on_device = dataclasses.replace(
            data, train=data.train.to(accelerator.device), validation=data.validation.to(accelerator.device)
        )
        run = _build(recipe, method, seed, data, accelerator)
        if (directory / "checkpoint.pt").exists():
            _load_checkpoint(directory / "checkpoint.pt", run, accelerator.device)
        finite = _epochs(run, on_device, recipe, seed, directory, accelerator, on_epoch)
        begin = time.perf_counter()
        measured = _finish(run, data, directory, accelerator) if finite else {}
    training = sum(row["seconds"] for row in run.history)
    result: Json = {
        "status": "finished" if finite else "diverged",
        "epochs": run.epoch,
        "selected_epoch": run.selected_epoch,
        "measures": measured,
        "seconds": {"training": training, "evaluation": time.perf_counter() - begin},
    }
    records.write_json(directory / "result.json", result)
