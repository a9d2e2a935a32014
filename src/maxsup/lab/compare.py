"""Methods × seeds, several runs at a time; the records on disk are the only result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from maxsup.lab import records
from maxsup.lab.executors import Executor, Job
from maxsup.lab.executors.local import LocalProcesses
from maxsup.lab.methods import check_method
from maxsup.lab.recipes import Recipe, as_json, with_defaults
from maxsup.lab.records import RecordError, RunRecord, run_directory

POLL_SECONDS = 0.5
LOSSES = 3
"""Times in a row that a run may lose its worker without having finished an epoch in between."""


@dataclass(frozen=True)
class State:
    """What a comparison is doing, for whoever shows it: finished and failed jobs, and the epochs of the active.

    `lost` lists each time that a worker was lost and its run given to another.
    """

    total: int
    finished: tuple[Job, ...]
    failed: tuple[tuple[Job, str], ...]
    active: tuple[tuple[Job, int], ...]
    lost: tuple[tuple[Job, str], ...] = ()


def open_comparison(recipe: Recipe, methods: Sequence[str], seeds: Sequence[int], directory: Path) -> list[RunRecord]:
    """Creates or continues the comparison in `directory`; returns its runs. New methods and seeds are added to it.

    Raises:
        UnknownNameError: for an unknown method.
        RecordError: if `directory` holds a comparison, or a run, with another recipe; it lists the fields.
    """
    _check(methods, seeds)
    methods, seeds = list(dict.fromkeys(methods)), list(dict.fromkeys(seeds))
    if (directory / "comparison.json").exists():
        old = records.read_comparison(directory)
        changed = records.differences(with_defaults(old.recipe), as_json(recipe))
        if changed:
            raise RecordError(
                f"{directory} holds a comparison with another recipe: {'; '.join(changed)}. "
                "Give another --out, or the old values."
            )
        methods = list(dict.fromkeys([*old.methods, *methods]))
        seeds = sorted({*old.seeds, *seeds})
    runs = [
        records.read_run(run_directory(directory, method, seed), method, seed) for method in methods for seed in seeds
    ]
    for run in runs:  # such as `maxsup train` made there
        recorded = with_defaults(run.info["recipe"]) if "recipe" in run.info else as_json(recipe)
        changed = records.differences(recorded, as_json(recipe))
        if changed:
            raise RecordError(f"{run.path} holds a run with another recipe: {'; '.join(changed)}")
    records.write_json(directory / "comparison.json", {"recipe": as_json(recipe), "methods": methods, "seeds": seeds})
    return runs


def _check(methods: Sequence[str], seeds: Sequence[int]) -> None:
    for method in methods:
        check_method(method)
    if any(seed < 0 for seed in seeds):
        raise ValueError(f"seeds must be at least 0, got {', '.join(map(str, seeds))}")
    if not methods or not seeds:
        raise ValueError("methods and seeds must each name at least one")


def compare(
    recipe: Recipe,
    methods: Sequence[str],
    seeds: Sequence[int],
    directory: Path,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    data_dir: Path | None = None,
    trackers: Sequence[str] = (),
    show: Callable[[State], None] = lambda state: None,
) -> list[tuple[Job, str]]:
    """Makes every run of the comparison that is not finished yet; returns those that failed, with their errors.

    `executor` makes the runs, by default in processes of this machine, `workers` of them at a time. Each tells
    `trackers` (`maxsup.lab.trackers`) of its epochs. `show` is called twice a second and whenever a run ends. A run
    that fails does not stop the others. A run whose worker was lost with its node is given out again and goes on from
    its last checkpoint, as long as it gets on. On any exception, Ctrl-C included, the workers are stopped; the same
    call goes on from the last finished epochs.

    Raises:
        UnknownNameError, ValueError: for an unknown method, or seeds or workers that cannot be.
        RecordError: as `open_comparison`.
        InUseError: if another process makes this comparison.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    _check(methods, seeds)
    with records.exclusive(directory):
        runs = open_comparison(recipe, methods, seeds, directory)
        return _make(runs, recipe, directory, executor or LocalProcesses(), workers, data_dir, trackers, show)


def _make(
    runs: Sequence[RunRecord],
    recipe: Recipe,
    directory: Path,
    executor: Executor,
    workers: int | None,
    data_dir: Path | None,
    trackers: Sequence[str],
    show: Callable[[State], None],
) -> list[tuple[Job, str]]:
    """`compare` in a folder that is held: the runs that are not finished yet."""
    pending = [
        Job(recipe, run.method, run.seed, run_directory(directory, run.method, run.seed), data_dir, tuple(trackers))
        # Seed by seed: a comparison that is cut short has its methods with the same seeds, which is what is paired.
        for run in sorted(runs, key=lambda run: run.seed)
        if run.status not in ("finished", "diverged")
    ]
    total = len(pending)
    finished: list[Job] = []
    failed: list[tuple[Job, str]] = []
    lost = _Lost()
    if pending:
        pool = executor.start(recipe, directory, data_dir, workers)
        try:
            while len(finished) + len(failed) < total:
                while pending and pool.has_room():
                    pool.give(pending.pop(0))
                active = tuple((job, _epochs_done(job)) for job in pool.active())
                show(State(total, tuple(finished), tuple(failed), active, tuple(lost.told)))
                for ended in pool.ended(POLL_SECONDS):
                    if ended.lost and lost.gets_on(ended.job, ended.error):
                        pending.insert(0, ended.job)
                    elif ended.error:
                        failed.append((ended.job, ended.error))
                        _keep_error(ended.job, ended.error)
                    else:
                        finished.append(ended.job)
        finally:
            pool.stop()
    show(State(total, tuple(finished), tuple(failed), (), tuple(lost.told)))
    return failed


class _Lost:
    """Tells runs that lose their workers by no fault of their own from those that kill them."""

    def __init__(self) -> None:
        self.told: list[tuple[Job, str]] = []
        self._in_vain: dict[Job, tuple[int, int]] = {}

    def gets_on(self, job: Job, reason: str) -> bool:
        """Whether to give the lost job out again."""
        epochs, (before, times) = _epochs_done(job), self._in_vain.get(job, (0, 0))
        times = 1 if epochs > before else times + 1
        self._in_vain[job] = epochs, times
        if times >= LOSSES:
            return False
        self.told.append((job, reason))
        return True


def _keep_error(job: Job, error: str) -> None:
    """A worker that died could not leave its traceback."""
    if not (job.directory / "error.txt").exists():
        records.write_text(job.directory / "error.txt", error + "\n")


def _epochs_done(job: Job) -> int:
    file = job.directory / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0
