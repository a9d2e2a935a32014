"""What `maxsup segment` does with many runs: how many at a time, and what is told of each."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

from maxsup.lab import progress
from maxsup.lab.analysis.batch import Outcome, collect, run_each
from maxsup.lab.executors.local import visible_gpus
from maxsup.lab.options import Segment
from maxsup.lab.processes import launched
from maxsup.lab.records import Json, RunRecord
from maxsup.lab.segmentation import sources
from maxsup.lab.segmentation.data import SegmentationData
from maxsup.lab.segmentation.train import Job, OnInterval
from maxsup.lab.segmentation.train import segment as segment_run

__all__ = ["collect", "is_main_process", "segment"]


def segment(runs: Sequence[RunRecord], options: Segment) -> list[Outcome]:
    """Fine-tunes each run's backbone, several at a time; alone, or under a launcher of processes, one after the other.

    Raises:
        DataError, ValueError: if the images are absent or damaged, or fewer than the recipe asks for.
    """
    # Every file is read once here: damaged data is one error, now, and not one per run after hours.
    _load(options.recipe.data, options.data_dir).cut(options.recipe.train_size).check()
    jobs = {}
    for run in runs:
        seed = run.seed if options.seed is None else options.seed
        jobs[run.path] = Job(
            run.path,
            options.recipe,
            seed,
            label=options.label,
            keep_weights=options.keep_weights,
            loaders=options.loaders,
            cuda_graph=options.cuda_graph,
        )
    if len(runs) == 1 or launched()[1] > 1:
        return [_here(run, jobs[run.path], options.data_dir) for run in runs]
    gpus = visible_gpus()
    workers = options.workers if options.workers is not None else len(gpus) or None
    function = partial(_segment, jobs=jobs, data_dir=options.data_dir)
    with progress.of_analysis(len(runs), f"segment {options.recipe.data}", _line) as show:
        return run_each(function, runs, workers=workers, gpus=gpus, show=show)


def is_main_process() -> bool:
    """Whether this process is the one, of those that a launcher started, that writes and tells."""
    return launched()[0] == 0


def _segment(run_dir: Path, jobs: Mapping[Path, Job], data_dir: Path | None) -> Json:
    job = jobs[run_dir]
    return segment_run(job, data=_load(job.recipe.data, data_dir))


@lru_cache(maxsize=1)
def _load(name: str, data_dir: Path | None) -> SegmentationData:
    """The data of a command, once a process: scenes take longer to compose than a short fine-tuning."""
    return sources.load(name, data_dir)


def _here(run: RunRecord, job: Job, data_dir: Path | None) -> Outcome:
    """In this process, with a line for each interval."""
    try:
        data = _load(job.recipe.data, data_dir)
        record = segment_run(job, data=data, on_interval=_teller(run, job))
    except (ValueError, OSError) as error:  # records, data, settings: their messages say it all
        return Outcome(run, error=str(error))
    if is_main_process():
        print(f"{run.method} seed {run.seed}: {_line(record)}", file=sys.stderr)
    return Outcome(run, record=record)


def _teller(run: RunRecord, job: Job) -> OnInterval:
    def tell(row: Json) -> None:
        miou = row["validation_miou"]
        print(
            f"{run.method} seed {run.seed}: iteration {row['iteration']}/{job.recipe.iterations}, "
            f"loss {row['train_loss']:.4f}, "
            + ("" if miou is None else f"validation mIoU {miou:.4f}, ")
            + f"{row['seconds']:.1f} s",
            file=sys.stderr,
        )

    return tell


def _line(record: Json) -> str:
    if record["status"] != "finished":
        return f"{record['status']} after {record['iterations']} iterations"
    ways = {"single": "mIoU", "multi": "mIoU at several scales"}
    told = [f"{ways[way]} {of['miou']:.4f}" for way, of in record["measures"].items()]
    return f"{', '.join(told)}, {record['seconds']['training']:.0f} s of training"
