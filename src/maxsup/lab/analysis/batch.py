"""The same work on many finished runs, several at a time in processes of one thread each."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from maxsup.lab import records
from maxsup.lab.records import Comparison, Json, RecordError, RunRecord
from maxsup.lab.workers import begin_work, interrupts_blocked, worker_context

# What libraries read once, when a process loads them; those that are loaded already are told by calls.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Outcome:
    """What the analysis of one run gave: its record, or the error as one line (a traceback for an unforeseen one)."""

    run: RunRecord
    record: Json | None = None
    error: str | None = None


def collect(paths: Iterable[Path]) -> tuple[list[RunRecord], list[Comparison]]:
    """The finished runs in folders of runs and of comparisons, each once; and the comparisons.

    A comparison's runs that are not finished are left out: its report names them.

    Raises:
        RecordError: if a folder is neither, is that of a run that is not finished, or of a comparison without one.
    """
    runs: dict[Path, RunRecord] = {}
    comparisons = []
    for path in paths:
        if (path / "comparison.json").is_file():
            comparison = records.read_comparison(path)
            finished = [run for run in comparison.runs if run.status == "finished"]
            if not finished:
                raise RecordError(f"{path}: none of the comparison's {len(comparison.runs)} runs is finished")
            comparisons.append(comparison)
        elif (path / "run.json").is_file():
            finished = [records.read_finished(path, "analyzed")]
        else:
            raise RecordError(f"{path}: no run and no comparison here (run.json and comparison.json are missing)")
        runs |= {run.path.resolve(): run for run in finished if run.path.resolve() not in runs}
    return list(runs.values()), comparisons


def run_each(
    function: Callable[[Path], Json],
    runs: Sequence[RunRecord],
    *,
    workers: int | None = None,
    gpus: Sequence[str] = (),
    show: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Calls `function` with the folder of each run, in worker processes; the outcomes in the order of `runs`.

    `function` must be one that a new process can import. An error ends its own run alone. `show` gets each outcome as
    it comes. `workers` is by default the number of cores. Each process sees one of `gpus`, which are dealt out in turn
    and named as in ``CUDA_VISIBLE_DEVICES``. Where a process is killed from outside, as for want of memory, the runs
    that have not ended fail.

    Raises:
        ValueError: if `workers` is below 1.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    count = min(workers or len(os.sched_getaffinity(0)), len(runs))
    outcomes: dict[Path, Outcome] = {}
    if not runs:
        return []
    context = worker_context()
    dealt: SimpleQueue[str | None] = context.SimpleQueue()
    for i in range(count):
        dealt.put(gpus[i % len(gpus)] if gpus else None)
    begin = partial(_begin, dict(os.environ), dealt)
    with ProcessPoolExecutor(count, mp_context=context, initializer=begin) as pool:
        with interrupts_blocked():  # until `_begin`
            futures: dict[Future[Json], RunRecord] = {pool.submit(function, run.path): run for run in runs}
        pending = set(futures)
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    outcome = _outcome(futures[future], future)
                    outcomes[outcome.run.path] = outcome
                    show(outcome)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return [outcomes[run.path] for run in runs]


def _outcome(run: RunRecord, future: Future[Json]) -> Outcome:
    try:
        return Outcome(run, record=future.result())
    except BrokenProcessPool:
        return Outcome(run, error="a worker process was killed, perhaps for want of memory; try fewer workers")
    except (ValueError, OSError) as error:  # records, data, settings: their messages say it all
        return Outcome(run, error=str(error))
    except Exception as error:
        return Outcome(run, error="".join(traceback.format_exception(error)).rstrip())


def _begin(environment: dict[str, str], gpus: SimpleQueue[str | None]) -> None:
    """A worker's first act: one thread, its GPU, and to end with Ctrl-C, which reaches the whole group."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    begin_work(environment | dict.fromkeys(_THREADS, "1"))
    gpu = gpus.get()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    torch.set_num_threads(1)
    threadpool_limits(1)
