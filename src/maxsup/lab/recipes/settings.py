"""Everything that decides a run's result, except the method and the seed, as frozen dataclasses.

The field documentation below is what the command line shows.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

_RAND_AUGMENT = re.compile(r"rand(-((m|n|inc|mmax)\d+|(p|mstd)\d+(\.\d+)?|t[a-z0-9]+))*")


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
    random_resized_crop: bool = False
    """Cut a random part of random shape (3:4 to 4:3) out of each training image and resize it to the image's size."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Least and greatest area of that part, as a share of the image."""
    rand_augment: str | None = None
    """RandAugment by timm's name for it, such as `rand-m9-mstd0.5-inc1`; None turns it off."""
    rotation: float = 0.0
    """Turn each training image by up to so many degrees, to either side; 0 turns it off."""
    random_erasing: float = 0.0
    """Probability that a box of a training image (2% to 33% of its area) becomes noise; 0 turns it off."""
    mixup: float = 0.0
    """Mix the training images in pairs, by a share from Beta(mixup, mixup) for each batch; 0 turns it off."""
    cutmix: float = 0.0
    """Paste a box of one training image of a pair into the other, by an area from Beta(cutmix, cutmix); 0 turns it off.
    With mixup, each batch gets one of the two."""
    repeats: int = 1
    """Show an image so many times in a row, differently augmented, in an epoch of the usual length (3 in DeiT)."""
    eval_crop: float = 1.0
    """Share of the resized image's shorter side that the central crop keeps in evaluation; of streamed images only."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How streamed images, and random resized crops, are resized."""
    normalize: Literal["data", "imagenet"] = "data"
    """Mean and deviation per channel that become 0 and 1: the training images' own, or ImageNet's usual constants."""
    streaming: Literal["auto", "on", "off"] = "auto"
    """Read image files during training instead of holding all in memory; `auto` does so where they are large."""
    loader_workers: int | None = None
    """Processes that decode and augment streamed images, for each training process; 0 uses that process itself, None
    shares the processors that there are. It does not change what is trained."""
    held_out: int | None = None
    """Images held out of train for validation where files have no validation split; None is the data set's own choice.
    """
    unreadable_limit: float = 0.001
    """Share of the image files that may be unreadable; those are left out and listed in the run's record."""
    label_noise: float = 0.0
    """Share of the training images, of each class, whose label is wrong; the same images for every method and seed."""
    noise_kind: Literal["symmetric", "pair"] = "symmetric"
    """Wrong labels: `symmetric`, any of the other classes with equal chance; `pair`, the next class by index."""
    imbalance: float | None = None
    """Training images of the first class over those of the last, falling exponentially between; None keeps them all."""

    def __post_init__(self) -> None:
        self._check_changes()
        for name, number, least in (("pad_crop", self.pad_crop, 0), ("repeats", self.repeats, 1)):
            if number < least:
                raise ValueError(f"data.{name} must be at least {least}, got {number}")
        for name, optional, least in (
            ("train_size", self.train_size, 1),
            ("image_size", self.image_size, 1),
            ("loader_workers", self.loader_workers, 0),
            ("held_out", self.held_out, 1),
        ):
            if optional is not None and optional < least:
                raise ValueError(f"data.{name} must be at least {least} or None, got {optional}")
        # `not (a <= x <= b)`: NaN is refused too.
        for name, real, highest in (
            ("rotation", self.rotation, 180.0),
            ("random_erasing", self.random_erasing, 1.0),
            ("mixup", self.mixup, 1000.0),
            ("cutmix", self.cutmix, 1000.0),
            ("unreadable_limit", self.unreadable_limit, 1.0),
        ):
            if not 0 <= real <= highest:
                raise ValueError(f"data.{name} must be from 0 to {highest:g}, got {real}")
        if not 0 < self.eval_crop <= 1:
            raise ValueError(f"data.eval_crop must be above 0 and at most 1, got {self.eval_crop}")
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"data.crop_scale must be two shares of the area in order, got {self.crop_scale}")
        # A record gives it back as a list.
        if tuple(self.crop_scale) != (0.08, 1.0) and not self.random_resized_crop:
            raise ValueError("data.crop_scale belongs to data.random_resized_crop, which is off")
        if self.random_resized_crop and self.pad_crop:
            raise ValueError(f"data.random_resized_crop and data.pad_crop ({self.pad_crop}) are two crops; choose one")
        if self.rand_augment is not None and not _RAND_AUGMENT.fullmatch(self.rand_augment):
            raise ValueError(
                f"data.rand_augment must be a name of timm's such as rand-m9-mstd0.5-inc1, got {self.rand_augment!r}"
            )

    @property
    def on_workers(self) -> bool:
        """Whether training images are augmented one by one, on processors, before they become a batch."""
        return self.random_resized_crop or self.rand_augment is not None

    @property
    def mixes(self) -> bool:
        """Whether training labels are class probabilities."""
        return self.mixup > 0 or self.cutmix > 0

    def _check_changes(self) -> None:
        """Checks what is changed of the training split; `not (x >= 0)` and not `x < 0`: NaN is refused too."""
        if not 0 <= self.label_noise < 1:
            raise ValueError(f"data.label_noise must be at least 0 and below 1, got {self.label_noise}")
        if self.noise_kind not in ("symmetric", "pair"):
            raise ValueError(f"data.noise_kind must be symmetric or pair, got {self.noise_kind!r}")
        if self.imbalance is not None and not 1 <= self.imbalance < float("inf"):
            raise ValueError(f"data.imbalance must be a finite factor of at least 1 or None, got {self.imbalance}")


@dataclass(frozen=True)
class Model:
    """The network."""

    name: str = "convnet"
    """`convnet` (a small residual CNN), or the name of a timm model."""
    small_stem: bool = False
    """Fit 32×32 images: in a ResNet, one 3×3 convolution for the 7×7 stride-2 stem and its max-pooling; in a
    MobileNetV2, no stride in the stem and none in the last stage that has one."""
    image_size: int | None = None
    """Side of the images for which a vision transformer is built; None keeps the size in its name."""
    patch_size: int | None = None
    """Side of a vision transformer's patches; None keeps the size in its name."""
    depth: int | None = None
    """Blocks of a vision transformer; None keeps its own number."""
    drop_path: float = 0.0
    """Chance that the last block is skipped in training (stochastic depth); earlier blocks linearly less."""

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "depth"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"model.{name} must be at least 1 or None, got {value}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"model.drop_path must be in [0, 1), got {self.drop_path}")


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
    """Weight decay, on matrices and kernels; on biases and norms too with `decay_norm_bias`."""
    warmup_epochs: int = 1
    """Epochs of linear warm-up, which the schedule's time includes."""
    schedule: Literal["cosine", "step", "multistep", "constant"] = "cosine"
    """The rate after the warm-up: half a cosine to `min_lr`, times `gamma` at epochs, or as it is."""
    min_lr: float = 0.0
    """Rate to which `cosine` falls."""
    warmup_lr: float | None = None
    """Rate with which the warm-up begins; None is a hundredth of `lr`."""
    step_epochs: int = 30
    """Epochs between the decays of `step`."""
    milestones: tuple[int, ...] = ()
    """Epochs at whose beginning `multistep` decays."""
    gamma: float = 0.1
    """Factor of each decay of `step` and `multistep`."""
    decay_norm_bias: bool = False
    """Weight decay on biases and norms too; never on a vision transformer's embeddings."""

    def __post_init__(self) -> None:
        if self.step_epochs < 1:
            raise ValueError(f"optimizer.step_epochs must be at least 1, got {self.step_epochs}")
        if list(self.milestones) != sorted(set(self.milestones)) or any(m < 1 for m in self.milestones):
            raise ValueError(f"optimizer.milestones must be rising epochs of at least 1, got {self.milestones}")
        if bool(self.milestones) != (self.schedule == "multistep"):
            raise ValueError(
                f"optimizer.milestones are those of schedule multistep, got {self.milestones} with {self.schedule}"
            )


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
    """Images per step of the optimizer, over all processes."""
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
    """Replay the step as a CUDA graph: the same numbers with fewer waits for the host. For one process with a GPU."""
    accumulate: int = 1
    """Parts into which a batch is cut to save memory; their gradients are added. Batch norm sees each part alone."""
    clip_norm: float | None = None
    """Norm to which the gradient of all weights is clipped; None leaves it."""
    ema: float | None = None
    """Decay per step of the weights' moving average, which is then what is validated and tested; None takes none."""
    sync_batch_norm: bool = True
    """Batch norm over the images of all processes, so that their number changes nothing; else each over its own."""
    shard: bool = False
    """Spread weights and optimizer state over the processes (FSDP), for networks that one GPU cannot hold."""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("epochs", self.epochs, 1),
            ("batch_size", self.batch_size, 2),
            ("cpu_threads", self.cpu_threads, 1),
            ("optimizer.warmup_epochs", self.optimizer.warmup_epochs, 0),
            ("accumulate", self.accumulate, 1),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        # `not (x >= 0)` and not `x < 0`: NaN is refused too.
        for name, number in (
            ("optimizer.lr", self.optimizer.lr),
            ("optimizer.momentum", self.optimizer.momentum),
            ("optimizer.weight_decay", self.optimizer.weight_decay),
            ("optimizer.min_lr", self.optimizer.min_lr),
            ("optimizer.warmup_lr", self.optimizer.warmup_lr or 0.0),
            ("optimizer.gamma", self.optimizer.gamma),
            ("alpha.start", self.alpha.start),
            ("alpha.end", self.alpha.end),
        ):
            if not 0 <= number < float("inf"):
                raise ValueError(f"{name} must be a finite number of at least 0, got {number}")
        if self.batch_size % self.accumulate or self.batch_size < 2 * self.accumulate:
            raise ValueError(
                f"accumulate must divide batch_size {self.batch_size} into parts of 2 images or more, "
                f"got {self.accumulate}"
            )
        if self.clip_norm is not None and not 0 < self.clip_norm < float("inf"):
            raise ValueError(f"clip_norm must be a finite number above 0 or None, got {self.clip_norm}")
        if self.shard and self.ema is not None:
            raise ValueError(f"shard: a moving average cannot be spread over processes, got ema {self.ema}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema must be between 0 and 1 or None, got {self.ema}")


# Fields that decide how fast a run is and not what it gives: with other values it is the same experiment still.
NEUTRAL = ("cpu_threads", "compile", "cuda_graph", "data.loader_workers")


def as_json(recipe: Recipe) -> dict[str, object]:
    """The recipe as plain values, for records and comparison; tuples as the lists that JSON gives back."""
    return cast(dict[str, object], json.loads(json.dumps(dataclasses.asdict(recipe))))


def with_defaults(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe from a record, with the defaults of the fields that Recipe has got since.

    A new field's default is what was done before there was the field.
    """
    filled = as_json(Recipe(name=str(recorded.get("name", ""))))
    for name, value in recorded.items():
        default = filled.get(name)
        filled[name] = {**default, **value} if isinstance(default, dict) and isinstance(value, dict) else value
    return filled
