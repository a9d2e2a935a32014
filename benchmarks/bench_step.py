"""Times whole training steps with MaxSup, with label smoothing and with plain cross-entropy: what a loss costs there.

    python benchmarks/bench_step.py [--out benchmarks/results/bench_step] [--seconds 100] [--works resnet50 lm]
    python benchmarks/bench_step.py --tiny

Two works, both on synthetic data that lie on the device, in bfloat16 autocast: timm's ResNet-50 (256 images of 224×224,
channels_last, SGD) and a causal transformer with tied embeddings (6 layers of width 512, 8 × 1024 tokens, vocabulary
50257, AdamW). A step is forward pass, loss, backward pass and optimizer. The losses take turns, in an order that
rotates from round to round, so that a clock that drifts meets all of them; nothing waits for the device in between. The
overhead is the median over the rounds of a step's time over that of the same round's plain cross-entropy, or label
smoothing, minus 1. Memory is the peak of a step, model and optimizer included. After each work the tables are written
to OUT.md and OUT.json.

`--tiny` runs small works on whatever device there is, which shows that the script runs and says nothing about time.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maxsup.functional import linear_max_sup_cross_entropy, max_sup_cross_entropy

ALPHA = 0.1
PLAIN, SMOOTHED = "F.cross_entropy", "F.cross_entropy, label smoothing"
FEWEST_ROUNDS = 5
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Kernels run on a GPU only; "torch" stands in for them in a tiny run elsewhere.
IMPL = "triton" if DEVICE == "cuda" else "torch"


@dataclass(frozen=True)
class Work:
    """A training: what it is, its optimizer, and each loss as a function of nothing, the forward pass included."""

    name: str
    facts: str
    optimizer: torch.optim.Optimizer
    losses: dict[str, Callable[[], Tensor]]

    def step(self, loss: str) -> Tensor:
        with torch.autocast(DEVICE, torch.bfloat16):
            value = self.losses[loss]()
        value.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return value.detach()


def as_published(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z, y) + ALPHA * (z.topk(1, 1).values.squeeze(1) - z.mean(1)).mean()


def losses_of_logits(logits: Callable[[], Tensor], y: Tensor) -> dict[str, Callable[[], Tensor]]:
    every: dict[str, Callable[[], Tensor]] = {
        PLAIN: lambda: F.cross_entropy(logits(), y),
        SMOOTHED: lambda: F.cross_entropy(logits(), y, label_smoothing=ALPHA),
        "MaxSup as published (topk)": lambda: as_published(logits(), y),
        "MaxSup, PyTorch": lambda: max_sup_cross_entropy(logits(), y, ALPHA, impl="torch"),
    }
    if IMPL == "triton":
        every["MaxSup, kernel"] = lambda: max_sup_cross_entropy(logits(), y, ALPHA, impl="triton")
    return every


def resnet50(tiny: bool) -> Work:
    import timm

    batch, side, classes = (2, 16, 10) if tiny else (256, 224, 1000)
    name = "test_resnet" if tiny else "resnet50"
    model = timm.create_model(name, num_classes=classes).to(DEVICE, memory_format=torch.channels_last)
    x = torch.randn(batch, 3, side, side, device=DEVICE).contiguous(memory_format=torch.channels_last)
    y = torch.randint(classes, (batch,), device=DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    facts = f"timm {timm.__version__}, {batch} images of {side}×{side}, {classes} classes, channels_last, SGD"
    return Work(name, facts, optimizer, losses_of_logits(lambda: model(x), y))


class Transformer(nn.Module):
    """Token indices (batch, length) to what the head takes, (batch · length, width); causal, norms first."""

    def __init__(self, vocabulary: int, length: int, width: int, layers: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width)
        nn.init.normal_(self.tokens.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(
            width, width // 64 or 1, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places.weight
        x = self.layers(x, mask=self.mask, is_causal=True)
        return x.flatten(0, 1)


def language_model(tiny: bool) -> Work:
    batch, length, vocabulary, width, layers = (2, 16, 211, 32, 1) if tiny else (8, 1024, 50257, 512, 6)
    model = Transformer(vocabulary, length, width, layers).to(DEVICE)
    head = model.tokens.weight
    text = torch.randint(vocabulary, (batch, length + 1), device=DEVICE)
    x, y = text[:, :-1].contiguous(), text[:, 1:].flatten()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=DEVICE == "cuda")

    def logits() -> Tensor:
        return F.linear(model(x), head)

    losses = losses_of_logits(logits, y)
    if IMPL == "triton":
        losses["MaxSup, kernel, in place"] = lambda: max_sup_cross_entropy(
            logits(), y, ALPHA, impl="triton", inplace=True
        )
    if not tiny:  # compiling takes longer than all that is tiny
        compiled = torch.compile(max_sup_cross_entropy, fullgraph=True, dynamic=False)
        losses["MaxSup, torch.compile"] = lambda: compiled(logits(), y, ALPHA, impl="torch")
    losses["MaxSup, linear head"] = lambda: linear_max_sup_cross_entropy(model(x), head, y, ALPHA, impl=IMPL)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = (
        f"{parameters / 1e6:.0f}M parameters, {layers} layers of width {width}, {batch} × {length} tokens, "
        f"vocabulary {vocabulary}, tied head, AdamW"
    )
    return Work("lm", facts, optimizer, losses)


WORKS = {"resnet50": resnet50, "lm": language_model}


def memory_and_value(work: Work, loss: str) -> tuple[float, float]:
    """Peak memory of a step in GiB (NaN on a CPU), and the loss."""
    for _ in range(2):  # compile, warm up
        work.step(loss)
    if DEVICE != "cuda":
        return math.nan, float(work.step(loss))
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    value = float(work.step(loss))
    return torch.cuda.max_memory_allocated() / 2**30, value


def rounds(work: Work, names: list[str], until: float) -> dict[str, list[float]]:
    """Milliseconds of the losses' steps, one each a round; rounds end with the clock at `until`."""
    marks: dict[str, list[Any]] = {name: [] for name in names}
    done = 0
    while done < FEWEST_ROUNDS or time.perf_counter() < until:
        shift = done % len(names)
        for name in names[shift:] + names[:shift]:
            start = mark()
            work.step(name)
            marks[name].append((start, mark()))
        done += 1
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        return {name: [start.elapsed_time(stop) for start, stop in pairs] for name, pairs in marks.items()}
    return {name: [(stop - start) * 1e3 for start, stop in pairs] for name, pairs in marks.items()}


def mark() -> Any:
    """A point in the device's time."""
    if DEVICE != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def overhead(times: list[float], base: list[float]) -> tuple[float, float, float]:
    """Median and quartiles of the rounds' overheads, in percent."""
    ratios = [100 * (time / other - 1) for time, other in zip(times, base, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return middle, low, high


def measure(work: Work, until: float) -> list[dict[str, Any]]:
    print(f"{work.name}: {work.facts}", flush=True)
    found = {}
    rows = []
    for name in work.losses:
        try:
            found[name] = memory_and_value(work, name)
        except torch.OutOfMemoryError as error:
            rows.append({"work": work.name, "loss": name, "missing": str(error).splitlines()[0][:100]})
            print(f"  {name}: {rows[-1]['missing']}", flush=True)
            work.optimizer.zero_grad()
            torch.cuda.empty_cache()
            continue
        memory, value = found[name]
        print(f"  {name}: loss {value:.4f}, peak memory {memory:.2f} GiB", flush=True)
        if not math.isfinite(value):
            raise RuntimeError(f"the training diverged: the loss is {value}")
    times = rounds(work, list(found), until)
    for name, milliseconds in times.items():
        deciles = statistics.quantiles(milliseconds, n=10)
        rows.append(
            {
                "work": work.name,
                "loss": name,
                "ms": statistics.median(milliseconds),
                "ms_deciles": [deciles[0], deciles[-1]],
                "rounds": len(milliseconds),
                "over_plain": overhead(milliseconds, times[PLAIN]),
                "over_smoothed": overhead(milliseconds, times[SMOOTHED]),
                "peak_gib": found[name][0] if DEVICE == "cuda" else None,
            }
        )
    print(table(rows), flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| work | loss | ms a step (10th-90th percentile) | over cross-entropy, % (quartiles) "
        "| over label smoothing, % (quartiles) | peak memory, GiB | rounds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "missing" in row:
            lines.append(f"| {row['work']} | {row['loss']} | {row['missing']} | | | | |")
            continue
        low, high = row["ms_deciles"]
        over = ["{:+.2f} ({:+.2f} to {:+.2f})".format(*row[key]) for key in ("over_plain", "over_smoothed")]
        memory = "" if row["peak_gib"] is None else f"{row['peak_gib']:.2f}"
        lines.append(
            f"| {row['work']} | {row['loss']} | {row['ms']:.2f} ({low:.2f}-{high:.2f}) | {over[0]} | {over[1]} | "
            f"{memory} | {row['rounds']} |"
        )
    return "\n".join(lines)


def write(out: Path, rows: list[dict[str, Any]], machine: dict[str, str]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    facts = "\n".join(f"- {key}: {value}" for key, value in machine.items())
    out.with_suffix(".md").write_text(f"# Training steps\n\n{facts}\n\n{table(rows)}\n")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="file to write, without its suffix")
    parser.add_argument("--seconds", type=float, default=100, help="in all, about, warming up and compiling included")
    parser.add_argument("--works", nargs="+", default=list(WORKS), choices=list(WORKS))
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args(argv)
    if DEVICE != "cuda" and not arguments.tiny:
        parser.error("there is no GPU: only --tiny runs here")
    machine = {
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU",
        "torch": torch.__version__,
        "Python": platform.python_version(),
    }
    print(machine, flush=True)
    seconds = 0.0 if arguments.tiny else arguments.seconds
    begin = time.perf_counter()
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(arguments.works):
        torch.manual_seed(0)
        work = WORKS[name](arguments.tiny)
        machine[work.name] = work.facts
        rows += measure(work, begin + seconds * (i + 1) / len(arguments.works))
        if arguments.out:
            write(arguments.out, rows, machine)
        del work
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
    print(f"{time.perf_counter() - begin:.0f} s in all")


if __name__ == "__main__":
    # ResNet's convolutions have one shape, so that the fastest of each is looked for once.
    torch.backends.cudnn.benchmark = True
    main()
