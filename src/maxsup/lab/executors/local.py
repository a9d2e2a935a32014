"""Runs in worker processes of this machine, one GPU each where there are some."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from maxsup.lab.executors import Ended, Job, train_job
from maxsup.lab.recipes import Recipe
from maxsup.lab.workers import begin_work, interrupts_blocked, worker_context


def _work(connection: Connection, environment: dict[str, str]) -> None:
    """A worker's life: take a job, train it, say how it went; ends with its parent, however that ends."""
    begin_work(environment)
    while True:
        job: Job = connection.recv()
        try:
            train_job(job, lambda row: None)
        except Exception:
            connection.send(traceback.format_exc())
        else:
            connection.send("")


class _Worker:
    def __init__(self, gpu: str | None) -> None:
        self.gpu = gpu
        self.job: Job | None = None
        context = worker_context()
        environment = dict(os.environ) | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
        self.connection, theirs = context.Pipe()
        # No daemon, which could not start the processes that decode images; `begin_work` sees to its end.
        self.process = context.Process(target=_work, args=(theirs, environment))
        with interrupts_blocked():  # Ctrl-C reaches the whole group; the parent decides
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


def visible_gpus() -> list[str]:
    """This machine's GPUs, one by one, as `CUDA_VISIBLE_DEVICES` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(i) for i in range(count)]


class LocalPool:
    """Worker processes, started when there is work for them; each makes one run after another."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._gpus = visible_gpus()
        self._workers: list[_Worker] = []

    def has_room(self) -> bool:
        """Whether a worker is idle or can be started."""
        return len(self.active()) < self._count

    def give(self, job: Job) -> None:
        """Hands the job to an idle worker, or to a new one."""
        idle = next((i for i, worker in enumerate(self._workers) if worker.job is None), None)
        if idle is None:
            idle = len(self._workers)
            self._workers.append(_Worker(self._gpus[idle % len(self._gpus)] if self._gpus else None))
        elif not self._workers[idle].process.is_alive():
            self._workers[idle] = _Worker(self._workers[idle].gpu)
        self._workers[idle].give(job)

    def active(self) -> Sequence[Job]:
        """Every job that has not ended: a local job never waits."""
        return [worker.job for worker in self._workers if worker.job is not None]

    def ended(self, timeout: float) -> Sequence[Ended]:
        """Jobs that ended. A worker that died is its job's error: on this machine it would die again."""
        wait([worker.connection for worker in self._workers if worker.job], timeout=timeout)
        ended = []
        for worker in self._workers:
            error = worker.outcome() if worker.job else None
            if worker.job is not None and error is not None:
                ended.append(Ended(worker.job, error))
                worker.job = None
        return ended

    def stop(self) -> None:
        """Kills the workers."""
        for worker in self._workers:
            worker.stop()


@dataclass(frozen=True)
class LocalProcesses:
    """Worker processes of this machine."""

    def start(self, recipe: Recipe, directory: Path, data_dir: Path | None, workers: int | None) -> LocalPool:
        """A pool of `workers` processes; None takes one per GPU, or as many as the cores carry."""
        return LocalPool(workers or default_workers(recipe))
