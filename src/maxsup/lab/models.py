"""Models: a small residual CNN of ours, and timm's, with one interface.

A model has timm's `forward_features`, `forward_head(x, pre_logits=True)` and `get_classifier`: the penultimate
features are what goes into the final linear layer. Its first module normalises uint8 images.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from maxsup.lab import recipes
from maxsup.lab.names import unknown


class Backbone(Protocol):
    """What the lab asks of a network (timm's models have it)."""

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to the last feature map or tokens."""

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last feature map or tokens to logits (N, K), or to penultimate features (N, D)."""

    def get_classifier(self) -> nn.Module:
        """The final linear layer."""


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch norm and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H/stride, W/stride)."""
        return torch.relu(self.body(x) + self.shortcut(x))


class ConvNet(nn.Module):
    """A residual CNN for images of 8×8 and up: 16, 32 and 64 channels, 0.08 million weights, 64 features."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        )
        self.blocks = nn.Sequential(ResidualBlock(16, 16, 1), ResidualBlock(16, 32, 2), ResidualBlock(32, 64, 2))
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to the last feature map (N, 64, H/4, W/4)."""
        return cast(Tensor, self.blocks(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last feature map to logits (N, K), or to pooled features (N, 64)."""
        pooled: Tensor = self.global_pool(x).flatten(1)
        return pooled if pre_logits else cast(Tensor, self.fc(pooled))

    def get_classifier(self) -> nn.Module:
        """The final linear layer."""
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, K)."""
        return self.forward_head(self.forward_features(x))


class Classifier(nn.Module):
    """A backbone behind the normalisation of its data set; takes uint8 images, or floats that are normalised."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 images (N, C, H, W) to floats of mean 0 and std 1; floats are taken as normalised already."""
        if images.is_floating_point():
            return images
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std

    def no_weight_decay(self) -> set[str]:
        """Names of the weights that the backbone spares from weight decay, as a vision transformer its embeddings."""
        spared: set[str] = getattr(self.backbone, "no_weight_decay", set)()
        return {f"backbone.{name}" for name in spared}

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (N, C, H, W) to logits (N, K)."""
        return cast(Tensor, self.backbone(self.normalize(images)))

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 images (N, C, H, W) to penultimate features (N, D) and logits (N, K)."""
        backbone = cast(Backbone, self.backbone)
        features = backbone.forward_head(backbone.forward_features(self.normalize(images)), pre_logits=True)
        return features, cast(Tensor, backbone.get_classifier()(features))


def check_name(name: str) -> None:
    """Raises UnknownNameError if neither we nor timm know the model."""
    if name != "convnet":
        import timm

        if not timm.is_model(name):
            raise unknown("model", name, ["convnet", *timm.list_models()])


def is_vision_transformer(name: str) -> bool:
    """Whether a model of ours or timm's is one whose image size, patch size and depth can be set."""
    if name == "convnet":
        return False
    import timm

    return timm.model_entrypoint(name).__module__ in ("timm.models.vision_transformer", "timm.models.deit")


def _check_drop_path(model: recipes.Model, network: nn.Module | None) -> None:
    skips = network is not None and any(type(module).__name__ == "DropPath" for module in network.modules())
    if model.drop_path and not skips:
        raise ValueError(f"model.drop_path: {model.name!r} has no residual blocks that could be skipped")


def build(model: recipes.Model, channels: int, num_classes: int, *, any_size: bool = False) -> nn.Module:
    """The network of a recipe, randomly initialised; with `any_size` a vision transformer takes images of every size.

    Raises:
        UnknownNameError: if neither we nor timm know the name.
        ValueError: if `small_stem` is asked of no ResNet and no MobileNetV2, or `image_size`, `patch_size` or
            `depth` of one that is no vision transformer of timm's, or `drop_path` of one that has none.
    """
    check_name(model.name)
    asked = {"img_size": model.image_size, "patch_size": model.patch_size, "depth": model.depth}
    sizes: dict[str, Any] = {name: size for name, size in asked.items() if size is not None}
    if sizes and not is_vision_transformer(model.name):
        raise ValueError(
            f"model.image_size, patch_size and depth are a vision transformer's; {model.name!r} has none of them to set"
        )
    if model.name == "convnet":
        _check_drop_path(model, None)
        return ConvNet(channels, num_classes)
    if any_size and is_vision_transformer(model.name):
        sizes |= {"dynamic_img_size": True, "dynamic_img_pad": True}
    import timm

    if model.drop_path:
        sizes["drop_path_rate"] = model.drop_path
    try:
        network: nn.Module = timm.create_model(
            model.name, pretrained=False, in_chans=channels, num_classes=num_classes, **sizes
        )
    except TypeError as error:
        if "drop_path_rate" in str(error):
            _check_drop_path(model, None)
        raise
    _check_drop_path(model, network)
    if model.small_stem:
        _fit_small_images(network, model.name, channels)
    return network


def _fit_small_images(network: Any, name: str, channels: int) -> None:
    """Changes a ResNet or a MobileNetV2 so that 32×32 images end as maps of 4×4."""
    if name.startswith("mobilenetv2"):
        # Where networks for CIFAR-100 have stride 1: in the stem and in the last of MobileNetV2's own strides.
        for convolution in (network.conv_stem, network.blocks[5][0].conv_dw):
            convolution.stride = (1, 1)
        return
    stem, pool = getattr(network, "conv1", None), getattr(network, "maxpool", None)
    if not isinstance(stem, nn.Conv2d) or not isinstance(pool, nn.MaxPool2d):
        raise ValueError(f"model.small_stem: {name!r} has no stem to replace, as ResNets and MobileNetV2 have")
    network.conv1 = nn.Conv2d(channels, stem.out_channels, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
