"""Progress displays: what is done, what runs, how long it still takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from maxsup.lab.analysis.batch import Outcome
from maxsup.lab.compare import State
from maxsup.lab.executors import Job
from maxsup.lab.records import Json, read_run


def _bars(console: Console, unit: str = "epochs") -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        # Over a long window: methods and epochs differ in length.
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=600,
        disable=not console.is_terminal,  # a log gets lines, not bars
    )


@contextmanager
def of_run(epochs: int, description: str) -> Iterator[Callable[[Json], None]]:
    """A bar over the epochs of one run; yields what to call with each epoch's metrics."""
    console = Console(stderr=True)
    with _bars(console) as progress:
        task = progress.add_task(description, total=epochs)

        def on_epoch(row: Json) -> None:
            done, text = row["epoch"] + 1, f"{description}, validation accuracy {row['validation_accuracy']:.4f}"
            progress.update(task, completed=done, description=text)
            if not console.is_terminal:
                console.print(f"{text}, epoch {done}/{epochs}", highlight=False, soft_wrap=True)

        yield on_epoch


@contextmanager
def of_comparison(epochs: int) -> Iterator[Callable[[State], None]]:
    """A bar over all epochs of a comparison and one for each active run, and a line for each run that ended."""
    console = Console(stderr=True)
    with _bars(console) as progress:
        begun = False
        overall = progress.add_task("runs", total=None)
        bars: dict[Job, TaskID] = {}
        told: set[Job] = set()
        losses = 0

        def show(state: State) -> None:
            nonlocal begun, losses
            if not begun and state.total == 0:
                console.print("no run left to make: all are finished")
            elif not begun and not console.is_terminal:
                console.print(f"runs to make: {state.total}, epochs of each: {epochs}", highlight=False)
            begun = True
            active = dict(state.active)
            for job in active.keys() - bars.keys():
                bars[job] = progress.add_task(f"  {job.method} seed {job.seed}", total=epochs)
            for job in bars.keys() - active.keys():
                progress.remove_task(bars.pop(job))
            for job, done in active.items():
                progress.update(bars[job], completed=done)
            ended = len(state.finished) + len(state.failed)
            progress.update(
                overall,
                description=f"runs {ended}/{state.total}" + (f", {len(state.failed)} failed" if state.failed else ""),
                completed=epochs * ended + sum(active.values()),
                total=epochs * state.total,
            )
            for job in (*state.finished, *(job for job, _ in state.failed)):
                if job not in told:
                    told.add(job)
                    console.print(_line(job), highlight=False, soft_wrap=True)
            for job, reason in state.lost[losses:]:
                console.print(f"{job.method} seed {job.seed}: {reason}; it goes on elsewhere", soft_wrap=True)
            losses = len(state.lost)

        yield show


@contextmanager
def of_analysis(total: int, description: str, line: Callable[[Json], str]) -> Iterator[Callable[[Outcome], None]]:
    """A bar over finished runs that are analyzed, and for each that ended `line` of its record, or that it failed."""
    console = Console(stderr=True)
    with _bars(console, "runs") as progress:
        task = progress.add_task(description, total=total)
        if not console.is_terminal:
            console.print(f"{description}, runs: {total}", highlight=False)

        def show(outcome: Outcome) -> None:
            progress.advance(task)
            told = "failed" if outcome.record is None else line(outcome.record)
            console.print(f"{outcome.run.method} seed {outcome.run.seed}: {told}", highlight=False, soft_wrap=True)

        yield show


@contextmanager
def of_steps() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each step of a job; yields what to call with the step's name, and how many of how many are done."""
    with _bars(Console(stderr=True), "files") as progress:
        bars: dict[str, TaskID] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in bars:
                bars[step] = progress.add_task(step, total=total)
            progress.update(bars[step], completed=done + 1)

        yield show


def _line(job: Job) -> str:
    run = read_run(job.directory, job.method, job.seed)
    measured = run.result.get("measures", {}).get("test", {})
    accuracy = f"test accuracy {measured['accuracy']:.4f}, " if measured else ""
    seconds = sum(row["seconds"] for row in run.epochs)
    return f"{job.method} seed {job.seed}: {run.status}, {accuracy}{len(run.epochs)} epochs in {seconds:.1f} s"
