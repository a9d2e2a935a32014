"""Methods × seeds, several runs at a time in worker processes; the records on disk are the only result."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from maxsup.lab import records
from maxsup.lab.methods import METHODS
from maxsup.lab.names import lookup
from maxsup.lab.recipes import Recipe, as_json
from maxsup.lab.records import RecordError, RunRecord, run_directory

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """One run to make."""

    recipe: Recipe
    method: str
    seed: int
    directory: Path
    data_dir: Path | None


@dataclass(frozen=True)
class State:
    """What a comparison is doing, for whoever shows it: finished and failed jobs, and the epochs of the active."""

    total: int
    finished: tuple[Job, ...]
    failed: tuple[tuple[Job, str], ...]
    active: tuple[tuple[Job, int], ...]


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # only workers run this
    parent.join()
    os._exit(1)


def _work(connection: Connection, gpu: str | None) -> None:
    """A worker's life: take a job, train it, say how it went; ends with its parent, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    while True:
        job: Job = connection.recv()
        try:
            from maxsup.lab.train import train  # inside: what fails here is the job's error, with its traceback

            train(job.recipe, job.method, job.seed, job.directory, data_dir=job.data_dir)
        except Exception:
            connection.send(traceback.format_exc())
        else:
            connection.send("")


class _Worker:
    def __init__(self, gpu: str | None) -> None:
        self.gpu = gpu
        self.job: Job | None = None
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, gpu), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, job: Job) -> None:
        self.job = job
        self.connection.send(job)

    def outcome(self) -> str | None:
        """The error of the job that ended ("" for none), or None while it goes on."""
        try:
            return str(self.connection.recv()) if self.connection.poll() else None
        except (EOFError, OSError):
            self.process.join()
            reason = ", killed, perhaps for want of memory" if self.process.exitcode == -signal.SIGKILL else ""
            return f"the worker process died (exit code {self.process.exitcode}{reason})"

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def default_workers(recipe: Recipe) -> int:
    """One run per GPU, or as many as the cores carry with the recipe's threads."""
    gpus = torch.cuda.device_count()
    return gpus or max(1, len(os.sched_getaffinity(0)) // recipe.cpu_threads)


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(i) for i in range(count)]


def open_comparison(recipe: Recipe, methods: Sequence[str], seeds: Sequence[int], directory: Path) -> list[RunRecord]:
    """Creates or continues the comparison in `directory`; returns its runs. New methods and seeds are added to it.

    Raises:
        UnknownNameError: for an unknown method.
        RecordError: if `directory` holds a comparison with another recipe; it lists the fields.
    """
    for method in methods:
        lookup("method", method, METHODS)
    if any(seed < 0 for seed in seeds):
        raise ValueError(f"seeds must be at least 0, got {', '.join(map(str, seeds))}")
    if not methods or not seeds:
        raise ValueError("methods and seeds must each name at least one")
    methods, seeds = list(dict.fromkeys(methods)), list(dict.fromkeys(seeds))
    if (directory / "comparison.json").exists():
        old = records.read_comparison(directory)
        changed = records.differences(old.recipe, as_json(recipe))
        if changed:
            raise RecordError(
                f"{directory} holds a comparison with another recipe: {'; '.join(changed)}. "
                "Give another --out, or the old values."
            )
        methods = list(dict.fromkeys([*old.methods, *methods]))
        seeds = sorted({*old.seeds, *seeds})
    records.write_json(directory / "comparison.json", {"recipe": as_json(recipe), "methods": methods, "seeds": seeds})
    return records.read_comparison(directory).runs


def compare(
    recipe: Recipe,
    methods: Sequence[str],
    seeds: Sequence[int],
    directory: Path,
    *,
    workers: int | None = None,
    data_dir: Path | None = None,
    show: Callable[[State], None] = lambda state: None,
) -> list[tuple[Job, str]]:
    """Makes every run of the comparison that is not finished yet; returns those that failed, with their errors.

    `show` is called twice a second and whenever a run ends. A run that fails does not stop the others. On any
    exception, Ctrl-C included, the workers are stopped; the same call goes on from the last finished epochs.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    runs = open_comparison(recipe, methods, seeds, directory)
    pending = [
        Job(recipe, run.method, run.seed, run_directory(directory, run.method, run.seed), data_dir)
        for run in runs
        if run.status not in ("finished", "diverged")
    ]
    total = len(pending)
    finished: list[Job] = []
    failed: list[tuple[Job, str]] = []
    gpus = _gpus()
    count = min(workers or default_workers(recipe), len(pending))
    pool = [_Worker(gpus[i % len(gpus)] if gpus else None) for i in range(count)]
    try:
        for worker in pool:
            worker.give(pending.pop(0))
        while any(worker.job for worker in pool):
            active = tuple((worker.job, _epochs_done(worker.job)) for worker in pool if worker.job)
            show(State(total, tuple(finished), tuple(failed), active))
            wait([worker.connection for worker in pool if worker.job], timeout=POLL_SECONDS)
            for i, worker in enumerate(pool):
                error = worker.outcome() if worker.job else None
                if worker.job is None or error is None:
                    continue
                if error:
                    failed.append((worker.job, error))
                    _keep_error(worker.job, error)
                else:
                    finished.append(worker.job)
                worker.job = None
                if pending:
                    if not worker.process.is_alive():
                        pool[i] = worker = _Worker(worker.gpu)
                    worker.give(pending.pop(0))
        show(State(total, tuple(finished), tuple(failed), ()))
    finally:
        for worker in pool:
            worker.stop()
    return failed


def _keep_error(job: Job, error: str) -> None:
    """A worker that died could not leave its traceback."""
    if not (job.directory / "error.txt").exists():
        records.write_text(job.directory / "error.txt", error + "\n")


def _epochs_done(job: Job) -> int:
    file = job.directory / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0
