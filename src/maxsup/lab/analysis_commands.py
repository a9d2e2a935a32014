"""What the commands on finished runs do with many of them: which analysis, of which run, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from rich.table import Table

from maxsup.lab import progress
from maxsup.lab.analysis import corruption, overlay, projection
from maxsup.lab.analysis import probe as probing
from maxsup.lab.analysis.analyze import analyze as analyze_run
from maxsup.lab.analysis.batch import Outcome, collect, run_each
from maxsup.lab.analysis.weights import trained_data
from maxsup.lab.data import MASKED
from maxsup.lab.recipes import Data
from maxsup.lab.records import Comparison, DataError, Json, RecordError, RunRecord
from maxsup.lab.statistics import describe

__all__ = ["analyze", "collect", "corrupt", "gallery", "probe", "probe_table", "project"]


def analyze(runs: Sequence[RunRecord], data_dir: Path | None, workers: int | None) -> list[Outcome]:
    """Analyzes each run, and localizes its Grad-CAM where the images it was trained on have masks."""
    with progress.of_analysis(len(runs), "analyze", _analysis_line) as show:
        return run_each(partial(_analyze, data_dir=data_dir), runs, workers=workers, show=show)


def _analyze(run_dir: Path, data_dir: Path | None) -> Json:
    record = analyze_run(run_dir)
    data = trained_data(run_dir)
    if data.name in MASKED:
        overlay.localize(run_dir, data, data_dir)
    return {"measures": record["measures"]}  # the curves stay where they are kept


def _analysis_line(record: Json) -> str:
    measured = record["measures"]["test"]
    return ", ".join(f"{name} {measured[name]:.4f}" for name in ("ece_scaled", "aurc", "vci") if measured[name])


def project(
    comparison: Comparison, data_dir: Path | None, classes: Sequence[str] | None, method: str | None
) -> list[str]:
    """Keeps the projection of a comparison; returns what went wrong.

    Raises:
        ValueError: if `classes` or `method` name what there is not.
    """

    def make() -> None:
        projection.project(comparison.path, data_dir, classes=classes, method=method)

    return _picture(comparison, "projection", make, asked=classes is not None or method is not None)


def gallery(comparison: Comparison, data_dir: Path | None) -> list[str]:
    """Keeps the Grad-CAM gallery of a comparison; returns what went wrong."""
    return _picture(comparison, "Grad-CAM", lambda: overlay.gallery(comparison.path, data_dir), asked=False)


def _picture(comparison: Comparison, name: str, make: Callable[[], object], *, asked: bool) -> list[str]:
    """Records and data that are damaged are a problem; that a network or data set does not lend itself is told."""
    try:
        make()
    except (RecordError, DataError, OSError) as error:
        return [f"{comparison.path}: no {name}: {error}"]
    except ValueError as error:
        if asked:
            raise
        print(f"{comparison.path}: no {name}: {error}")
    return []


def probe(
    runs: Sequence[RunRecord], data: Data, data_dir: Path | None, protocol: probing.Protocol, workers: int | None
) -> list[Outcome]:
    """Probes each run on `data`.

    Raises:
        DataError, ValueError: if the images are absent or damaged, or do not fit the first run or the protocol.
    """
    # Absent or damaged data is one error here, and not one per run.
    probing.prepare(runs[0].path, data, data_dir, protocol)
    function = partial(probing.probe, data=data, data_dir=data_dir, protocol=protocol)
    with progress.of_analysis(len(runs), f"probe on {data.name}", _probe_line) as show:
        return run_each(function, runs, workers=workers, show=show)


def corrupt(runs: Sequence[RunRecord], data_dir: Path | None, workers: int | None) -> list[Outcome]:
    """Tests each run on corrupted test images; one run at a time where there is a GPU, unless `workers` says more."""
    if workers is None and torch.cuda.is_available():
        workers = 1
    with progress.of_analysis(len(runs), "corrupt", _corrupt_line) as show:
        function = partial(corruption.measure_corruptions, data_dir=data_dir)
        return run_each(function, runs, workers=workers, show=show)


def _corrupt_line(record: Json) -> str:
    clean, mean = record["clean"], record["mean"]
    return ", ".join(f"{name} {mean[name]:.4f} (clean {clean[name]:.4f})" for name in corruption.MEASURES)


def unconverged(record: Json) -> int:
    """Fits of a probe's record that did not converge, the last one on all images included."""
    fits = [*record["linear"]["path"], record["linear"]["refit"]]
    return sum(not fit["converged"] for fit in fits)


def _probe_line(record: Json) -> str:
    linear, failed = record["linear"], unconverged(record)
    fits = "all fits converged" if not failed else f"{failed} of {len(linear['path']) + 1} fits did NOT converge"
    return (
        f"linear {linear['accuracy']:.4f} at strength {linear['strength']:.3g}, "
        f"{record['knn']['neighbors']}-NN {record['knn']['accuracy']:.4f}, {fits}"
    )


def probe_table(comparison: Comparison, outcomes: Sequence[Outcome]) -> Table:
    """A line a method: runs, accuracies as mean ± standard deviation over them (ddof 1), fits that did not converge."""
    own = {run.path for run in comparison.runs}
    found = [outcome for outcome in outcomes if outcome.run.path in own and outcome.record is not None]
    data = found[0].record["data"] if found and found[0].record else {"name": "no data", "train": 0, "test": 0}
    table = Table(title=f"Probe on {data['name']}: {data['train']} training and {data['test']} test images")
    table.add_column("method")
    for title in ("n", "linear %", "k-NN %", "unconverged"):
        table.add_column(title, justify="right")
    for method in comparison.methods:
        of = [outcome.record for outcome in found if outcome.run.method == method and outcome.record is not None]
        linear, knn = ([record[kind]["accuracy"] for record in of] for kind in ("linear", "knn"))
        fits = sum(len(record["linear"]["path"]) + 1 for record in of)
        failed = f"{sum(map(unconverged, of))} of {fits}"
        table.add_row(method, str(len(of)), _percent(linear), _percent(knn), failed)
    return table


def _percent(shares: Sequence[float]) -> str:
    of = describe(shares)
    if of.mean is None:
        return "–"
    return f"{100 * of.mean:.2f}" + ("" if of.std is None else f" ± {100 * of.std:.2f}")
