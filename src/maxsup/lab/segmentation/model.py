"""UPerNet over the backbone of a classifier (Xiao et al. 2018, arXiv 1807.10221).

The decoder is that of segmentation-models-pytorch. Four feature maps go into it. A CNN of timm's gives its last four
stages, ours its three. A plain vision transformer gives the tokens after each quarter of its blocks (indices 2, 5, 8
and 11 of 12), the last ones normalised, and a neck scales them by 4, 2, 1 and 1/2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from segmentation_models_pytorch.base.modules import Conv2dReLU
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from timm.models import group_parameters
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from maxsup.lab.data.splits import with_channels
from maxsup.lab.models import Classifier, ConvNet
from maxsup.lab.segmentation.recipes import AdamW, Decoder

SCALES = (4.0, 2.0, 1.0, 0.5)


class Neck(nn.Module):
    """Four maps of one size to a pyramid: a 1×1 convolution each, bilinear scaling by `SCALES`, a 3×3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in SCALES)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in SCALES)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Four maps (N, C, H, W) to (N, C, 4H, 4W), (N, C, 2H, 2W), (N, C, H, W) and (N, C, H/2, W/2)."""
        pyramid = []
        for lateral, smooth, scale, feature in zip(self.lateral, self.smooth, SCALES, features, strict=True):
            # A map of one row has no half.
            size = [max(1, int(side * scale)) for side in feature.shape[2:]]
            scaled = nn.functional.interpolate(lateral(feature), size, mode="bilinear", align_corners=False)
            pyramid.append(smooth(scaled))
        return pyramid


class Pyramid(nn.Module):
    """The feature maps of a classifier's backbone, finest first, without what only classifies.

    Raises:
        ValueError: if the backbone gives no feature maps, or has fewer blocks or stages than it takes.
    """

    def __init__(self, backbone: nn.Module, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck: Neck | None = None
        self.multiple = 1  # of which an image's sides must be multiples, or they are padded
        if isinstance(backbone, ConvNet):
            backbone.fc = nn.Identity()  # type: ignore[assignment]
            self.indices, self.channels = [0, 1, 2], [16, 32, 64]
        elif isinstance(backbone, VisionTransformer):
            depth = len(backbone.blocks)
            if depth < len(SCALES):
                raise ValueError(
                    f"a vision transformer needs {len(SCALES)} blocks to be segmented with, this has {depth}"
                )
            self.indices = [(quarter + 1) * depth // len(SCALES) - 1 for quarter in range(len(SCALES))]
            self.channels = [backbone.embed_dim] * len(SCALES)
            # Once, to the size of the training images, and not at every step.
            backbone.set_input_size(image_size)
            backbone.prune_intermediate_layers(self.indices)
            self.neck = Neck(backbone.embed_dim)
            self.multiple = backbone.patch_embed.patch_size[0]
        elif hasattr(backbone, "forward_intermediates") and len(getattr(backbone, "feature_info", ())) >= len(SCALES):
            info = cast(Any, backbone).feature_info
            self.indices = list(range(len(info)))[-len(SCALES) :]
            self.channels = [info[index]["num_chs"] for index in self.indices]
            cast(Any, backbone).prune_intermediate_layers(self.indices)
        else:
            raise ValueError(f"{type(backbone).__name__} gives no pyramid of feature maps to segment with")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (N, C, H, W) to the maps (N, `channels`[i], H_i, W_i)."""
        if isinstance(self.backbone, ConvNet):
            maps = [self.backbone.stem(images)]
            for block in self.backbone.blocks:
                maps.append(block(maps[-1]))
            return maps[1:]
        backbone = cast(Any, self.backbone)
        maps = backbone.forward_intermediates(images, indices=self.indices, intermediates_only=True)
        if self.neck is None:
            return list(maps)
        maps[-1] = backbone.norm(maps[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return cast(list[Tensor], self.neck(maps))


class Segmenter(nn.Module):
    """UPerNet: a classifier's backbone and normalisation, the decoder, the classifier of pixels, the auxiliary head.

    `image_size` (height, width) is that of the training images; a vision transformer's position embeddings are
    resampled to it, bicubically, and in a forward pass at another size, which it must have been built for, to that.

    Raises:
        ValueError: if the backbone cannot be segmented with (see `Pyramid`).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, classifier: Classifier, num_classes: int, image_size: tuple[int, int], decoder: Decoder | None = None
    ) -> None:
        super().__init__()
        decoder = decoder or Decoder()
        self.register_buffer("mean", classifier.mean)
        self.register_buffer("std", classifier.std)
        self.pyramid = Pyramid(classifier.backbone, image_size)
        channels = self.pyramid.channels
        # The decoder leaves out the first two of its inputs, an image's own size and its half.
        self.decoder = UPerNetDecoder([0, 0, *channels], len(channels) + 1, decoder.channels)
        self.head = nn.Sequential(nn.Dropout2d(decoder.dropout), nn.Conv2d(decoder.channels, num_classes, 1))
        self.auxiliary: nn.Module | None = None
        if decoder.auxiliary_weight > 0:
            self.auxiliary = nn.Sequential(
                Conv2dReLU(channels[-2], decoder.auxiliary_channels, 3, padding=1),
                nn.Dropout2d(decoder.dropout),
                nn.Conv2d(decoder.auxiliary_channels, num_classes, 1),
            )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 images (N, C, H, W) to logits (N, K, h, w) at the finest map's size, and the auxiliary head's.

        The latter are None outside training. Grey images and RGB ones become what the backbone takes.
        """
        maps = self._maps(images)
        auxiliary = self.auxiliary(maps[-2]) if self.auxiliary is not None and self.training else None
        return self._decoded(maps), auxiliary

    def logits(self, images: Tensor) -> Tensor:
        """The logits alone, in full precision where a forward pass is wrapped into a lower one."""
        return self._decoded(self._maps(images))

    def _maps(self, images: Tensor) -> list[Tensor]:
        images = with_channels(images, len(self.mean)).contiguous(memory_format=torch.channels_last)
        return cast(list[Tensor], self.pyramid((images.to(self.mean.dtype) / 255 - self.mean) / self.std))

    def _decoded(self, maps: list[Tensor]) -> Tensor:
        return cast(Tensor, self.head(self.decoder([maps[0], maps[0], *maps])))


_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
_EMBEDDINGS = ("pos_embed", "cls_token", "reg_token", "dist_token")


def parameter_groups(model: Segmenter, optimizer: AdamW) -> list[dict[str, Any]]:
    """The weights for an optimizer, grouped by learning rate and weight decay.

    Norms, position embeddings and tokens have no weight decay. With `layer_decay` γ the backbone's layer i of L learns
    at γ^(L − i) times the rate of the decoder (Clark et al. 2020; Bao et al. 2022).

    Raises:
        ValueError: if `layer_decay` is asked of a backbone whose layers timm does not tell.
    """
    spared = {
        f"{name}.{own}" if name else own
        for name, module in model.named_modules()
        for own, _ in module.named_parameters(recurse=False)
        if isinstance(module, _NORMS) or own in _EMBEDDINGS
    }
    scales = {} if optimizer.layer_decay == 1 else _layer_scales(model.pyramid.backbone, optimizer.layer_decay)
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        scale = scales.get(name.removeprefix("pyramid.backbone."), 1.0) if name.startswith("pyramid.backbone.") else 1.0
        decay = 0.0 if name in spared else optimizer.weight_decay
        groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": optimizer.lr * scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]


def _layer_scales(backbone: nn.Module, decay: float) -> dict[str, float]:
    if not hasattr(backbone, "group_matcher"):
        raise ValueError(f"optimizer.layer_decay must be 1 for {type(backbone).__name__}, which names no layers")
    layers = group_parameters(backbone, cast(Any, backbone).group_matcher(coarse=False), reverse=True)
    last = max(layers.values()) + 1
    return {name: decay ** (last - layer) for name, layer in layers.items()}
