"""Fine-tuning of one run's backbone: run and recipe in, a folder of records in the run's own folder out; resumable.

The folder ``segment-<name>``::

    settings.json      recipe, seed, fingerprints of weights and data, commit, versions, hardware
    metrics.jsonl      one line an interval
    result.json        the end: status, measures at one scale and several, confusion matrices, times
    gallery.json       some test images, their labels and predictions
    model.safetensors  the fine-tuned weights, if they were asked for
    error.txt          the traceback of the last failed attempt
    checkpoint.pt      state after the last interval, while the fine-tuning is unfinished
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import set_seed
from safetensors.torch import save_file
from torch import nn

from maxsup.lab import environment, records
from maxsup.lab.analysis.kept import write_compact
from maxsup.lab.analysis.weights import fingerprint, load_model
from maxsup.lab.checkpoint import CheckpointFile
from maxsup.lab.data.splits import with_channels
from maxsup.lab.processes import Processes, start
from maxsup.lab.records import Json, RecordError
from maxsup.lab.segmentation import final, sources
from maxsup.lab.segmentation.batches import Batches, batches
from maxsup.lab.segmentation.data import Arrays, SegmentationData
from maxsup.lab.segmentation.evaluate import measures
from maxsup.lab.segmentation.model import Segmenter
from maxsup.lab.segmentation.objective import Step, learning_rate, optimizer_of, step_of
from maxsup.lab.segmentation.recipes import SegmentationRecipe, as_json
from maxsup.lab.training.batch_norm import synchronize_batch_norm
from maxsup.lab.training.reproducible import reproducible

OnInterval = Callable[[Json], None]
# Processes that read files, beside a GPU.
LOADERS = 8


@dataclass(frozen=True)
class Job:
    """One fine-tuning: of which run, with which recipe and seed, and what of it is kept."""

    run_dir: Path
    recipe: SegmentationRecipe
    seed: int
    label: str | None = None
    keep_weights: bool = False
    loaders: int | None = None
    cuda_graph: bool = False
    """Whether the launches of a step are replayed, with one process on a GPU; the kernels are the same."""

    @property
    def directory(self) -> Path:
        """Where its records are."""
        return self.run_dir / folder_name(self.recipe, self.label)


def folder_name(recipe: SegmentationRecipe, label: str | None = None) -> str:
    """The folder of a fine-tuning in its run's: named after the data, and the loss where it is not cross-entropy.

    >>> from maxsup.lab.segmentation.recipes import ade20k_upernet
    >>> folder_name(ade20k_upernet()), folder_name(ade20k_upernet(), "short")
    ('segment-ade20k', 'segment-short')
    """
    return f"segment-{label or recipe.data + ('' if recipe.loss == 'cross-entropy' else f'-{recipe.loss}')}"


def segment(
    job: Job,
    data_dir: Path | None = None,
    *,
    data: SegmentationData | None = None,
    on_interval: OnInterval = lambda row: None,
) -> Json:
    """Fine-tunes the backbone of a finished run; returns the result, which it keeps in the job's directory.

    `data` is the recipe's, where the caller has it already; it is loaded from `data_dir` otherwise.
    What is finished is returned as it is, what was interrupted goes on from its last interval. Under a launcher of
    several processes all work on this one job. A loss that stops being finite ends it with status ``diverged``.

    Raises:
        RecordError: if the run's records are missing or damaged, or the directory holds another fine-tuning.
        DataError: if the data is absent or damaged; it names the file.
        ValueError: if the backbone or the recipe does not fit the data, or the batch the processes.
    """
    records.read_finished(job.run_dir, "fine-tuned")
    if job.seed < 0:
        raise ValueError(f"seed must be at least 0, got {job.seed}")
    data = (data or sources.load(job.recipe.data, data_dir)).cut(job.recipe.train_size)
    settings: Json = {
        "recipe": as_json(job.recipe),
        "seed": job.seed,
        "data_sha256": data.fingerprint(),
        "model_sha256": fingerprint(job.run_dir),
    }
    processes = start()
    with ExitStack() as held:
        # The folder belongs to the first process: it alone holds, checks and writes it.
        if not processes.of_first(lambda: _open(held, job, settings)):
            try:
                with reproducible(processes.device, "all" if job.recipe.deterministic else "fastest"):
                    _fine_tune(job, data, settings, processes, on_interval)
            except Exception:
                if processes.first:
                    records.write_text(job.directory / "error.txt", traceback.format_exc())
                raise
        return processes.of_first(lambda: _close(job.directory))


def _open(held: ExitStack, job: Job, settings: Json) -> bool:
    """Holds the folder, writes the settings or checks that it has the same, and tells whether it is finished."""
    directory, file = job.directory, job.directory / "settings.json"
    held.enter_context(records.exclusive(directory))
    if file.exists():
        kept = records.read_json(file)
        changed = records.differences({key: kept.get(key) for key in settings}, settings)
        if changed:
            raise RecordError(
                f"{directory} holds another fine-tuning: {'; '.join(changed)}. Give another --label, or delete it."
            )
    else:
        started = {"started": datetime.now(UTC).isoformat(timespec="seconds")}
        where = {"versions": environment.versions(), "hardware": environment.hardware()}
        records.write_json(file, {**settings, **environment.source_state(), **where, **started})
    (directory / "error.txt").unlink(missing_ok=True)
    return (directory / "result.json").exists()


def _close(directory: Path) -> Json:
    (directory / "checkpoint.pt").unlink(missing_ok=True)
    return records.read_json(directory / "result.json")


@dataclass
class _Tuning:
    """What a fine-tuning carries from interval to interval; `state_dict` of it is the checkpoint."""

    model: nn.Module
    """As the processes train it."""
    network: Segmenter
    """The same without what they wrap around it."""
    optimizer: Any
    scheduler: Any
    iteration: int = 0
    history: list[Json] = field(default_factory=list)

    def state_dict(self) -> Json:
        parts = {name: getattr(self, name).state_dict() for name in ("network", "optimizer", "scheduler")}
        return {"iteration": self.iteration, "history": self.history, **parts}

    def load_state_dict(self, state: Json) -> None:
        self.iteration, self.history = state["iteration"], state["history"]
        for name in ("network", "optimizer", "scheduler"):
            getattr(self, name).load_state_dict(state[name])


def _fine_tune(job: Job, data: SegmentationData, settings: Json, processes: Processes, on_interval: OnInterval) -> None:
    tuning = _build(job, data, processes)
    checkpoint = CheckpointFile(job.directory / "checkpoint.pt")
    state = processes.of_first(checkpoint.read)
    if state is not None:
        tuning.load_state_dict(state)
        if processes.first:
            # The checkpoint may be older or, by a kill between the two writes, newer than the lines.
            records.write_json_lines(job.directory / "metrics.jsonl", tuning.history)
    if isinstance(data.train, Arrays):
        data = replace(data, train=data.train.to(processes.device))
    graph = job.cuda_graph and processes.device.type == "cuda" and processes.world == 1
    step = step_of(tuning.model, job.recipe, processes, graph=graph)
    finite = _intervals(job, tuning, step, data, processes, checkpoint, on_interval)
    del step  # and with it the memory of a graph
    begin = time.perf_counter()
    model = tuning.network
    found = final.test(model, data, job.recipe, processes) if finite else {"measures": {}, "confusion": {}}
    if not processes.first:
        return
    if finite:
        write_compact(job.directory / "gallery.json", final.gallery(model, data, job.recipe, processes.device))
        if job.keep_weights:
            with records.replacing(job.directory / "model.safetensors") as path:
                save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()}, path)
    training = sum(row["seconds"] for row in tuning.history)
    result: Json = {
        "status": "finished" if finite else "diverged",
        "iterations": tuning.iteration,
        "settings": settings,
        "data": data.description(),
        "cuda_graph": graph,
        **found,
        "seconds": {"training": training, "evaluation": time.perf_counter() - begin},
    }
    write_compact(job.directory / "result.json", result)


def _build(job: Job, data: SegmentationData, processes: Processes) -> _Tuning:
    recipe, device = job.recipe, processes.device
    if recipe.batch_size % processes.world:
        raise ValueError(f"batch_size must be a multiple of the {processes.world} processes, got {recipe.batch_size}")
    set_seed(_seed(job.seed, 0))
    side = recipe.augmentation.crop or min(data.train.pair(0)[1].shape)
    classifier = load_model(job.run_dir, any_size=True)
    network = Segmenter(classifier, data.num_classes, (side, side), recipe.decoder)
    if processes.world > 1:
        network = cast(Segmenter, synchronize_batch_norm(network, processes.device))
    network = network.to(device).to(memory_format=torch.channels_last)
    optimizer = optimizer_of(network, recipe.optimizer)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda iteration: learning_rate(iteration, recipe.iterations, recipe.optimizer)
    )
    return _Tuning(processes.wrap(network), network, optimizer, scheduler)


def _intervals(
    job: Job,
    tuning: _Tuning,
    step: Step,
    data: SegmentationData,
    processes: Processes,
    checkpoint: CheckpointFile,
    on_interval: OnInterval,
) -> bool:
    """Trains to the recipe's last iteration; False if the loss stopped being finite."""
    recipe, device = job.recipe, processes.device
    # One for all intervals: processes that read files start once.
    stream = batches(
        data.train,
        recipe.augmentation,
        recipe.batch_size,
        job.seed,
        range(tuning.iteration, recipe.iterations),
        device,
        rank=processes.rank,
        processes=processes.world,
        workers=job.loaders if job.loaders is not None else LOADERS if device.type == "cuda" else 0,
    )
    while tuning.iteration < recipe.iterations:
        begin = time.perf_counter()
        end = min(tuning.iteration + recipe.interval, recipe.iterations)
        mean_loss = _interval(job.seed, tuning, step, stream, processes, range(tuning.iteration, end))
        if not math.isfinite(mean_loss):
            return False
        tuning.iteration = end
        row: Json = {"iteration": end, "train_loss": mean_loss, "validation_miou": None}
        if data.validation is not None:
            matrix = final.confusion_over(tuning.network, data.validation, recipe, data.num_classes, processes)
            row["validation_miou"] = measures(matrix)["miou"]
        row["learning_rate"] = max(tuning.scheduler.get_last_lr())
        row["seconds"] = time.perf_counter() - begin
        tuning.history.append(row)
        if processes.first:
            if end < recipe.iterations and checkpoint.is_due():
                checkpoint.write(tuning.state_dict())
            records.write_json_lines(job.directory / "metrics.jsonl", tuning.history)
            on_interval(row)
    return True


def _interval(
    seed: int, tuning: _Tuning, step: Step, stream: Batches, processes: Processes, iterations: range
) -> float:
    """Some iterations on the next batches of `stream`; returns their mean loss, the auxiliary head's share included."""
    # Seeding each interval by its place makes a resumed fine-tuning equal an unbroken one; the dropout of a process is
    # its own.
    set_seed(_seed(seed, iterations.start + 1 + processes.rank))
    tuning.model.train()
    total = torch.zeros((), dtype=torch.float64, device=processes.device)
    channels = len(tuning.network.mean)
    for images, labels in islice(stream, len(iterations)):
        # Batches of files may be grey or not: a step sees them all as the network does.
        loss = step(with_channels(images, channels), labels)
        # Sums stay on the device: the host reads them once an interval.
        total += loss
        tuning.optimizer.step()
        tuning.optimizer.zero_grad()
        tuning.scheduler.step()
    processes.same_buffers(tuning.network)
    return float(processes.sum(total) / processes.world) / len(iterations)


def _seed(seed: int, part: int) -> int:
    """The seed of the decoder's weights (part 0) or of an interval; below NumPy's limit of 2³²."""
    return (seed * 1_000_003 + part) % 2**32
