"""One training run: recipe, method and seed in, a folder of records out; resumable at every epoch."""

from __future__ import annotations

import dataclasses
import math
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from maxsup.lab import data as datasets
from maxsup.lab import environment, evaluate, records
from maxsup.lab.methods import check_method
from maxsup.lab.processes import Processes, start
from maxsup.lab.recipes import Recipe, as_json, with_defaults
from maxsup.lab.records import Json, RecordError
from maxsup.lab.training.checkpoint import Checkpoint
from maxsup.lab.training.distillation import check_same_teacher, described, load_teacher, teacher_run
from maxsup.lab.training.epoch import train_epoch
from maxsup.lab.training.reproducible import reproducible
from maxsup.lab.training.run import Run, building
from maxsup.lab.training.step import autocast

OnEpoch = Callable[[Json], None]


def _finish(run: Run, data: datasets.DataSet, directory: Path) -> Json:
    """Tests the selected weights, writes outputs and weights, and returns the measures per split."""
    run.restore_selected()
    tensors: dict[str, Tensor] = {}
    measured = {}
    for name in ("train", "validation", "test"):
        out = evaluate.gathered_outputs(run.evaluated, getattr(data, name), run.processes)
        measured[name] = evaluate.measures(out)
        if name == "train" and data.clean_labels is not None:
            measured["train_clean"] = evaluate.clean_measures(out, data.clean_labels)
        if name != "train":  # the training split's outputs are large, and the weights give them back
            tensors |= {f"{name}.{part}": getattr(out, part).cpu() for part in ("features", "logits", "labels")}
    if run.processes.first:
        with records.replacing(directory / "outputs.safetensors") as path:
            save_file(tensors, path)
        with records.replacing(directory / "model.safetensors") as path:
            save_file({name: value.cpu().contiguous() for name, value in run.selected.items()}, path)
    return measured


def _epochs(
    run: Run,
    data: datasets.DataSet,
    recipe: Recipe,
    seed: int,
    directory: Path,
    on_epoch: OnEpoch | None,
) -> bool:
    """Trains to the recipe's last epoch; False if the loss stopped being finite."""
    checkpoint = Checkpoint(directory / "checkpoint.pt")
    checkpoint.load(run)
    while run.epoch < recipe.epochs:
        begin = time.perf_counter()
        trained = train_epoch(run, data.train, recipe, seed)
        if not math.isfinite(trained.loss):
            return False
        # In the precision of training: full precision took as long as the epoch, and the end measures with it anyway.
        with autocast(recipe.precision, run.processes.device):
            out = evaluate.gathered_outputs(run.evaluated, data.validation, run.processes)
        accuracy = float((out.logits.argmax(1) == out.labels).double().mean())
        row = {
            "epoch": run.epoch,
            "train_loss": trained.loss,
            "train_accuracy": trained.accuracy,
            "validation_nll": records.finite(nn.functional.cross_entropy(out.logits.double(), out.labels)),
            "validation_accuracy": accuracy,
            "learning_rate": run.optimizer.param_groups[0]["lr"],
            "alpha": None if run.alpha is None else float(run.alpha.get_last_alpha()),
            "seconds": time.perf_counter() - begin,
            "waiting_seconds": trained.waited,
        }
        if recipe.selection == "last" or accuracy >= run.best:
            run.best = accuracy
            run.select()
        if run.alpha is not None:
            run.alpha.step()
        run.history.append(row)
        run.epoch += 1
        checkpoint.write(run)
        if run.processes.first:
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

    Under `torchrun` or `accelerate launch` every process calls this alike. They share each batch, the first one alone
    writes, calls `on_epoch` and holds the folder, and all return the result, which is that of one process to
    rounding: not bit by bit, and not where a last batch with fewer than two images a process has to be left out.

    Raises:
        UnknownNameError: for an unknown method, data set or model.
        RecordError: if `directory` holds a run of another recipe, method or seed, or is in use.
        DataError: if the data is absent or damaged.
    """
    check_method(method)
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    processes = start()
    with ExitStack() as held:
        # The folder belongs to the first process: it alone holds, checks and writes it.
        if not processes.of_first(lambda: _open(held, recipe, method, seed, directory)):
            try:
                _train(recipe, method, seed, directory, data_dir, on_epoch, processes)
            except Exception:
                if processes.first:
                    records.write_text(directory / "error.txt", traceback.format_exc())
                raise
        return processes.of_first(lambda: _close(directory))


def _open(held: ExitStack, recipe: Recipe, method: str, seed: int, directory: Path) -> bool:
    """Holds the folder, and tells whether the run in it is finished."""
    held.enter_context(records.exclusive(directory))
    if (directory / "run.json").exists():
        info = records.read_json(directory / "run.json")
        asked = {"recipe": as_json(recipe), "method": method, "seed": seed}
        recorded = {**{key: info[key] for key in asked}, "recipe": with_defaults(info["recipe"])}
        changed = records.differences(recorded, asked)
        if changed:
            raise RecordError(f"{directory} holds another run: {'; '.join(changed)}")
    finished = (directory / "result.json").exists()
    if not finished:
        (directory / "error.txt").unlink(missing_ok=True)
    return finished


def _close(directory: Path) -> Json:
    (directory / "checkpoint.pt").unlink(missing_ok=True)
    return records.read_json(directory / "result.json")


def _train(
    recipe: Recipe,
    method: str,
    seed: int,
    directory: Path,
    data_dir: Path | None,
    on_epoch: OnEpoch | None,
    processes: Processes,
) -> None:
    device = processes.device
    data = datasets.load(recipe.data, data_dir)
    taught_by = teacher_run(recipe, method, seed)
    teacher = None if taught_by is None else load_teacher(taught_by, recipe, data)
    taught = {} if taught_by is None else {"teacher": described(taught_by)}
    if processes.first and not (directory / "run.json").exists():
        info: Json = {"method": method, "seed": seed, "recipe": as_json(recipe)}
        info["training_images"] = data.training_images()
        if data.problems:
            info["data_problems"] = list(data.problems)
        started = {"started": datetime.now(UTC).isoformat(timespec="seconds")}
        where = {
            "versions": environment.versions(),
            "hardware": environment.hardware(),
            "processes": processes.world,
        }
        records.write_json(directory / "run.json", {**info, **environment.source_state(), **where, **started, **taught})
    processes.of_first(lambda: check_same_teacher(directory, taught))
    with (
        reproducible(device, "convolutions", threads=recipe.cpu_threads),
        building(recipe, method, seed, data, processes, teacher) as run,
    ):
        on_device = dataclasses.replace(data, train=data.train.to(device), validation=data.validation.to(device))
        finite = _epochs(run, on_device, recipe, seed, directory, on_epoch)
        begin = time.perf_counter()
        measured = _finish(run, data, directory) if finite else {}
    training = sum(row["seconds"] for row in run.history)
    result: Json = {
        "status": "finished" if finite else "diverged",
        "epochs": run.epoch,
        "selected_epoch": run.selected_epoch,
        "measures": measured,
        "seconds": {"training": training, "evaluation": time.perf_counter() - begin},
    }
    if processes.first:
        records.write_json(directory / "result.json", result)
