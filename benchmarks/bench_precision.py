"""Measures the error of every loss and gradient against float64, beside that of PyTorch's cross-entropy.

    python benchmarks/bench_precision.py [--out benchmarks/results/bench_precision_cpu.md] [--size 512x1000]

Both sides see the same (rounded) logits; the error is ‖ours − float64‖ / ‖float64‖ over the losses of the rows and over
the gradient of their mean.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from pathlib import Path

import torch
from bench_loss import hardware
from torch import Tensor
from torch.nn import functional as F

from maxsup import functional

Loss = Callable[..., Tensor]


def losses(classes: int) -> dict[str, Loss]:
    generator = torch.Generator().manual_seed(1)
    table = torch.rand(classes, classes, generator=generator, dtype=torch.float64)
    table /= table.sum(1, keepdim=True)
    votes = torch.randn(classes, 16, generator=generator, dtype=torch.float64)

    def online(z: Tensor, y: Tensor, **options: str) -> Tensor:
        return functional.online_label_smoothing_cross_entropy(z, y, table.to(z.device), **options)

    def zipf(z: Tensor, y: Tensor, **options: str) -> Tensor:
        # The votes are an input, the same for every precision.
        dense = votes.to(z.device).expand(len(z), -1, -1)
        return functional.zipf_label_smoothing_cross_entropy(z, y, dense, **options)

    def with_form(function: Loss, form: str) -> Loss:
        return lambda z, y, **options: function(z, y, 0.1, form=form, **options)

    regularization = functional.label_smoothing_regularization_cross_entropy
    enhancement = functional.label_smoothing_error_enhancement_cross_entropy
    return {
        "F.cross_entropy": F.cross_entropy,
        "F.cross_entropy(label_smoothing=0.1)": lambda z, y, **o: F.cross_entropy(z, y, label_smoothing=0.1, **o),
        "max_sup": functional.max_sup_cross_entropy,
        "label_smoothing": functional.label_smoothing_cross_entropy,
        "label_smoothing_regularization, terms": with_form(regularization, "terms"),
        "label_smoothing_regularization, classes": with_form(regularization, "classes"),
        "label_smoothing_error_enhancement, terms": with_form(enhancement, "terms"),
        "label_smoothing_error_enhancement, classes": with_form(enhancement, "classes"),
        "label_smoothing_error_enhancement, max": with_form(enhancement, "max"),
        "online_label_smoothing": online,
        "zipf_label_smoothing": zipf,
        "logit_penalty": functional.logit_penalty_cross_entropy,
        "confidence_penalty": functional.confidence_penalty_cross_entropy,
        "confidence_penalty, threshold 1": lambda z, y, **o: functional.confidence_penalty_cross_entropy(
            z, y, threshold=1.0, **o
        ),
    }


def rows_and_gradient(loss: Loss, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    rows = loss(logits, target, reduction="none").detach()
    (gradient,) = torch.autograd.grad(loss(logits, target, reduction="mean"), logits)
    return rows, gradient


def error(value: Tensor, exact: Tensor) -> float:
    return float((value.double() - exact).norm() / exact.norm())


def table(n: int, k: int, device: torch.device) -> str:
    generator = torch.Generator().manual_seed(0)
    drawn = (3 * torch.randn(n, k, generator=generator, dtype=torch.float64)).to(device)
    target = torch.randint(k, (n,), generator=generator).to(device)
    lines = [
        f"{hardware(device)}; torch {torch.__version__}, Python {platform.python_version()}; logits 3·N(0, 1) of "
        f"{n}×{k}, rounded to the type; relative error against float64.",
        "",
        "| loss | float32 loss | float32 gradient | bfloat16 loss | bfloat16 gradient |",
        "|---|---|---|---|---|",
    ]
    for name, loss in losses(k).items():
        cells = []
        for dtype in (torch.float32, torch.bfloat16):
            logits = drawn.to(dtype)
            exact = rows_and_gradient(loss, logits.double(), target)
            cells += [
                f"{error(*pair):.1e}" for pair in zip(rows_and_gradient(loss, logits, target), exact, strict=True)
            ]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--size", default="512x1000")
    arguments = parser.parse_args()
    n, k = (int(part) for part in arguments.size.split("x"))
    text = table(n, k, arguments.device)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("# Error of the losses against float64\n\n" + text)
    print(text)


if __name__ == "__main__":
    main()
