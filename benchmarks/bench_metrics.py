"""Times class separation and the variability collapse index of many features, with their memory.

    python benchmarks/bench_metrics.py [--out benchmarks/results/bench_metrics_cpu.md] [--threads 2] [--repeats 3]

The quadratic form of class separation runs on a slice, for comparison. Each form has a process of its own, so that the
peak memory of one does not hide that of another.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from maxsup.metrics import class_separation, variability_collapse_index

Form = Callable[[Tensor, Tensor], Tensor]


def quadratic(features: Tensor, labels: Tensor) -> Tensor:
    """R² from the cosine of every pair, by the definition; (N, N) numbers."""
    unit = F.normalize(features, dim=1)
    distance = 1 - unit @ unit.T
    one_hot = F.one_hot(labels.unique(return_inverse=True)[1]).to(features.dtype)
    shares = one_hot / one_hot.sum(0)
    blocks = shares.T @ distance @ shares
    return 1 - blocks.diagonal().mean() / blocks.mean()


FORMS: dict[str, Form] = {
    "class_separation": lambda features, labels: class_separation(features, labels).r_squared,
    "quadratic": quadratic,
    "variability_collapse_index": variability_collapse_index,
}


def peak() -> float:
    """Largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def sample(n: int, d: int, k: int) -> tuple[Tensor, Tensor]:
    """Classes of nearly equal size about centres as far apart as samples are; few rows at a time, for the peak."""
    torch.manual_seed(0)
    labels, centres, features = torch.arange(n) % k, torch.randn(k, d), torch.randn(n, d)
    for some, classes in zip(features.split(100), labels.split(100), strict=True):
        some += centres[classes]
    return features, labels


def measure(
    name: str, n: int, d: int, k: int, threads: int, repeats: int
) -> tuple[list[float], list[float], float, float]:
    """Seconds and processor seconds of each repeat, peak memory beyond the input in MiB, and the value."""
    torch.set_num_threads(threads)
    features, labels = sample(n, d, k)
    form = FORMS[name]
    form(torch.randn(8, 4), torch.arange(8) % 2)  # loads what is loaded on first use
    before, times, busy, value = peak(), [], [], torch.tensor(torch.nan)
    for _ in range(repeats):
        begin, begin_busy = time.perf_counter(), time.process_time()
        value = form(features, labels)
        times.append(time.perf_counter() - begin)
        busy.append(time.process_time() - begin_busy)
    return times, busy, peak() - before, float(value)


def hardware() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g})"


def table(arguments: argparse.Namespace) -> str:
    n, part, d, k = arguments.rows, arguments.slice, arguments.columns, arguments.classes
    lines = [
        f"{hardware()}, {arguments.threads} threads, load {os.getloadavg()[0]:.1f} at the start; "
        f"torch {torch.__version__}, Python {platform.python_version()}; float32 features of {d} columns, "
        f"{k} classes; median (least-most) of {arguments.repeats} in seconds, "
        "elapsed and of processor time over all threads, which other work on the machine stretches less; peak resident "
        "memory beyond the input in MiB.",
        "",
        "| form | rows | s | processor s | MiB | value |",
        "|---|---|---|---|---|---|",
    ]
    jobs = [("class_separation", n), ("class_separation", part), ("quadratic", part), ("variability_collapse_index", n)]
    for name, rows in jobs:
        # A fresh process each, for the peak.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            job = (name, rows, d, k, arguments.threads, arguments.repeats)
            times, busy, memory, value = pool.apply(measure, job)
        lines.append(f"| {name} | {rows:,} | {spread(times)} | {spread(busy)} | {memory:.0f} | {value:.6f} |")
        print(lines[-1], flush=True)
        if name == "quadratic":
            pairs = (n / part) ** 2
            elapsed, processor = (f"{statistics.median(values) * pairs:.3g}" for values in (times, busy))
            lines.append(
                f"| {name}, by pairs | {n:,} | {elapsed} | {processor} | {memory * pairs:.0f} | extrapolated |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--slice", type=int, default=5_000, help="rows for the quadratic form")
    parser.add_argument("--columns", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=1000)
    arguments = parser.parse_args()
    text = table(arguments)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("# Class separation and variability collapse of many features\n\n" + text)
    print(text)


if __name__ == "__main__":
    main()
