"""The loss of logits whose classes are spread over processes (tensor or vocabulary parallelism).

Every process holds some columns of the logits, and all rows; three all-reduces of N or 5·N numbers give each the loss,
and the gradient of its own columns needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import Parameter

from maxsup._batch import Batch, check, check_number, indices
from maxsup._batch import rows as rows_of
from maxsup.methods.common import Number, first_maximum, readable
from maxsup.methods.row_sums import Sums, exponentials_, row_gradients_, row_losses, row_sums, without_derivative

__all__ = ["sharded_max_sup_cross_entropy"]


def sharded_max_sup_cross_entropy(
    input: Tensor,
    target: Tensor,
    alpha: Number = 0.1,
    *,
    group: distributed.ProcessGroup | None = None,
    shard_sizes: Sequence[int] | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    num_items: Number | None = None,
) -> Tensor:
    r"""`maxsup.functional.max_sup_cross_entropy` of logits that are sharded over classes.

    To be called by every process of the group with its shard and the same target. Maximum, its tie-breaking, mean and
    softmax run over the classes of all; each process gets the same loss, and the gradient of its shard alone. The sums
    are in float32 for 16-bit logits.

    Args:
        input: the process's logits, (C_r,), (N, C_r) or (N, C_r, d1, …), C_r of all C classes, in the order of the
            ranks; or a `torch.distributed.tensor.DTensor` with ``Shard(1)`` (``Shard(0)`` for (C,)) on one dimension of
            its mesh and ``Replicate()`` on the others, which brings its group and sizes along.
        target: class indices, of all C, in the shape of `max_sup_cross_entropy`, int64; a DTensor is gathered.
        alpha: strength, at least 0; it may not require a gradient.
        group: the processes that hold the shards; None for all.
        shard_sizes: C_r of each rank of the group, 0 allowed; None lets the processes exchange them at every call.
        ignore_index, reduction, label_smoothing, num_items: as in `max_sup_cross_entropy`.

    Returns:
        A plain tensor as `max_sup_cross_entropy` returns it, the same on every process.

    Raises:
        TypeError: if an argument has the wrong type or dtype.
        ValueError: if a shape or value is not accepted.
        IndexError: if a class index on the CPU is out of range; elsewhere it makes the loss NaN.
        RuntimeError: if a second derivative is asked for.

    Example:
        A linear head whose rows are distributed, in each process::

            logits = hidden @ weight_shard.T
            loss = sharded_max_sup_cross_entropy(logits, target, alpha=0.1, group=tensor_parallel_group)

    Reference:
        Zhou et al., arXiv 2502.15798, Eq. 6-9; Shoeybi et al., Megatron-LM, arXiv 1909.08053, Section 3.
    """
    alpha = check_number("alpha", alpha)
    label_smoothing = check_number("label_smoothing", label_smoothing, high=1.0)
    if isinstance(alpha, Tensor) and alpha.requires_grad:
        raise ValueError("alpha requires a gradient, which the sharded loss does not compute")
    input, target, group, shard_sizes = _local(input, target, group, shard_sizes)
    shape = list(input.shape)
    class_dim = 0 if len(shape) == 1 else 1
    # A shard may be empty, the logits as a whole are not.
    shape[class_dim] = max(1, shape[class_dim])
    stand_in = input.new_empty(()).expand(shape)
    checked = check(stand_in, target, None, ignore_index, reduction, num_items, probabilities=False)
    first, classes = _place(input.shape[class_dim], group, shard_sizes, input.device)
    flat = target.reshape(-1).long()
    if readable(flat):
        flat, keep = indices(flat, ignore_index, int(classes))
    else:
        keep = flat != ignore_index
        flat = torch.where(keep, flat, 0)
    logits = rows_of(input) if input.numel() else input.reshape(flat.shape[0], input.shape[class_dim])
    losses: Tensor = _Sharded.apply(logits, flat, keep, alpha, float(label_smoothing), first, classes, group)
    batch = Batch(logits, flat, keep, None, checked.shape, checked.dtype)
    return batch.reduce(losses, reduction, num_items)


class _Sharded(torch.autograd.Function):
    """Losses per row, (N,), on every process; gradients of the own columns."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        keep: Tensor | None,
        alpha: Number,
        smoothing: float,
        first: Number,
        classes: Number,
        group: distributed.ProcessGroup | None,
    ) -> Tensor:
        z = _exact(logits)
        if z.shape[1]:
            column = first_maximum(z)
            own = z.gather(1, column.unsqueeze(1)).squeeze(1)
        else:
            own = z.new_full(z.shape[:1], -torch.inf)
            column = torch.zeros_like(target)
        maximum = own.clone()
        distributed.all_reduce(maximum, distributed.ReduceOp.MAX, group)
        # The lowest class that attains the maximum.
        top = torch.where(own == maximum, column + first, torch.iinfo(torch.int64).max)
        distributed.all_reduce(top, distributed.ReduceOp.MIN, group)
        sums = torch.stack(row_sums(z, target - first, maximum)[0])
        distributed.all_reduce(sums, distributed.ReduceOp.SUM, group)
        ctx.save_for_backward(logits, target - first, top - first, maximum, sums, keep)
        ctx.options = alpha, smoothing, classes
        return row_losses(Sums(*sums), alpha, smoothing, classes)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        logits, target, top, maximum, sums, keep = ctx.saved_tensors
        with torch.no_grad():
            z = _exact(logits)
            gradient = exponentials_(z - maximum.unsqueeze(1))
            row_gradients_(gradient, z, target, top, Sums(*sums), upstream, *ctx.options)
            if keep is not None:  # an upstream gradient of 0 does not make 0 of NaN
                gradient.masked_fill_(~keep.unsqueeze(1), 0.0)
            gradient = gradient.to(logits.dtype)
        if torch.is_grad_enabled():
            gradient = without_derivative(gradient, "the sharded loss")
        return gradient, *(None,) * 7


def _exact(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _place(
    own: int, group: distributed.ProcessGroup | None, shard_sizes: Sequence[int] | None, device: torch.device
) -> tuple[Number, Number]:
    """The first class of this process, and the number of all: read by the host only where that is free."""
    rank, ranks = distributed.get_rank(group), distributed.get_world_size(group)
    if rank < 0:
        raise ValueError("group must contain the process that calls")
    if shard_sizes is not None:
        if len(shard_sizes) != ranks or min(shard_sizes) < 0 or shard_sizes[rank] != own:
            raise ValueError(
                f"shard_sizes must be the numbers of classes of {ranks} ranks, {own} on rank {rank}, "
                f"got {list(shard_sizes)}"
            )
        return sum(shard_sizes[:rank]), sum(shard_sizes)
    sizes = torch.empty(ranks, dtype=torch.int64, device=device)
    distributed.all_gather_into_tensor(sizes, torch.full((1,), own, dtype=torch.int64, device=device), group)
    return sizes[:rank].sum(), sizes.sum()


def _local(
    input: Tensor, target: Tensor, group: distributed.ProcessGroup | None, shard_sizes: Sequence[int] | None
) -> tuple[Tensor, Tensor, distributed.ProcessGroup | None, Sequence[int] | None]:
    """What a DTensor says, as plain arguments."""
    if type(input) in (Tensor, Parameter) and type(target) is Tensor:
        return input, target, group, shard_sizes
    from torch.distributed.tensor import DTensor, Shard

    if isinstance(target, DTensor):
        target = target.full_tensor()
    if not isinstance(input, DTensor):
        return input, target, group, shard_sizes
    if group is not None or shard_sizes is not None:
        raise ValueError("group and shard_sizes come with a DTensor: pass None")
    class_dim = 0 if input.dim() == 1 else 1
    sharded = [i for i, placement in enumerate(input.placements) if not placement.is_replicate()]
    placement = input.placements[sharded[0]] if len(sharded) == 1 else None
    if type(placement) is not Shard or placement.dim % input.dim() != class_dim:
        raise ValueError(
            f"input must be sharded on its dimension of classes, {class_dim}, and replicated otherwise, "
            f"got {input.placements}"
        )
    mesh, classes = input.device_mesh, input.shape[class_dim]
    # As torch.chunk cuts: shards of equal size, and what is left for the last ones.
    size = -(-classes // mesh.size(sharded[0]))
    sizes = [max(0, min(size, classes - rank * size)) for rank in range(mesh.size(sharded[0]))]
    return input.to_local(), target, mesh.get_group(sharded[0]), sizes
