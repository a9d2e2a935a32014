# mypy: ignore-errors
# What Triton compiles is no Python that mypy could follow.
"""The kernel for logits (images, K, pixels), whose classes are a plane apart: two loops over the classes of pixels.

Adjacent pixels are what a thread loads at once, so that a row's sums are its own thread's: no two have to talk. The
second loop, which makes the gradient, finds the logits of the first in the cache. The formulas are in `parts`; pixel p
of image i is row i · pixels + p of target and loss. Strides are given in vectors, which tells Triton that they are
multiples of one.
"""

import triton
import triton.language as tl

from maxsup.kernels.parts import (
    INFINITY,
    LOG2_E,
    divisor_of,
    exp,
    finish,
    number,
    row_terms,
    shares_of,
    target_of,
)

_UNSPECIALIZED = (
    "rows", "upstream_stride", "ignore_index", "pixel_steps", "image_step", "class_step", "soft_image_step",
    "soft_class_step",
)  # fmt: skip


@triton.jit(do_not_specialize=_UNSPECIALIZED)
def plane_kernel(
    logits, gradient, target, soft, weight, loss, sums, counter, divisor, upstream,
    alpha, smoothing, penalty, z_loss,
    rows, upstream_stride, ignore_index, pixel_steps, image_step, class_step, soft_image_step, soft_class_step,
    CLASSES: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr, VECTOR: tl.constexpr,
    MAX_SUP: tl.constexpr, SMOOTHING: tl.constexpr, PENALTY: tl.constexpr, Z_LOSS: tl.constexpr,
    STRICT: tl.constexpr, LOSS: tl.constexpr, DIVISOR: tl.constexpr, PARTIALS: tl.constexpr, INPLACE: tl.constexpr,
):  # fmt: skip
    """PIXELS pixels of one image at a time, BLOCK classes of them at a time."""
    alpha, smoothing, penalty, z_loss = number(alpha), number(smoothing), number(penalty), number(z_loss)
    program, programs = tl.program_id(0), tl.num_programs(0)
    pixels = pixel_steps * VECTOR
    parts = (pixels + PIXELS - 1) // PIXELS  # of an image
    row_losses = tl.zeros((PIXELS,), tl.float32)
    bottom = divisor_of(divisor, target, weight, rows, ignore_index, DIVISOR, CLASSES, PARTIALS, 1024)
    scale = 1.0 / bottom
    for part in range(program, rows // pixels * parts, programs):
        image = part // parts
        pixel = (part - image * parts) * PIXELS + tl.arange(0, PIXELS)
        in_image = pixel < pixels
        place = tl.cast(image, tl.int64)
        row = place * pixels + pixel
        y = target_of(target, tl.where(in_image, row, rows), rows, ignore_index)
        keep = in_image & (y != ignore_index)
        known = keep & (y >= 0) & (y < CLASSES)
        pointers = logits + place * image_step * VECTOR + pixel
        # An index out of range makes loss and gradient NaN.
        z_y = tl.load(pointers + y * class_step * VECTOR, mask=known, other=float("nan")).to(tl.float32)
        if soft is not None:
            soft_pointers = soft + place * soft_image_step * VECTOR + pixel

        maximum = tl.full((PIXELS,), -INFINITY, tl.float32)
        base = tl.full((PIXELS,), -INFINITY, tl.float32)
        exponentials = tl.zeros((PIXELS,), tl.float32)
        total = tl.zeros((PIXELS,), tl.float32)
        present = tl.zeros((PIXELS,), tl.float32)
        squares = tl.zeros((PIXELS,), tl.float32)
        mass_here = tl.zeros((PIXELS,), tl.float32)
        expected = tl.zeros((PIXELS,), tl.float32)
        top = tl.full((PIXELS,), CLASSES, tl.int32)
        for first in range(0, CLASSES, BLOCK):
            k = first + tl.arange(0, BLOCK)
            # Of ignored pixels too: a mask that differs within a vector would take it apart.
            mask = (k < CLASSES)[:, None] & in_image[None, :]
            plane = k.to(tl.int64)[:, None]
            x = tl.load(pointers[None, :] + plane * class_step * VECTOR, mask=mask, other=-INFINITY).to(tl.float32)
            block_maximum = tl.max(x, 0)
            higher = tl.maximum(maximum, block_maximum)
            if MAX_SUP:
                at = tl.min(tl.where(x == higher[None, :], k[:, None], CLASSES), 0)
                top = tl.where(block_maximum > maximum, at, top)
            new_base = higher * LOG2_E
            finite_base = tl.where(higher == -INFINITY, 0.0, new_base)  # −inf − −inf would be NaN
            exponentials *= tl.exp2(base - finite_base)
            exponentials += tl.sum(exp(x, finite_base[None, :]), 0)
            maximum, base = higher, new_base
            there = x != -INFINITY
            finite = tl.where(there, x, 0.0)
            total += tl.sum(finite, 0)
            present += tl.sum(there.to(tl.float32), 0)
            if PENALTY:
                squares += tl.sum(finite * finite, 0)
            if soft is not None:
                t = tl.load(
                    soft_pointers[None, :] + plane * soft_class_step * VECTOR, mask=mask, other=0.0
                ).to(tl.float32)  # fmt: skip
                p = shares_of(t, (k < CLASSES)[:, None], weight, k[:, None], smoothing, SMOOTHING, STRICT, CLASSES)
                mass_here += tl.sum(p, 0)
                expected += tl.sum(p * tl.where(mask, x, 0.0), 0)

        # Rows that do not count get finite numbers, which a factor of 0 takes out of the gradient.
        maximum = tl.where(keep, maximum, 0.0)
        base = tl.where(keep, maximum * LOG2_E, 0.0)
        exponentials = tl.where(keep, exponentials, 1.0)
        mass = None
        if soft is not None:
            mass, z_y = mass_here, expected
        row_loss, slope, at_target, share, absent_share = row_terms(
            maximum, base, exponentials, total, present, squares, z_y, mass, alpha, smoothing, penalty, z_loss,
            MAX_SUP, SMOOTHING, PENALTY, Z_LOSS, STRICT, CLASSES,
        )  # fmt: skip
        if weight is None or soft is not None:
            factor = tl.full((PIXELS,), 1.0, tl.float32)
        else:
            factor = tl.load(weight + y, mask=known, other=0.0).to(tl.float32)
        row_loss = tl.where(keep, factor * row_loss, 0.0)
        if LOSS == "rows":
            tl.store(loss + row, row_loss.to(loss.dtype.element_ty), mask=in_image)
        elif LOSS == "sum":
            row_losses += row_loss

        if gradient is not None:
            factor = factor * scale
            if upstream is not None:
                factor *= tl.load(upstream + row * upstream_stride, mask=in_image, other=0.0).to(tl.float32)
            factor = tl.where(keep, factor, 0.0)
            slope *= factor / exponentials
            if soft is None:  # what is NaN in z_y (an index out of range) has to show in the whole row
                slope = tl.where(z_y == z_y, slope, z_y)
            out = gradient + place * pixels * CLASSES + pixel
            if INPLACE:
                tl.debug_barrier()  # every thread has read what it needs of the logits
            for first in range(0, CLASSES, BLOCK):
                k = first + tl.arange(0, BLOCK)
                mask = (k < CLASSES)[:, None] & in_image[None, :]
                plane = k.to(tl.int64)[:, None]
                x = tl.load(
                    pointers[None, :] + plane * class_step * VECTOR, mask=mask, other=0.0,
                    eviction_policy="evict_first",
                ).to(tl.float32)  # fmt: skip
                g = exp(x, base[None, :]) * slope[None, :] - (factor * share)[None, :]
                if PENALTY:
                    g += x * (factor * penalty)[None, :]
                g = tl.where(x == -INFINITY, -(factor * absent_share)[None, :], g)
                if soft is None:
                    g -= tl.where(k[:, None] == y[None, :], (factor * at_target)[None, :], 0.0)
                else:
                    t = tl.load(
                        soft_pointers[None, :] + plane * soft_class_step * VECTOR, mask=mask, other=0.0,
                        eviction_policy="evict_first",
                    ).to(tl.float32)  # fmt: skip
                    p = shares_of(t, (k < CLASSES)[:, None], weight, k[:, None], smoothing, SMOOTHING, STRICT, CLASSES)
                    g -= p * factor[None, :]
                if MAX_SUP:
                    g += tl.where(k[:, None] == top[None, :], (factor * alpha)[None, :], 0.0)
                g = tl.where(keep[None, :], g, 0.0)
                tl.store(
                    out[None, :] + plane * pixel_steps * VECTOR, g.to(gradient.dtype.element_ty), mask=mask,
                    eviction_policy="evict_first",
                )  # fmt: skip
    if LOSS == "sum":
        finish(loss, sums, counter, tl.sum(row_losses, 0), bottom)
