"""Times MaxSup against PyTorch's label smoothing, forward and backward, side by side in one run.

    python benchmarks/bench_loss.py [--out benchmarks/results/bench_loss_cpu.md] [--threads 2] [--sizes 256x10 …]

The losses take turns, in alternating order, so that whatever else the machine does meets all of them; ratios are of
medians of the same run.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from maxsup.functional import label_smoothing_cross_entropy, max_sup_cross_entropy

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "F.cross_entropy(label_smoothing=0.1)": lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1),
    "F.cross_entropy": F.cross_entropy,
    "max_sup_cross_entropy": lambda z, y: max_sup_cross_entropy(z, y, 0.1),
    "label_smoothing_cross_entropy": lambda z, y: label_smoothing_cross_entropy(z, y, 0.1),
}
SECONDS = 4.0  # per size and loss, about


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{name}, {torch.get_num_threads()} threads"


def step(loss: Loss, logits: Tensor, target: Tensor) -> float:
    logits.grad = None
    if logits.is_cuda:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    loss(logits, target).backward()
    if logits.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def measure(losses: dict[str, Loss], n: int, k: int, device: torch.device) -> dict[str, list[float]]:
    torch.manual_seed(0)
    logits = torch.randn(n, k, device=device, requires_grad=True)
    target = torch.randint(k, (n,), device=device)
    for loss in losses.values():  # compile, warm up
        step(loss, logits, target)
        step(loss, logits, target)
    slowest = max(step(loss, logits, target) for loss in losses.values())
    rounds = min(2000, max(9, round(SECONDS / slowest)))
    times: dict[str, list[float]] = {name: [] for name in losses}
    order = list(losses)
    for _ in range(rounds):
        for name in order:
            times[name].append(step(losses[name], logits, target))
        order.reverse()
    return times


def table(sizes: list[tuple[int, int]], device: torch.device) -> str:
    lines = [
        f"{hardware(device)}; torch {torch.__version__}, Python {platform.python_version()}; float32, forward and "
        "backward; median (10th-90th percentile) in ms, and the ratio of medians to "
        "`F.cross_entropy(label_smoothing=0.1)` of the same row group.",
        "",
        "| size | mode | loss | ms | ratio |",
        "|---|---|---|---|---|",
    ]
    for n, k in sizes:
        for mode in ("eager", "compiled"):
            losses = LOSSES
            if mode == "compiled":
                torch.compiler.reset()
                losses = {name: torch.compile(loss, fullgraph=True) for name, loss in LOSSES.items()}
            times = measure(losses, n, k, device)
            medians = {name: statistics.median(values) for name, values in times.items()}
            base = next(iter(medians.values()))
            for name, values in times.items():
                deciles = statistics.quantiles(values, n=10)
                spread = f"{deciles[0] * 1e3:.3g}-{deciles[-1] * 1e3:.3g}"
                ms = f"{medians[name] * 1e3:.3g} ({spread})"
                lines.append(f"| {n}×{k} | {mode} | `{name}` | {ms} | {medians[name] / base:.2f} |")
            print("\n".join(lines[-len(times) :]), flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--sizes", nargs="+", default=["256x10", "2048x1000", "4096x32000"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sizes = [(int(n), int(k)) for n, k in (size.split("x") for size in arguments.sizes)]
    text = table(sizes, arguments.device)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("# MaxSup against label smoothing\n\n" + text)
    print(text)


if __name__ == "__main__":
    main()
