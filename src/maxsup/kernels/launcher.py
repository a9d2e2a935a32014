"""Launches of a kernel that Triton has compiled already, without its search for what fits the arguments."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


class Launcher:
    """A kernel whose launches need one and the same compilation.

    The first launch asks Triton for it, the others take what it found: Triton's look at some thirty arguments takes the
    host longer than all the rest of a small batch. Whoever keeps a launcher has to take another one where Triton would
    compile anew: where a constant differs, the type of an argument, whether it is None, whether an address is a
    multiple of 16 bytes, or whether an int needs 64 bits.
    """

    def __init__(self, kernel: Any, constants: dict[str, Any], **options: Any) -> None:
        self.kernel, self.constants, self.options = kernel, constants, options
        self.compiled: Any = None
        self.rest: tuple[Any, ...] = ()

    def __call__(self, programs: int, *arguments: Any) -> None:
        """Launches so many programs with the arguments before the constants, in the kernel's order."""
        if self.compiled is not None:
            self.compiled[programs, 1, 1](*arguments, *self.rest)
            return
        compiled = self.kernel[(programs,)](*arguments, **self.constants, **self.options)
        if hasattr(compiled, "result"):  # Triton 3.8 may still be compiling
            compiled = compiled.result()
        if compiled is not None:  # as in the interpreter
            self.rest = tuple(self.constants[name] for name in self.kernel.arg_names[len(arguments) :])
            self.compiled = compiled


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Makes the device the current one, to which Triton launches, for the time of a launch."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(device)
