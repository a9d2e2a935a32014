"""How the kernels are launched: their arguments, their programs, and the loss that these add up to."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from triton.runtime import driver

from maxsup.kernels.arrangement import rows_in
from maxsup.kernels.launcher import Launcher, on
from maxsup.kernels.plane_kernel import plane_kernel
from maxsup.kernels.plans import VECTOR_BYTES, Plan, PlanePlan, layout_of, plan_of, plane_plan_of
from maxsup.kernels.sharing import NOTE
from maxsup.kernels.side_kernels import scale_kernel, weights_kernel
from maxsup.kernels.stream_kernel import stream_kernel
from maxsup.kernels.terms import Terms
from maxsup.kernels.tile_kernel import tile_kernel
from maxsup.methods.common import Number

PARTIALS = 512  # programs that add up the targets' weights
FEW_TARGETS = 2048  # so many every program adds up for itself, which saves a launch
FEW_TARGETS_OF_A_STREAM = 16384  # whose programs are few and large
MOST_IN_32_BITS = 2**31 - 1
MOST_CUTS = 512  # kept: of more, batches have shapes that do not come back


@dataclass(frozen=True)
class Rows:
    """Everything but the logits of a batch of rows."""

    target: Tensor  # (N,) contiguous integers; or probabilities, arranged like the logits
    weight: Tensor | None  # (K,) contiguous
    ignore_index: int
    terms: Terms
    divisor: Number | None  # of the sum; None for the sum of the weights of the rows that count, or the soft rows

    @property
    def soft(self) -> Tensor | None:
        """The target if it holds probabilities."""
        return self.target if self.target.is_floating_point() else None


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """Their number; 1 for the interpreter's CPU, so that programs have several rows."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


@functools.cache
def can_prefetch(device: torch.device) -> bool:
    """Whether it knows the instruction of `chunks.prefetch`."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def losses_and_gradient(
    logits: Tensor,
    rows: Rows,
    *,
    loss: Tensor | None,
    gradient: Tensor | None,
    upstream: Tensor | None = None,
    plan: Plan | PlanePlan | None = None,
    keep_counter: bool = True,
) -> None:
    """Runs the kernels over logits in an arrangement of `arrangement`.

    Args:
        logits: rows (N, K) or planes (images, K, pixels).
        rows: the rest of the batch.
        loss: is given the loss per row, (N,), or divided and summed, (); None to leave it.
        gradient: is given the gradient, contiguous in the logits' shape; it may be `logits` itself. None to leave it.
        upstream: gradient of the loss, (N,) or (); None for 1.
        plan: None for the one of `plan_of` or `plane_plan_of`.
        keep_counter: whether the counter of a sum's programs may be kept for the next launch (see `_counter`).
    """
    summed = loss is not None and loss.dim() == 0
    n, inplace = rows_in(logits), gradient is not None and gradient.data_ptr() == logits.data_ptr()
    # All that a cut and its compilation depend on.
    key = (
        logits.device,
        logits.shape[1:],
        logits.stride(),
        *map(_signature, (logits, gradient, rows.target, rows.weight, loss, upstream, rows.divisor, *rows.terms)),
        rows.soft is not None and rows.soft.stride(),
        upstream is not None and upstream.stride(),
        _is_one(rows.divisor),
        rows.ignore_index,
        summed,
        inplace,
        (n > 1) + (n > FEW_TARGETS) + (n > FEW_TARGETS_OF_A_STREAM) + (n > MOST_IN_32_BITS),
        plan,
    )
    cut = _cuts.get(key)
    if cut is None:
        if len(_cuts) >= MOST_CUTS:
            _cuts.clear()
        cut = _cuts[key] = _cut_of(logits, rows, loss, inplace, plan)
    with on(logits.device):
        _run(cut, logits, rows, loss, gradient, upstream, _counter(logits.device, keep_counter) if summed else None)


def _signature(argument: Tensor | float | bool | None) -> Any:
    """What a cut depends on: a tensor's type and how far its address is from a multiple of a vector's bytes."""
    if isinstance(argument, Tensor):
        return argument.dtype, argument.data_ptr() % VECTOR_BYTES
    return argument if isinstance(argument, bool) else type(argument)


@dataclass(frozen=True)
class _Cut:
    """How batches of one kind are computed: all but their number of rows, their tensors and their numbers."""

    launcher: Launcher
    plan: Plan | PlanePlan
    strides: list[int]
    divisor: str  # the kernel's DIVISOR
    programs: int  # at most


_cuts: dict[Any, _Cut] = {}


def _cut_of(logits: Tensor, rows: Rows, loss: Tensor | None, inplace: bool, plan: Plan | PlanePlan | None) -> _Cut:
    device, terms, soft = logits.device, rows.terms, rows.soft
    constants: dict[str, Any]
    if logits.dim() == 3:
        if not isinstance(plan, PlanePlan):
            plan = plane_plan_of(logits, soft)
        kernel, few = plane_kernel, FEW_TARGETS
        strides = [x // plan.vector for x in (logits.shape[2], *logits.stride()[:2])]
        strides += [0, 0] if soft is None else [x // plan.vector for x in soft.stride()[:2]]
        constants = {"BLOCK": plan.block, "PIXELS": plan.pixels, "VECTOR": plan.vector, "INPLACE": inplace}
    else:
        layout = layout_of(logits, soft)
        if not isinstance(plan, Plan):
            soft_size = 0 if soft is None else soft.element_size()
            plan = plan_of(logits.shape[1], logits.element_size(), layout, soft_size)
        kernel, few = (stream_kernel, FEW_TARGETS_OF_A_STREAM) if plan.stream else (tile_kernel, FEW_TARGETS)
        strides = [logits.stride(0), 0 if soft is None else soft.stride(0)]
        constants = {"GROUPS": plan.groups, "VECTOR": layout.vector, "EDGES": layout.edges, "AHEAD": plan.ahead}
        constants["STORE"] = plan.store
        if plan.stream:
            if plan.parts > 1 and device.type != "cuda":  # the interpreter runs one program after another
                plan = replace(plan, parts=1, chunks=plan.parts * plan.chunks)
            constants |= {"CHUNKS": plan.chunks, "KEEP": plan.keep, "INPLACE": inplace, "PARTS": plan.parts}
            constants["PREFETCH"] = plan.prefetch if can_prefetch(device) else 0
        else:
            constants["ROWS"] = plan.rows
    divisor = _divisor(rows, rows_in(logits), few)
    constants |= {
        "CLASSES": logits.shape[1],
        "MAX_SUP": terms.max_sup is not None,
        "SMOOTHING": terms.smoothing is not None,
        "PENALTY": terms.penalty is not None,
        "Z_LOSS": terms.z_loss is not None,
        "STRICT": terms.strict,
        "LOSS": "none" if loss is None else "rows" if loss.dim() else "sum",
        "DIVISOR": divisor,
        "PARTIALS": PARTIALS,
    }
    options = {"num_warps": plan.warps, "num_stages": 1, "maxnreg": plan.registers}
    if isinstance(plan, Plan) and plan.parts > 1:  # its programs wait for each other, so that all have to run at once
        options["launch_cooperative_grid"] = True
    most = plan.programs * multiprocessors(device)
    return _Cut(Launcher(kernel, constants, **options), plan, strides, divisor, most)


def _run(
    cut: _Cut,
    logits: Tensor,
    rows: Rows,
    loss: Tensor | None,
    gradient: Tensor | None,
    upstream: Tensor | None,
    counter: Tensor | None,
) -> None:
    n, plan, device, terms, soft = rows_in(logits), cut.plan, logits.device, rows.terms, rows.soft
    shared: list[Tensor | None] = []
    if isinstance(plan, PlanePlan):
        programs = max(1, min(logits.shape[0] * -(-logits.shape[2] // plan.pixels), cut.programs))
    else:
        programs = max(1, min(-(-n // plan.rows), cut.programs))
        if plan.parts > 1:
            teams = max(1, min(n, cut.programs // plan.parts))
            programs = teams * plan.parts
            shared.append(torch.empty(teams, 2, plan.parts, NOTE.value, dtype=torch.float32, device=device))
            shared.append(torch.zeros(teams, dtype=torch.int32, device=device))
        elif plan.stream:
            shared = [None, None]
    divisor = None
    if cut.divisor == "number":
        divisor = _argument(rows.divisor)
    elif cut.divisor == "partials":
        divisor = torch.empty(PARTIALS, dtype=torch.float32, device=device)
        weights_kernel[(PARTIALS,)](
            rows.target,
            rows.weight,
            divisor,
            n,
            rows.ignore_index,
            CLASSES=logits.shape[1],
            PROGRAMS=PARTIALS,
            BLOCK=1024,
        )
    cut.launcher(
        programs,
        logits,
        gradient,
        rows.target if soft is None else None,
        soft,
        rows.weight,
        loss,
        None if counter is None else torch.empty(programs, dtype=torch.float32, device=device),
        counter,
        divisor,
        upstream,
        _argument(terms.max_sup),
        _argument(terms.smoothing),
        _argument(terms.penalty),
        _argument(terms.z_loss),
        n,
        upstream.stride(0) if upstream is not None and upstream.dim() else 0,
        rows.ignore_index,
        *cut.strides,
        *shared,
    )


_counters: dict[tuple[torch.device, int], Tensor] = {}


def _counter(device: torch.device, keep: bool) -> Tensor:
    """Counts the programs that are done, so that the last one finishes the sum; an int32 0, and 0 again afterwards.

    One is kept per stream, whose launches come one after another. A CUDA graph may run beside others, so its launches
    have each their own, and so have compiled ones, whose memory the compiler manages.
    """
    if not keep or (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
        return torch.zeros((), dtype=torch.int32, device=device)
    stream = driver.active.get_current_stream(device.index) if device.type == "cuda" else 0
    if (device, stream) not in _counters:
        _counters[device, stream] = torch.zeros((), dtype=torch.int32, device=device)
    return _counters[device, stream]


def scale_(gradient: Tensor, upstream: Tensor) -> None:
    """gradient *= upstream for a contiguous gradient and an upstream of one element; free where that is 1."""
    count, block = gradient.numel(), 4096
    programs = max(1, min(-(-count // block), 4 * multiprocessors(gradient.device)))
    key = (gradient.device, _signature(gradient), _signature(upstream), count > MOST_IN_32_BITS)
    launcher = _scalers.get(key)
    if launcher is None:
        launcher = _scalers[key] = Launcher(scale_kernel, {"BLOCK": block}, num_warps=8)
    with on(gradient.device):
        launcher(programs, gradient, upstream, count)


_scalers: dict[Any, Launcher] = {}


def _divisor(rows: Rows, n: int, few: int) -> str:
    """The kernel's DIVISOR."""
    if rows.divisor is not None:
        return "one" if _is_one(rows.divisor) else "number"
    if rows.soft is not None:
        return "rows"
    return "targets" if n <= few else "partials"


def _is_one(number: Number | None) -> bool:
    return not isinstance(number, Tensor) and number == 1


def _argument(number: Number | None) -> Number:
    """A float or a tensor: an int would be compiled in."""
    if isinstance(number, Tensor):
        return number
    return 0.0 if number is None else float(number)
