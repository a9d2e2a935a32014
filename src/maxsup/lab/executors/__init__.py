"""Who makes a comparison's runs: processes on this machine, or a Ray cluster.

An `Executor` is a setting; what it starts is a `Pool`, which takes jobs and says how they ended. What to make, what to
make again and what to show is `maxsup.lab.compare`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from maxsup.lab.recipes import Recipe, as_json
from maxsup.lab.records import Json


@dataclass(frozen=True)
class Job:
    """One run to make."""

    recipe: Recipe
    method: str
    seed: int
    directory: Path
    data_dir: Path | None
    trackers: tuple[str, ...] = ()
    """Of `maxsup.lab.trackers`, to be told of each epoch beside the records."""


def train_job(job: Job, on_epoch: Callable[[Json], None]) -> Json:
    """Trains the job in this process, tells `on_epoch` and the job's trackers of each epoch; returns its result."""
    # Inside: what fails here is the job's error, with its traceback.
    from maxsup.lab.trackers import tracking
    from maxsup.lab.train import train

    run = {"method": job.method, "seed": job.seed, "recipe": as_json(job.recipe)}
    with tracking(job.trackers, job.directory, project="maxsup", run=run) as track:

        def tell(row: Json) -> None:
            on_epoch(row)
            track(row)

        return train(job.recipe, job.method, job.seed, job.directory, data_dir=job.data_dir, on_epoch=tell)


@dataclass(frozen=True)
class Ended:
    """How a job ended: with a run that is over (`error` is empty), with an error, or `lost` with its machine."""

    job: Job
    error: str = ""
    lost: bool = False


class Pool(Protocol):
    """Jobs under way. Where `stop` has returned, none of them goes on for long."""

    def has_room(self) -> bool:
        """Whether one more job can be given."""

    def give(self, job: Job) -> None:
        """Starts a job, or queues it."""

    def active(self) -> Sequence[Job]:
        """The jobs that are being trained, without those that wait."""

    def ended(self, timeout: float) -> Sequence[Ended]:
        """Jobs that ended, each told once; waits up to `timeout` seconds for the first."""

    def stop(self) -> None:
        """Ends all jobs, wherever they are; their folders keep what a later attempt goes on from."""


class Executor(Protocol):
    """Where runs are made."""

    def start(self, recipe: Recipe, directory: Path, data_dir: Path | None, workers: int | None) -> Pool:
        """A pool for a comparison in `directory` of at most `workers` runs at a time; None takes what there is.

        Raises:
            ValueError: if no place can make such a run.
        """


def choose(name: Literal["local", "ray"], ray_address: str | None, gpus_per_run: float | None) -> Executor:
    """The executor that the command line names.

    Raises:
        ValueError: if an option belongs to the other executor, or Ray is not installed.
    """
    if name == "ray":
        from maxsup.lab.executors.ray_cluster import RayCluster

        return RayCluster(ray_address, gpus_per_run)
    for option, value in (("--ray-address", ray_address), ("--gpus-per-run", gpus_per_run)):
        if value is not None:
            raise ValueError(f"{option} {value} is for --executor ray, and this is --executor {name}")
    from maxsup.lab.executors.local import LocalProcesses

    return LocalProcesses()
