"""Grad-CAM (Selvaraju et al., IJCV 2019, arXiv 1610.02391): where in an image a network finds a class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maxsup.lab.models import Backbone, Classifier

# The package grad-cam would do the same through OpenCV, of 60 MB, and stretches each map to reach from 0 to 1, which
# takes away what the measures of localization are about: that a map can be zero nowhere, and everywhere.

# Images at a time; the batch only bounds memory.
BATCH = 250


class GradCam(NamedTuple):
    """The maps of a batch and what the network said."""

    cams: Tensor
    """(N, H, W), float32, at least 0, in units of the logit over activation positions; not scaled to a maximum of 1."""
    logits: Tensor
    """(N, K), float32."""


def grad_cam(model: Classifier, images: Tensor, targets: Tensor | None = None) -> GradCam:
    r"""Grad-CAM of each image for its target class.

    With A (D, h, w) the activation and z_c the logit of the target: :math:`\mathrm{relu}(\sum_k w_k A_k)`, w_k the mean
    of :math:`\partial z_c / \partial A_k` over the positions, enlarged to the image bilinearly. A is the last feature
    map of a CNN (for a ResNet, what the last block of the last stage returns). For a vision transformer it is what the
    first norm of the last block returns, without class and register tokens, on the grid of the patches: behind the
    last block's attention a patch token has no influence on the class token.

    Runs in evaluation mode and in the precision of the weights, on their device; leaves modes, gradients, hooks and
    `requires_grad` as they were.

    Args:
        model: the classifier.
        images: (N, C, H, W), uint8.
        targets: (N,), integer classes; None takes the class that the network predicts for each image.

    Raises:
        ValueError: if `targets` does not fit the images or classes, or the network has neither a feature map (N, D,
            h, w) nor the blocks of timm's vision transformers.
    """
    if images.ndim != 4 or images.dtype != torch.uint8 or not len(images):
        raise ValueError(
            f"images must be uint8 of shape (N, C, H, W), N at least 1, got {images.dtype} {_shape(images)}"
        )
    if targets is not None and targets.shape != images.shape[:1]:
        raise ValueError(f"targets must have shape ({len(images)},), a class an image, got {_shape(targets)}")
    device = model.mean.device
    parts = []
    with _explaining(model):
        for start in range(0, len(images), BATCH):
            x = model.normalize(images[start : start + BATCH].to(device))
            chosen = None if targets is None else targets[start : start + BATCH].to(device)
            parts.append(_grad_cam(model.backbone, x, chosen))
    return GradCam(torch.cat([part.cams for part in parts]), torch.cat([part.logits for part in parts]))


def _grad_cam(backbone: nn.Module, x: Tensor, targets: Tensor | None) -> GradCam:
    activation, logits = _activation_and_logits(backbone, x)
    if targets is None:
        targets = logits.argmax(1)
    elif int(targets.min()) < 0 or int(targets.max()) >= logits.shape[1]:
        wrong = int(targets.min()) if int(targets.min()) < 0 else int(targets.max())
        raise ValueError(f"targets must be from 0 to {logits.shape[1] - 1}, got {wrong}")
    # In evaluation mode no image depends on another: the gradient of the sum is each one's own.
    (gradient,) = torch.autograd.grad(logits.gather(1, targets.view(-1, 1)).sum(), activation)
    a, g = (_on_grid(backbone, of) for of in (activation.detach(), gradient))
    cams = (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1, keepdim=True).relu()
    cams = F.interpolate(cams.float(), x.shape[2:], mode="bilinear", align_corners=False).squeeze(1)
    return GradCam(cams, logits.detach().float())


def _activation_and_logits(backbone: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The activation, and the logits as the end of a graph that begins in it."""
    norm = _last_first_norm(backbone)
    if norm is None:
        network = cast(Backbone, backbone)
        activation = network.forward_features(x)
        if activation.ndim != 4 or getattr(backbone, "output_fmt", "NCHW") != "NCHW":
            raise ValueError(
                f"Grad-CAM needs a feature map (N, D, h, w) or timm's vision transformer blocks; "
                f"{type(backbone).__name__} ends in features of shape {_shape(activation)}"
            )
        activation.requires_grad_()
        return activation, network.forward_head(activation)
    leaves: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        leaves.append(output.requires_grad_())

    handle = norm.register_forward_hook(keep)
    try:
        logits = backbone(x)
    finally:
        handle.remove()
    return leaves[0], logits


def _last_first_norm(backbone: nn.Module) -> nn.Module | None:
    """The first norm of a vision transformer's last block; None for another network."""
    blocks = getattr(backbone, "blocks", None)
    if not isinstance(blocks, nn.Sequential) or not hasattr(backbone, "num_prefix_tokens"):
        return None
    norm = getattr(blocks[-1], "norm1", None)
    return norm if isinstance(norm, nn.Module) else None


def _on_grid(backbone: nn.Module, of: Tensor) -> Tensor:
    """Feature map (N, D, h, w) as it is; tokens (N, T, D) to (N, D, h, w), those of no patch left out."""
    if of.ndim == 4:
        return of
    transformer = cast(Any, backbone)
    patches: Tensor = of[:, transformer.num_prefix_tokens :].transpose(1, 2)
    return patches.reshape(*patches.shape[:2], *transformer.patch_embed.grid_size)


@contextmanager
def _explaining(model: nn.Module) -> Iterator[None]:
    """Evaluation mode with frozen weights, and gradients on; each module and weight gets its own state back.

    With frozen weights the graph holds nothing that comes before the activation.
    """
    modes = [(module, module.training) for module in model.modules()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval().requires_grad_(False)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in trained:
            parameter.requires_grad_(True)


def _shape(of: Tensor) -> str:
    return str(tuple(of.shape))
