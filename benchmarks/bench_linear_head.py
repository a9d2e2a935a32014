"""Times the linear head on a GPU against its peers, forward and backward: milliseconds, peak memory, error.

    python benchmarks/bench_linear_head.py [--out benchmarks/results/bench_linear_head] [--tokens 8192] [--hidden 4096]
                                           [--classes 131072] [--heads ours Liger …]

Beside each time is that of the three products alone: logits, the gradient of hidden and that of weight, each in one
piece. Times are medians of runs in bfloat16, by device events; memory is the peak above hidden, weight and target, the
gradients of the first two included; errors are ‖x − x₃₂‖ / ‖x₃₂‖ of loss and gradients against float32 arithmetic on
the same bfloat16 numbers, where MaxSup's largest logit is the one that is the largest in bfloat16: which of nearly
equal logits that is says nothing of the arithmetic. Liger (`liger-kernel`) and cut-cross-entropy are measured where
they can be imported; the latter has no smoothing term, and by default leaves out gradients that are small.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from maxsup.functional import linear_max_sup_cross_entropy, max_sup_cross_entropy

ALPHA = 0.1
SECONDS = 1.0  # of runs, per head
ROWS_OF_THE_EXACT_LOSS = 512

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def ours(h: Tensor, w: Tensor, y: Tensor, **options: Any) -> Tensor:
    return linear_max_sup_cross_entropy(h, w, y, ALPHA, impl="triton", **options)


def logits_and_fused_loss(h: Tensor, w: Tensor, y: Tensor, **options: Any) -> Tensor:
    return max_sup_cross_entropy(F.linear(h, w), y, ALPHA, impl="triton", **options)


def logits_and_label_smoothing(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(h, w), y, label_smoothing=ALPHA)


def liger(h: Tensor, w: Tensor, y: Tensor, **options: Any) -> Tensor:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    return liger_fused_linear_cross_entropy(h, w, y, label_smoothing=ALPHA, **options)


def cut_cross_entropy(h: Tensor, w: Tensor, y: Tensor, **options: Any) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(h, w, y, **options)


# What each is, and the penalty that the exact loss has to show: of MaxSup, of label smoothing, or none.
HEADS: dict[str, tuple[Loss, str]] = {
    "ours": (ours, "max_sup"),
    "ours, added up in bfloat16": (partial(ours, accumulate=torch.bfloat16), "max_sup"),
    "logits + fused MaxSup": (logits_and_fused_loss, "max_sup"),
    "logits + fused MaxSup, in place": (partial(logits_and_fused_loss, inplace=True), "max_sup"),
    "logits + F.cross_entropy, label smoothing": (logits_and_label_smoothing, "smoothing"),
    "Liger, label smoothing": (liger, "smoothing"),
    "Liger, label smoothing, added up in float32": (partial(liger, accum_dtype=torch.float32), "smoothing"),
    "cut-cross-entropy": (cut_cross_entropy, "none"),
    "cut-cross-entropy, all gradients": (partial(cut_cross_entropy, filter_eps=None), "none"),
}


def step(loss: Loss, h: Tensor, w: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = loss(h, w, y)
    of_hidden, of_weight = torch.autograd.grad(value, (h, w))
    return value.detach(), of_hidden, of_weight


def products(h: Tensor, w: Tensor, y: Tensor) -> Any:
    """The three products without a loss."""
    with torch.no_grad():
        logits = F.linear(h, w)
        return logits @ w, logits.t() @ h


def exact(penalty: str, h: Tensor, w: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients in float32, by autograd, some rows at a time."""
    weight = w.detach().float().requires_grad_()
    total = torch.zeros((), device=h.device, dtype=torch.float64)
    of_hidden = []
    for start in range(0, len(y), ROWS_OF_THE_EXACT_LOSS):
        part = slice(start, start + ROWS_OF_THE_EXACT_LOSS)
        hidden = h.detach()[part].float().requires_grad_()
        z = hidden @ weight.t()
        loss = F.cross_entropy(z, y[part], reduction="sum", label_smoothing=ALPHA if penalty == "smoothing" else 0.0)
        if penalty == "max_sup":
            top = F.linear(h.detach()[part], w.detach()).argmax(1, keepdim=True)
            loss = loss + ALPHA * (z.gather(1, top).squeeze(1) - z.mean(1)).sum()
        (loss / len(y)).backward()
        total += loss.detach() / len(y)
        of_hidden.append(hidden.grad)
        del z, loss
    assert weight.grad is not None
    return total, torch.cat(of_hidden), weight.grad


def relative_error(x: Tensor, exact: Tensor) -> float:
    return float((x.float() - exact).norm() / exact.norm())


def time_of(run: Callable[[], Any]) -> list[float]:
    """Milliseconds of runs, after warm ones."""
    for _ in range(2):  # compile, warm up
        run()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    torch.cuda.synchronize()
    count = min(50, max(5, int(SECONDS / (time.perf_counter() - begin))))
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(count)]
    for start, stop in events:
        start.record()
        run()
        stop.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(stop) for start, stop in events]


def measure(
    name: str, h: Tensor, w: Tensor, y: Tensor, truths: dict[str, tuple[Tensor, Tensor, Tensor]]
) -> dict[str, Any]:
    loss, penalty = HEADS[name]
    run = partial(step, loss, h, w, y)
    try:
        milliseconds = time_of(run)
    except (ImportError, torch.OutOfMemoryError) as error:
        return {"head": name, "missing": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = run()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    errors = [relative_error(x, true) for x, true in zip(results, truths[penalty], strict=True)]
    deciles = statistics.quantiles(milliseconds, n=10)
    return {
        "head": name,
        "ms": statistics.median(milliseconds),
        "ms_deciles": (deciles[0], deciles[-1]),
        "runs": len(milliseconds),
        "peak_bytes": peak,
        "loss_error": errors[0],
        "hidden_error": errors[1],
        "weight_error": errors[2],
    }


def table(rows: list[dict[str, Any]], products_ms: float) -> str:
    lines = [
        "| head | ms (10th-90th percentile) | × the products | peak memory, GiB | error of loss | of hidden's gradient "
        "| of weight's |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "missing" in row:
            lines.append(f"| {row['head']} | {row['missing']} | | | | | |")
            continue
        low, high = row["ms_deciles"]
        lines.append(
            f"| {row['head']} | {row['ms']:.1f} ({low:.1f}-{high:.1f}) | {row['ms'] / products_ms:.2f} | "
            f"{row['peak_bytes'] / 2**30:.2f} | {row['loss_error']:.1e} | {row['hidden_error']:.1e} | "
            f"{row['weight_error']:.1e} |"
        )
    return "\n".join(lines)


def version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="file to write, without its suffix")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--classes", type=int, default=131072)
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=list(HEADS))
    arguments = parser.parse_args()
    n, d, k = arguments.tokens, arguments.hidden, arguments.classes
    generator = torch.Generator("cuda").manual_seed(0)
    h = torch.randn(n, d, device="cuda", generator=generator).bfloat16().requires_grad_()
    w = (torch.randn(k, d, device="cuda", generator=generator) * 2 / d**0.5).bfloat16().requires_grad_()
    y = torch.randint(k, (n,), device="cuda", generator=generator)
    products_ms = statistics.median(time_of(partial(products, h, w, y)))
    machine = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "Python": platform.python_version(),
        "liger-kernel": version("liger-kernel"),
        "cut-cross-entropy": version("cut-cross-entropy"),
        "tokens": n,
        "hidden": d,
        "classes": k,
        "products alone": f"{products_ms:.1f} ms",
    }
    print(machine, flush=True)
    needed = {HEADS[name][1] for name in arguments.heads}
    rows: list[dict[str, Any]] = []
    for penalty in sorted(needed):  # one exact gradient at a time: that of weight takes 4·K·D bytes
        truths = {penalty: exact(penalty, h, w, y)}
        torch.cuda.empty_cache()
        for name in [name for name in arguments.heads if HEADS[name][1] == penalty]:
            rows.append(measure(name, h, w, y, truths))
            print(rows[-1], flush=True)
            torch.cuda.empty_cache()
    rows.sort(key=lambda row: arguments.heads.index(row["head"]))
    text = table(rows, products_ms)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"machine": machine, "products_ms": products_ms, "rows": rows}
        arguments.out.with_suffix(".json").write_text(json.dumps(record, indent=1))
        facts = ", ".join(f"{key} {value}" for key, value in machine.items())
        arguments.out.with_suffix(".md").write_text(f"# The linear head on a GPU\n\n{facts}\n\n{text}\n")


if __name__ == "__main__":
    main()
