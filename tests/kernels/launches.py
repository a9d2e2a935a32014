"""Random batches, each like the one before but for a thing or two: is a kept cut the one that Triton would compile?

    python tests/kernels/launches.py BATCHES [blind]

Nothing is launched. For each launch Triton says what it would compile for these arguments on a CUDA device; a launcher
that stands for two compilations, or a kept cut that differs from a new one, is counted. Prints launches by kept cuts,
and the faults. With `blind` the key of the cuts has no addresses, and there have to be faults.

Not in Triton's interpreter, and so in a process of its own.
"""

import dataclasses
import random
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

from maxsup.kernels import launch
from maxsup.kernels.launch import Rows
from maxsup.kernels.launcher import Launcher
from maxsup.kernels.terms import Terms

RANDOM = random.Random(0)
FLOATS = [torch.float32, torch.bfloat16, torch.float16]
BACKEND = make_backend(GPUTarget("cuda", 90, 32))


def at(offset: int, dtype: torch.dtype, shape: tuple[int, ...], strides: tuple[int, ...] | None = None) -> Tensor:
    """A tensor that begins `offset` elements after a multiple of 64 bytes."""
    if strides is None:
        strides = torch.empty(shape, device="meta").stride()
    last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True) if size > 0)
    return torch.empty(max(last, 0) + 1 + offset, dtype=dtype).as_strided(shape, strides, offset)


def number() -> Any:
    return RANDOM.choice([None, 0.1, 0.2, 1, *((RANDOM.choice([0, 1, 4]), t) for t in (torch.float32, torch.float64))])


def of_number(value: Any) -> Any:
    return at(*value, ()) if isinstance(value, tuple) else value


CHOICES: dict[str, Callable[[], Any]] = {
    "planes": lambda: RANDOM.random() < 0.3,
    "classes": lambda: RANDOM.choice([1, 3, 8, 37, 40, 1000, 20000, 50257, 262144]),
    "rows": lambda: RANDOM.choice([1, 2, 5, 300, 2048, 2049, 16385]),
    "pixels": lambda: RANDOM.choice([64, 65, 512]),
    "gap": lambda: RANDOM.choice([0, 0, 1, 4, 8]),
    "logits": lambda: (RANDOM.choice([0, 1, 2, 4, 8, 16]), RANDOM.choice(FLOATS)),
    "soft": lambda: RANDOM.random() < 0.3,
    "target": lambda: RANDOM.choice([0, 1, 2, 4, 8]),
    "target_dtype": lambda: RANDOM.choice([torch.int64, torch.uint8]),
    "soft_dtype": lambda: RANDOM.choice(FLOATS),
    "weight": lambda: RANDOM.choice([None, *((RANDOM.choice([0, 1, 4]), t) for t in FLOATS)]),
    **dict.fromkeys(("max_sup", "smoothing", "penalty", "z_loss", "divisor"), number),
    "strict": lambda: RANDOM.random() < 0.3,
    "ignore_index": lambda: RANDOM.choice([-100, 0, 1, 2**40]),
    "loss": lambda: RANDOM.choice([None, "sum", "rows"]),
    "loss_place": lambda: (RANDOM.choice([0, 1]), RANDOM.choice(FLOATS)),
    "gradient": lambda: RANDOM.choice([None, "own", "inplace"]),
    "upstream": lambda: RANDOM.choice([None, "number", *((o, s) for o in (0, 1) for s in (0, 1, 2))]),
}


def run(of: dict[str, Any]) -> None:
    """`losses_and_gradient` of such a batch."""
    offset, dtype = of["logits"]
    if of["planes"]:
        classes = min(of["classes"], 40)
        pixels = of["pixels"] + of["gap"]
        shape: tuple[int, ...] = (min(of["rows"], 5), classes, of["pixels"])
        strides: tuple[int, ...] = (classes * pixels, pixels, 1)
        count = shape[0] * shape[2]
    else:
        classes = of["classes"]
        count = of["rows"] if classes < 1000 else min(of["rows"], 5)
        shape, strides = (count, classes), (classes + of["gap"], 1)
    logits = at(offset, dtype, shape, strides)
    targets = (of["soft_dtype"], shape) if of["soft"] else (of["target_dtype"], (count,))
    target = at(of["target"], *targets)
    terms = Terms(*(of_number(of[name]) for name in ("max_sup", "smoothing", "penalty", "z_loss")), of["strict"])
    weight = None if of["weight"] is None else at(*of["weight"], (classes,))
    rows = Rows(target, weight, of["ignore_index"], terms, of_number(of["divisor"]))
    loss = None if of["loss"] is None else at(*of["loss_place"], () if of["loss"] == "sum" else (count,))
    if of["gradient"] == "inplace" and logits.is_contiguous():
        gradient: Tensor | None = logits
    else:
        gradient = None if of["gradient"] is None and loss is not None else at(0, dtype, shape)
    upstream = None
    if gradient is not None and of["upstream"] is not None:
        place = of["upstream"]
        upstream = torch.empty(()) if place == "number" else at(place[0], torch.float32, (count,), (place[1],))
    launch.losses_and_gradient(logits, rows, loss=loss, gradient=gradient, upstream=upstream)


def without_launcher(cut: Any) -> Any:
    made = cut.launcher
    return dataclasses.replace(cut, launcher=None), made.kernel, made.constants, made.options


def main() -> None:
    batches, blind = int(sys.argv[1]), "blind" in sys.argv
    binders: dict[Any, Any] = {}
    compiled: dict[Launcher, Any] = {}
    kept: set[int] = set()
    hits, faults = 0, []

    def call(self: Launcher, programs: int, *arguments: Any) -> None:
        kernel = self.kernel
        if kernel not in binders:
            binders[kernel] = create_function_from_signature(kernel.signature, kernel.params, BACKEND)
        bound, specialization, options = binders[kernel](*arguments, **self.constants, **self.options)
        rest = [self.constants[name] for name in kernel.arg_names[len(arguments) :]]
        assert all(a is b for a, b in zip(bound.values(), [*arguments, *rest], strict=True))
        wanted = (str(specialization), str(options))
        if compiled.setdefault(self, wanted) != wanted:
            faults.append(f"{batch}: {compiled[self]}, and now {wanted}")

    ran = launch._run

    def watched(cut: Any, logits: Tensor, rows: Rows, loss: Any, gradient: Any, *others: Any) -> None:
        nonlocal hits
        hits += id(cut) in kept
        kept.add(id(cut))
        inplace = gradient is not None and gradient.data_ptr() == logits.data_ptr()
        new = launch._cut_of(logits, rows, loss, inplace, None)
        if without_launcher(cut) != without_launcher(new):
            faults.append(f"{batch}: kept {cut}, made anew {new}")
        ran(cut, logits, rows, loss, gradient, *others)

    class NoLaunch:
        def __getitem__(self, grid: Any) -> Any:
            return lambda *arguments, **constants: None

    Launcher.__call__ = call  # type: ignore[method-assign]
    launch._run = watched
    launch.weights_kernel = NoLaunch()
    launch.multiprocessors = lambda device: 132  # type: ignore[assignment]
    launch.replace = lambda plan, **changes: plan  # type: ignore[assignment]  # keep what shares a row
    if blind:
        launch._signature = lambda x: x.dtype if isinstance(x, Tensor) else type(x)
    batch: dict[str, Any] = {}
    for number_of in range(batches):
        if number_of % 40 == 0:
            base = {name: choice() for name, choice in CHOICES.items()}
        batch = dict(base)
        for name in RANDOM.sample(list(CHOICES), RANDOM.choice([0, 1, 1, 1, 2])):
            batch[name] = CHOICES[name]()
        run(batch)
    print(hits, len(faults))
    print(*faults[:5], sep="\n", file=sys.stderr)


if __name__ == "__main__":
    main()
