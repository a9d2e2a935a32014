"""Times the fused loss on a GPU against its peers, forward and backward, beside the limit that memory sets.

    python benchmarks/bench_loss_gpu.py [--out benchmarks/results/bench_loss_gpu] [--sizes 262144x1000xbfloat16 …]
                                        [--losses ours "F.cross_entropy" …]
    python benchmarks/bench_loss_gpu.py --soft [--out …] [--sizes …]
    python benchmarks/bench_loss_gpu.py --tune [--soft] [--sizes …]

The limit: logits read once and gradient written once, 2·N·K·bytes, at the bandwidth of a device-to-device copy of the
same run. Times are medians of runs with a cold L2 on random logits, by device events. Runs are enqueued behind a spin
of the device, some at a time, so that the host's share of the time does not count, but for a loss that waits for the
device. Where the limit is below 0.1 ms launches are what takes time: a second time, by the wall clock per step of the
fastest of 21 times 50 steps one after another, has the host's share. Memory is the peak above what was there before, in
multiples of the logits; errors are ‖x − x₆₄‖ / ‖x₆₄‖ of loss and gradient against float64 over the first rows. After
each size the tables are written to OUT.md and OUT.json.

A size with three numbers, as in 8x19x262144xbfloat16, is of dense logits: images, classes, pixels.

With `--soft` the target holds probabilities, in float32, which are read as well: the limit is N·K·(2·bytes + 4).

`--tune` times the kernel alone, cut in several ways, and prints the share of the limit of each.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from maxsup.functional import max_sup_cross_entropy
from maxsup.kernels import launch
from maxsup.kernels.plans import Layout, Plan, layout_of, plan_of, stream_plan
from maxsup.kernels.terms import Terms

ALPHA = 0.1
SIZES = [
    "262144x1000xbfloat16",
    "131072x1000xfloat32",
    "1048576x100xbfloat16",
    "8192x32000xbfloat16",
    "8192x50257xbfloat16",
    "8192x131072xbfloat16",
    "4096x262144xbfloat16",
    "1024x1000xfloat32",
    "1024x1000xbfloat16",
    "16x19x1048576xbfloat16",
    "16x150x65536xfloat32",
]
MILLISECONDS = 120  # of runs, per loss and size
ENQUEUED = 10  # runs behind a spin: few enough for the device's queue
LONGEST_SPIN = 0.1  # seconds
LAUNCH_BOUND = 0.1  # milliseconds
STEPS = 50  # timed together with the host
CHECKED_LOGITS = 1 << 24  # as many rows as have these


def as_published(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z, y) + ALPHA * (z.topk(1, 1).values.squeeze(1) - z.mean(1)).mean()


def with_max(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z, y) + ALPHA * (z.max(1).values - z.mean(1)).mean()


def smoothed(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z, y, label_smoothing=ALPHA)


def liger(z: Tensor, y: Tensor) -> Tensor:
    from liger_kernel.transformers.functional import liger_cross_entropy

    return liger_cross_entropy(z, y, label_smoothing=ALPHA)


def ours(z: Tensor, y: Tensor, **options: Any) -> Tensor:
    return max_sup_cross_entropy(z, y, ALPHA, impl="triton", **options)


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(function, fullgraph=True, dynamic=False)


# What each is, and the penalty that float64 has to show: of MaxSup, of label smoothing, or none.
LOSSES: dict[str, tuple[Callable[..., Tensor], str]] = {
    "F.cross_entropy": (F.cross_entropy, "none"),
    "F.cross_entropy, label smoothing": (smoothed, "smoothing"),
    "MaxSup as published (topk)": (as_published, "max_sup"),
    "the same with max": (with_max, "max_sup"),
    "torch.compile, label smoothing": (smoothed, "smoothing"),
    "torch.compile, MaxSup": (partial(max_sup_cross_entropy, alpha=ALPHA, impl="torch"), "max_sup"),
    "Liger, label smoothing": (liger, "smoothing"),
    "ours": (ours, "max_sup"),
    "ours, in place": (partial(ours, inplace=True), "max_sup"),
}
SOFT_SIZES = ["262144x1000xbfloat16", "131072x1000xfloat32", "1048576x100xbfloat16", "8192x50257xbfloat16"]
CLASS_INDICES_OF_ROWS_ONLY = ("Liger, label smoothing",)
OVERWRITES = ("Liger, label smoothing", "ours, in place")


class Runner:
    """Runs and times a loss on one batch; the gradient goes to logits that are no leaf, as in a model."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, soft: bool) -> None:
        generator = torch.Generator("cuda").manual_seed(0)
        self.logits = torch.randn(shape, device="cuda", dtype=dtype, generator=generator) * 2
        self.target = torch.randint(shape[1], shape[:1] + shape[2:], device="cuda", generator=generator)
        if soft:
            self.target = torch.rand(shape, device="cuda", generator=generator)
            self.target /= self.target.sum(1, keepdim=True)
        self.working = self.logits
        self.anchor = torch.zeros((), device="cuda", requires_grad=True)
        self.flush = torch.empty(1 << 26, dtype=torch.int32, device="cuda")

    def step(self, loss: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
        z = _Logits.apply(self.anchor, self.working)
        value = loss(z, self.target)
        (gradient,) = torch.autograd.grad(value, z)
        return value, gradient

    def time(self, loss: Callable[..., Tensor], overwrites: bool) -> list[float]:
        """Milliseconds of runs with a cold cache; where the logits are overwritten they are restored in between."""
        if overwrites:
            self.working = self.logits.clone()

        def before() -> None:
            if overwrites:
                self.working.copy_(self.logits)
            self.flush.zero_()

        times = device_times(partial(self.step, loss), before, MILLISECONDS)
        self.working = self.logits
        return times

    def time_with_host(self, loss: Callable[..., Tensor], overwrites: bool) -> float:
        """Milliseconds per step of steps one after another, by the wall clock; what else the host does only adds."""
        if overwrites:
            self.working = self.logits.clone()
        times = []
        for _ in range(21):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            for _ in range(STEPS):
                self.step(loss)
            torch.cuda.synchronize()
            times.append((time.perf_counter() - begin) / STEPS * 1e3)
        self.working = self.logits
        return min(times)

    def memory(self, loss: Callable[..., Tensor], overwrites: bool) -> float:
        """Peak memory of a step beyond what was there, in multiples of the logits."""
        if overwrites:
            self.working = self.logits.clone()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.step(loss)
        peak = torch.cuda.max_memory_allocated() - before
        self.working = self.logits
        return peak / (self.logits.numel() * self.logits.element_size())

    def errors(self, loss: Callable[..., Tensor], penalty: str) -> tuple[float, float]:
        """Relative error of loss and gradient against float64, over the first rows."""
        rows = max(1, min(len(self.logits), CHECKED_LOGITS // self.logits[0].numel()))
        few = Runner.__new__(Runner)
        few.anchor, few.target = self.anchor, self.target[:rows]
        few.working = self.logits[:rows].clone()
        z = few.working.double().requires_grad_()
        exact = F.cross_entropy(z, few.target)
        if penalty == "max_sup":
            # By index: amax would share the sub-gradient among equal maxima.
            exact = exact + ALPHA * (z.gather(1, z.argmax(1, keepdim=True)).squeeze(1) - z.mean(1)).mean()
        elif penalty == "smoothing":
            exact = F.cross_entropy(z, few.target, label_smoothing=ALPHA)
        (exact_gradient,) = torch.autograd.grad(exact, z)
        value, gradient = few.step(loss)
        error = abs(float(value.double() - exact)) / abs(float(exact))
        return error, float((gradient.double() - exact_gradient).norm() / exact_gradient.norm())


def device_times(run: Callable[[], Any], before: Callable[[], Any], milliseconds: float) -> list[float]:
    """Milliseconds that the device takes for each of several runs, with `before` in between and not counted."""
    for _ in range(3):  # compile, warm up
        run()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    count = min(200, max(7, int(milliseconds / 1e3 / seconds)))
    spin = 2 * ENQUEUED * seconds + 1e-3
    times: list[float] = []
    while len(times) < count:
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(ENQUEUED)]
        torch.cuda._sleep(int(min(spin, LONGEST_SPIN) * cycles_per_second()))
        for start, stop in events:
            before()
            start.record()
            run()
            stop.record()
        late = events[0][0].query()  # the device had its first run before the host had enqueued the last
        torch.cuda.synchronize()
        if late and spin < LONGEST_SPIN:
            spin *= 2
            continue
        times += [start.elapsed_time(stop) for start, stop in events]
    return times


@functools.cache
def cycles_per_second() -> float:
    """Of `torch.cuda._sleep`."""
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda._sleep(1_000_000)
    start.record()
    torch.cuda._sleep(20_000_000)
    stop.record()
    torch.cuda.synchronize()
    return 20_000_000 / (start.elapsed_time(stop) / 1e3)


class _Logits(torch.autograd.Function):
    """Logits as a layer's output: not a leaf, and no memory of their own."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, values: Tensor) -> Tensor:
        return torch.empty(0, device=values.device, dtype=values.dtype).set_(
            values.untyped_storage(), values.storage_offset(), values.shape, values.stride()
        )

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None]:
        return None, None


def copy_bandwidth() -> float:
    """Bytes per second, read and written, of a device-to-device copy of 2 GiB."""
    source = torch.randint(-(1 << 31), 1 << 31, (1 << 28,), device="cuda").view(torch.int64)
    copy = torch.empty_like(source)
    milliseconds = triton.testing.do_bench(lambda: copy.copy_(source), return_mode="median")
    return 2 * source.numel() * 8 / (milliseconds / 1e3)


def floor_of(logits: Tensor, soft: bool, bandwidth: float) -> float:
    """Milliseconds to read all that has to be read and to write the gradient."""
    return logits.numel() * (2 * logits.element_size() + 4 * soft) / bandwidth * 1e3


def measure(size: str, names: list[str], bandwidth: float, soft: bool) -> list[dict[str, Any]]:
    shape, dtype = parse(size)
    runner = Runner(shape, dtype, soft)
    floor = floor_of(runner.logits, soft, bandwidth)
    rows = []
    for name in names:
        if name in CLASS_INDICES_OF_ROWS_ONLY and (soft or len(shape) > 2):
            continue
        loss, penalty = LOSSES[name]
        if name.startswith("torch.compile"):
            torch.compiler.reset()
            loss = compiled(loss)
        overwrites = name in OVERWRITES
        row: dict[str, Any] = {"size": size, "loss": name, "floor_ms": floor}
        try:
            times = runner.time(loss, overwrites)
            if floor < LAUNCH_BOUND:
                row["ms_with_host"] = runner.time_with_host(loss, overwrites)
            row["memory"] = runner.memory(loss, overwrites)
            row["loss_error"], row["gradient_error"] = runner.errors(loss, penalty)
        except (ImportError, torch.OutOfMemoryError) as error:
            row["missing"] = f"{type(error).__name__}: {error}".splitlines()[0][:100]
            print(f"{size} {name}: {row['missing']}", flush=True)
            rows.append(row)
            torch.cuda.empty_cache()
            continue
        row["ms"] = statistics.median(times)
        row["ms_deciles"] = [statistics.quantiles(times, n=10)[i] for i in (0, -1)]
        row["share"] = floor / row["ms"]
        rows.append(row)
        host = f", {row['ms_with_host']:.3f} ms with the host" if "ms_with_host" in row else ""
        print(
            f"{size:24} {name:34} {row['ms']:8.3f} ms{host} {row['share']:6.1%} memory {row['memory']:.2f} "
            f"errors {row['loss_error']:.1e} {row['gradient_error']:.1e}",
            flush=True,
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| size | loss | ms (10th-90th percentile) | share of the limit | ms with the host | memory | error of loss "
        "| of gradient |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "missing" in row:
            lines.append(f"| {row['size']} | {row['loss']} | {row['missing']} | | | | | |")
            continue
        low, high = row["ms_deciles"]
        host = f"{row['ms_with_host']:.3f}" if "ms_with_host" in row else ""
        lines.append(
            f"| {row['size']} | {row['loss']} | {row['ms']:.3f} ({low:.3f}-{high:.3f}) | {row['share']:.0%} | {host} | "
            f"{row['memory']:.2f}× | {row['loss_error']:.1e} | {row['gradient_error']:.1e} |"
        )
    return "\n".join(lines)


def write(out: Path, rows: list[dict[str, Any]], machine: dict[str, Any], soft: bool) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    facts = ", ".join(f"{key} {value}" for key, value in machine.items())
    title = "The fused loss on a GPU" + ", targets of probabilities" * soft
    out.with_suffix(".md").write_text(f"# {title}\n\n{facts}\n\n{table(rows)}\n")


def parse(size: str) -> tuple[tuple[int, ...], torch.dtype]:
    *shape, dtype = size.split("x")
    return tuple(map(int, shape)), getattr(torch, dtype)


def plans(k: int, size: int, layout: Layout, soft: bool) -> list[Plan]:
    """The cuts that `--tune` tries, the default first."""
    default = plan_of(k, size, layout, 4 * soft)
    groups = triton.next_power_of_2(-(-k // layout.vector))
    columns = groups * layout.vector
    found = [default, dataclasses.replace(default, ahead=not default.ahead)]
    found += [dataclasses.replace(default, store=hint) for hint in ("evict_last", "", "evict_first")]
    # Rows, warps, programs of a multiprocessor, registers of a thread, whether to load ahead.
    tiles: list[tuple[int, int, int, int, bool]] = []
    if columns <= 256:
        tiles = [(8, 1, 16, 128, False), (8, 1, 16, 128, True), (8, 1, 20, 96, False), (8, 1, 12, 168, True)]
        tiles += [(4, 1, 24, 80, False), (4, 1, 20, 96, False), (4, 1, 20, 96, True), (4, 1, 16, 128, True)]
        tiles += [(16, 2, 8, 128, True), (8, 2, 12, 80, False), (1, 1, 32, 64, False), (2, 1, 28, 72, False)]
    elif columns <= 2048:
        tiles = [(1, 1, 24, 80, False), (1, 1, 20, 96, False), (1, 1, 20, 96, True), (1, 1, 16, 128, False)]
        tiles += [(1, 1, 16, 128, True), (1, 1, 12, 168, True), (2, 1, 8, 255, False), (2, 2, 8, 128, False)]
        tiles += [(1, 2, 12, 80, False), (1, 2, 10, 96, False)]
        if soft:
            tiles += [(1, 1, 8, 255, True), (1, 1, 10, 200, True), (1, 2, 6, 168, True), (1, 4, 4, 128, True)]
    for rows, warps, programs, registers, ahead in tiles:
        found.append(Plan(rows, groups, 1, warps, programs, registers, ahead))
    if k * size > 32768:
        # Bytes of a chunk, warps, programs, programs that share a row, chunks fetched beyond the next.
        cuts = [(32768, 16, 1, 1, ahead) for ahead in (0, 1, 2, 3, 5)]
        cuts += [(16384, 8, 2, 1, ahead) for ahead in (0, 1, 2, 3, 5)]
        cuts += [(16384, 4, 3, 1, 0), (16384, 4, 3, 1, 2), (8192, 4, 4, 1, 0), (8192, 4, 4, 1, 3)]
        if k * size > 65536 and not soft:
            cuts += [(32768, 16, 1, 2, 0), (32768, 16, 1, 2, 2), (32768, 16, 1, 4, 2)]
            cuts += [(16384, 8, 2, parts, ahead) for parts in (2, 4, 8) for ahead in (0, 1, 2, 3)]
            cuts += [(8192, 4, 4, 8, 0), (8192, 4, 4, 8, 3)]
        streams = [
            stream_plan(k, layout, chunk // size, warps=warps, programs=programs, parts=parts, prefetch=prefetch)
            for chunk, warps, programs, parts, prefetch in cuts
        ]
        found += streams
        found += [dataclasses.replace(plan, ahead=False) for plan in streams if plan.parts == 1 and plan.prefetch == 2]
        found += [dataclasses.replace(plan, keep="") for plan in streams if plan.parts == 1 and plan.prefetch == 2]
    return list(dict.fromkeys(found))


def compile_ahead(sizes: list[str], soft: bool) -> None:
    """Fills Triton's cache with the cuts of `--tune` by as many processes as there are cores."""
    workers = min(16, os.cpu_count() or 1)
    commands = [
        [sys.executable, __file__, "--tune", "--part", str(part), str(workers), *["--soft"] * soft, "--sizes", *sizes]
        for part in range(workers)
    ]
    processes = [subprocess.Popen(command) for command in commands]
    if sum(process.wait() != 0 for process in processes):
        print("not every cut was compiled ahead", flush=True)


def tune(size: str, bandwidth: float, seconds: float, part: tuple[int, int] | None, soft: bool) -> None:
    (n, k), dtype = parse(size)
    if part:  # compiles only: few rows, and as many as leave the kernel the same
        n = min(n, 4096, max(64, (1 << 24) // k))
    runner = Runner((n, k), dtype, soft)
    logits = runner.logits
    gradient = torch.empty_like(logits)
    loss = torch.empty((), device="cuda")
    rows = launch.Rows(runner.target, None, -100, Terms(max_sup=ALPHA), None)
    layout = layout_of(logits, rows.soft)
    tried = plans(k, logits.element_size(), layout, soft)
    run = partial(launch.losses_and_gradient, logits, rows, loss=loss, gradient=gradient)
    failures = (triton.runtime.errors.OutOfResources, RuntimeError)
    if part:
        for plan in tried[part[0] :: part[1]]:
            with contextlib.suppress(*failures):  # the run that counts tells them
                run(plan=plan)
        torch.cuda.synchronize()
        return

    floor = floor_of(logits, soft, bandwidth)

    def share(function: Callable[[], Any]) -> float:
        return floor / statistics.median(device_times(function, runner.flush.zero_, 40))

    few = max(1, min(n, (1 << 22) // k))
    z = logits[-few:].double().requires_grad_()
    exact = F.cross_entropy(z, runner.target[-few:]) * few / n
    exact = exact + ALPHA * (z.gather(1, z.argmax(1, keepdim=True)).squeeze(1) - z.mean(1)).sum() / n
    (exact_gradient,) = torch.autograd.grad(exact, z)
    del z, exact
    print(f"{size}: limit {floor:.3f} ms, {layout}; a copy of this size {share(lambda: gradient.copy_(logits)):.1%}")
    begin = time.perf_counter()
    results = []
    for plan in tried:
        if time.perf_counter() - begin > seconds:
            print(f"  stopped after {len(results)} of {len(tried)} cuts", flush=True)
            break
        gradient.fill_(float("nan"))
        try:
            run(plan=plan)
            torch.cuda.synchronize()
        except failures as error:
            print(f"  {short(plan)}: {type(error).__name__} {str(error)[:80]}", flush=True)
            continue
        error = float((gradient[-few:].double() - exact_gradient).norm() / exact_gradient.norm())
        results.append((share(partial(run, plan=plan)), plan, error))
    results.sort(key=lambda result: -result[0])
    for part_of_limit, plan, error in results:
        print(f"  {part_of_limit:6.1%}  {short(plan)}  error {error:.1e}", flush=True)
    # What holds the best cut back: the launches around it, or what it writes.
    plan = results[0][1]
    divided = dataclasses.replace(rows, divisor=float(n))
    alone = share(lambda: launch.losses_and_gradient(logits, divided, loss=None, gradient=gradient, plan=plan))
    each = torch.empty((n,), device="cuda")
    reads = share(lambda: launch.losses_and_gradient(logits, rows, loss=each, gradient=None, plan=plan))
    reads *= 1 - n * k * logits.element_size() / bandwidth * 1e3 / floor
    print(f"  the best cut: gradient alone, one launch {alone:.1%}; loss alone {reads:.1%} of reading", flush=True)


def short(plan: Plan) -> str:
    return " ".join(f"{key}={value}" for key, value in dataclasses.asdict(plan).items() if value not in (None, False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="file to write, without its suffix")
    parser.add_argument("--sizes", nargs="+")
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=list(LOSSES))
    parser.add_argument("--soft", action="store_true", help="targets are probabilities")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--seconds", type=float, default=60, help="of --tune, per size, about")
    parser.add_argument("--part", type=int, nargs=2, help="compile this part of the cuts of --tune, and end: I of N")
    arguments = parser.parse_args()
    if arguments.sizes is None:
        arguments.sizes = SOFT_SIZES if arguments.soft else SIZES
    if arguments.tune:  # which knows rows only
        arguments.sizes = [size for size in arguments.sizes if len(parse(size)[0]) == 2]
    if arguments.part:
        for size in arguments.sizes:
            tune(size, 1.0, arguments.seconds, tuple(arguments.part), arguments.soft)
        return
    if arguments.tune:
        compile_ahead(arguments.sizes, arguments.soft)
    bandwidth = copy_bandwidth()
    machine = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "Python": platform.python_version(),
        "copy": f"{bandwidth / 1e12:.2f} TB/s",
    }
    print(machine, flush=True)
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes:
        if arguments.tune:
            tune(size, bandwidth, arguments.seconds, None, arguments.soft)
        else:
            rows += measure(size, arguments.losses, bandwidth, arguments.soft)
            if arguments.out:
                write(arguments.out, rows, machine, arguments.soft)
        torch.cuda.empty_cache()
    if rows:
        print(table(rows))


if __name__ == "__main__":
    main()
