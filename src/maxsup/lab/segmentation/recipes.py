"""Recipes of fine-tuning: everything that decides its result, except the run whose backbone it takes, and the seed.

A recipe is a function that returns a `SegmentationRecipe`; a variant is `dataclasses.replace`. `RECIPES` is the one
list of them. The field documentation below is what the command line shows.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, cast

Loss = Literal["cross-entropy", "label-smoothing", "max-sup"]


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image and its labels, in this order."""

    resize: tuple[int, int] | None = None
    """Longer and shorter side in pixels of the frame into which an image is scaled, sides in proportion; None keeps its
    own size. Test images are scaled so too."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Least and largest factor of a random scaling after it."""
    crop: int | None = None
    """Side in pixels of the random square that is cut out, padded where the image is smaller; None takes the shorter
    side of the data's images, which must all have one size."""
    most_of_one_class: float = 1.0
    """Another square is tried, ten times at most, where one class fills more than this share of it (files alone)."""
    flip: bool = False
    """Mirror half of the images left to right."""
    photometric: bool = False
    """Change brightness, contrast, saturation and hue at random (files alone)."""

    def __post_init__(self) -> None:
        least, largest = self.scale
        if not 0 < least <= largest < float("inf"):
            raise ValueError(f"augmentation.scale must be two growing numbers above 0, got {self.scale}")
        if self.resize is not None and not 1 <= self.resize[1] <= self.resize[0]:
            raise ValueError(f"augmentation.resize must be a longer and a shorter side, got {self.resize}")
        if self.crop is not None and self.crop < 1:
            raise ValueError(f"augmentation.crop must be at least 1 or None, got {self.crop}")
        if not 0 < self.most_of_one_class <= 1:
            raise ValueError(f"augmentation.most_of_one_class must be above 0, at most 1, got {self.most_of_one_class}")


@dataclass(frozen=True)
class Decoder:
    """UPerNet's decoder over the backbone, and the auxiliary head."""

    channels: int = 512
    """Channels of the pyramid and of the fused features."""
    auxiliary_channels: int = 256
    """Channels of the auxiliary head, which sits on the last feature map but one."""
    auxiliary_weight: float = 0.4
    """Weight of the auxiliary head's loss; 0 leaves the head out."""
    dropout: float = 0.1
    """Share of the channels that are dropped before the classifiers in training."""

    def __post_init__(self) -> None:
        for name in ("channels", "auxiliary_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"decoder.{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.auxiliary_weight < float("inf"):
            raise ValueError(
                f"decoder.auxiliary_weight must be a finite number of at least 0, got {self.auxiliary_weight}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"decoder.dropout must be at least 0 and below 1, got {self.dropout}")


@dataclass(frozen=True)
class AdamW:
    """How the weights move: AdamW, linear warm-up, then polynomial decay to zero."""

    lr: float = 6e-5
    """Peak learning rate."""
    weight_decay: float = 0.01
    """Weight decay; position embeddings, tokens and norms have none."""
    warmup: int = 1500
    """Iterations of linear warm-up."""
    power: float = 1.0
    """Power of the decay."""
    layer_decay: float = 1.0
    """Factor by which the learning rate falls from one layer of the backbone to the one before it; 1: one for all."""

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "power"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"optimizer.{name} must be a finite number of at least 0, got {getattr(self, name)}")
        if self.warmup < 0:
            raise ValueError(f"optimizer.warmup must be at least 0, got {self.warmup}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"optimizer.layer_decay must be above 0, at most 1, got {self.layer_decay}")


@dataclass(frozen=True)
class MultiScale:
    """The test beside the one at a single scale: class probabilities averaged over scaled images."""

    scales: tuple[float, ...] = ()
    """Factors by which the test image is scaled; empty leaves this test out."""
    flip: bool = True
    """Average over the mirrored images too."""

    def __post_init__(self) -> None:
        if any(not 0 < scale < float("inf") for scale in self.scales):
            raise ValueError(f"multi_scale.scales must be above 0, got {self.scales}")


@dataclass(frozen=True)
class SegmentationRecipe:
    """A fine-tuning up to the run whose backbone it takes, and the seed."""

    name: str
    """The recipe's name."""
    data: str
    """Data set with labels per pixel."""
    train_size: int | None = None
    """Training images, drawn at random and always the same ones; None takes all."""
    iterations: int = 160_000
    """Steps of the optimizer."""
    batch_size: int = 16
    """Images per step, over all processes."""
    interval: int = 1000
    """Steps between two lines of metrics, with the mIoU on the validation images where there are some; the fine-tuning
    can be resumed there."""
    loss: Loss = "cross-entropy"
    """Loss per pixel; pixels without a label do not count. The paper's is cross-entropy for every backbone."""
    alpha: float = 0.1
    """Weight of label smoothing and MaxSup where they are the loss."""
    deterministic: bool = False
    """On a GPU, kernels that give one result each time, where there are some; they take more time."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    decoder: Decoder = field(default_factory=Decoder)
    optimizer: AdamW = field(default_factory=AdamW)
    multi_scale: MultiScale = field(default_factory=MultiScale)

    def __post_init__(self) -> None:
        for name, least in (("iterations", 1), ("batch_size", 2), ("interval", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.train_size is not None and self.train_size < 1:
            raise ValueError(f"train_size must be at least 1 or None, got {self.train_size}")
        if not 0 <= self.alpha < float("inf"):
            raise ValueError(f"alpha must be a finite number of at least 0, got {self.alpha}")


_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def ade20k_upernet() -> SegmentationRecipe:
    """The paper's Table 6: UPerNet on ADE20K, 512×512 crops, 160,000 iterations of 16 images, multi-scale test."""
    return SegmentationRecipe(
        name="ade20k-upernet",
        data="ade20k",
        augmentation=Augmentation(
            resize=(2048, 512), scale=(0.5, 2.0), crop=512, most_of_one_class=0.75, flip=True, photometric=True
        ),
        multi_scale=MultiScale(scales=_SCALES),
    )


def fashion_scenes_upernet() -> SegmentationRecipe:
    """Scenes of Fashion-MNIST items (64×64, 20,000 training images, 10 classes and background)."""
    return SegmentationRecipe(
        name="fashion-scenes-upernet",
        data="fashion-scenes",
        iterations=1500,
        batch_size=64,
        interval=250,
        deterministic=True,
        augmentation=Augmentation(scale=(0.8, 1.25), flip=True),
        decoder=Decoder(channels=64, auxiliary_channels=32),
        optimizer=AdamW(lr=3e-4, warmup=100),
        multi_scale=MultiScale(scales=(0.75, 1.0, 1.25)),
    )


def folder_upernet() -> SegmentationRecipe:
    """Your images and mask files (label-folder, voc, cityscapes): as the paper's, 20,000 iterations of 8 images."""
    return dataclasses.replace(
        ade20k_upernet(), name="folder-upernet", data="label-folder", iterations=20_000, batch_size=8, interval=500
    )


RECIPES: dict[str, Callable[[], SegmentationRecipe]] = {
    function.__name__.replace("_", "-"): function
    for function in (ade20k_upernet, fashion_scenes_upernet, folder_upernet)
}


def of_data(name: str) -> SegmentationRecipe:
    """The recipe that a data set is fine-tuned with unless another is named.

    >>> of_data("ade20k").name, of_data("fashion-scenes").name, of_data("voc").name
    ('ade20k-upernet', 'fashion-scenes-upernet', 'folder-upernet')
    """
    own = (recipe() for recipe in RECIPES.values())
    return next((recipe for recipe in own if recipe.data == name), dataclasses.replace(folder_upernet(), data=name))


def as_json(recipe: SegmentationRecipe) -> dict[str, object]:
    """The recipe as plain values, for records and comparison; tuples as the lists that JSON gives back."""
    return cast(dict[str, object], json.loads(json.dumps(dataclasses.asdict(recipe))))
