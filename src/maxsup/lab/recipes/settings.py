"""Everything that decides a run's result, except the method and the seed, as frozen dataclasses.

The field documentation below is what the command line shows.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Literal, cast


@dataclass(frozen=True)
class Data:
    """Which images, and what happens to them."""

    name: str = "digits"
    """Data set; `maxsup list` names them."""
    train_size: int | None = None
    """Training images, drawn evenly over the classes and always the same ones; None takes all."""
    classes: tuple[int, ...] | None = None
    """Classes to keep, by index, renumbered in this order; None keeps all. `maxsup probe` then takes the others."""
    image_size: int | None = None
    """Side in pixels to which images are resized and centrally cropped; None keeps the data set's own."""
    pad_crop: int = 0
    """Pixels of zero padding before a random crop back to the image's size; 0 turns it off."""
    flip: bool = False
    """Mirror half of the training images left to right."""

    def __post_init__(self) -> None:
        if self.pad_crop < 0:
            raise ValueError(f"data.pad_crop must be at least 0, got {self.pad_crop}")
        for name, value in (("train_size", self.train_size), ("image_size", self.image_size)):
            if value is not None and value < 1:
                raise ValueError(f"data.{name} must be at least 1 or None, got {value}")


@dataclass(frozen=True)
class Model:
    """The network."""

    name: str = "convnet"
    """`convnet` (a small residual CNN), or the name of a timm model."""
    small_stem: bool = False
    """Replace a ResNet's 7×7 stride-2 stem and max-pooling by one 3×3 convolution, as for 32×32 images."""
    image_size: int | None = None
    """Side of the images for which a vision transformer is built; None keeps the size in its name."""
    patch_size: int | None = None
    """Side of a vision transformer's patches; None keeps the size in its name."""
    depth: int | None = None
    """Blocks of a vision transformer; None keeps its own number."""

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "depth"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"model.{name} must be at least 1 or None, got {value}")


@dataclass(frozen=True)
class Optimizer:
    """How the weights move."""

    name: str = "sgd"
    """Optimizer by its timm name (`sgd` is SGD with Nesterov momentum, `momentum` without Nesterov, `adamw`, …)."""
    lr: float = 0.1
    """Peak learning rate."""
    momentum: float = 0.9
    """Momentum of SGD (the first beta stays at its default elsewhere)."""
    weight_decay: float = 5e-4
    """Weight decay, on matrices and kernels only (biases and norms are spared)."""
    warmup_epochs: int = 1
    """Epochs of linear warm-up before the cosine decay to zero."""


@dataclass(frozen=True)
class Alpha:
    """The smoothing weight over the epochs (label smoothing and MaxSup alike)."""

    start: float = 0.1
    """Weight in the first epoch."""
    end: float = 0.2
    """Weight in the last epoch."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How it goes from start to end; `constant` stays at start."""


@dataclass(frozen=True)
class Recipe:
    """A training run up to method and seed."""

    name: str
    """The recipe's name."""
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step."""
    selection: Literal["best", "last"] = "best"
    """Weights that are tested: those of the epoch with the best validation accuracy (the latest such), or the last."""
    cpu_threads: int = 1
    """Threads per run on a CPU. Part of the recipe because the last digits depend on the order of summation."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    alpha: Alpha = field(default_factory=Alpha)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the network (weights and loss are float32); `auto` is bfloat16 on a GPU and float32 elsewhere."""
    compile: bool = False
    """Fuse the step by `torch.compile`: faster steps after tens of seconds of compiling in each process."""
    cuda_graph: bool = False
    """Replay the step as a CUDA graph: the same numbers with fewer waits for the host. Without effect on a CPU."""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("epochs", self.epochs, 1),
            ("batch_size", self.batch_size, 2),
            ("cpu_threads", self.cpu_threads, 1),
            ("optimizer.warmup_epochs", self.optimizer.warmup_epochs, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        # `not (x >= 0)` and not `x < 0`: NaN is refused too.
        for name, number in (
            ("optimizer.lr", self.optimizer.lr),
            ("optimizer.momentum", self.optimizer.momentum),
            ("optimizer.weight_decay", self.optimizer.weight_decay),
            ("alpha.start", self.alpha.start),
            ("alpha.end", self.alpha.end),
        ):
            if not 0 <= number < float("inf"):
                raise ValueError(f"{name} must be a finite number of at least 0, got {number}")


def as_json(recipe: Recipe) -> dict[str, object]:
    """The recipe as plain values, for records and comparison; tuples as the lists that JSON gives back."""
    return cast(dict[str, object], json.loads(json.dumps(dataclasses.asdict(recipe))))
