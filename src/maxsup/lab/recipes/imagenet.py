"""The paper's recipes for convolutional networks on ImageNet: `imagenet-*` for Table 4, `imagenet-v1-*` for Table 7.

Sources of the numbers, named beside them: "paper" is arXiv 2502.15798, §5.1.1 and Appendix E; "V1" is torchvision's
first recipe for its ImageNet weights, which Appendix E adopts; "FFCV" are the FFCV ImageNet scripts (Leclerc et al.
2023), to which the paper refers for the rest; "ours" is what none of them says.
"""

from __future__ import annotations

from maxsup.lab.recipes.settings import Alpha, Data, Model, Optimizer, Recipe

_ALPHA = Alpha(0.1, 0.2, "linear")  # paper: from 0.1 to 0.2, for MaxSup and label smoothing alike


def _data() -> Data:
    return Data(
        name="imagenet",  # the official validation images are the test split
        image_size=224,  # FFCV trains at 160 to 192 and tests at 256 pixels: taken as the usual 224, as V1 has it
        random_resized_crop=True,  # FFCV and V1, with the usual area and shape
        flip=True,  # FFCV and V1
        eval_crop=0.875,  # V1: shorter side to 256, its centre of 224
        interpolation="bilinear",  # V1
        normalize="imagenet",  # FFCV and V1
        held_out=None,  # ours: the data set's own 10,000 of 1,281,167 training images, for calibration
    )


def _long(name: str, network: str) -> Recipe:
    return Recipe(
        name=name,
        epochs=200,  # paper
        batch_size=2048,  # paper
        selection="last",  # ours: nothing is chosen by an accuracy
        data=_data(),
        model=Model(name=network),
        optimizer=Optimizer(
            name="momentum",  # paper: SGD with momentum, Nesterov on CIFAR-100 alone
            lr=0.85,  # paper, as the initial rate: hence no warm-up
            momentum=0.9,  # paper
            weight_decay=1e-4,  # paper
            schedule="cosine",  # paper
            min_lr=0.0,  # paper: cosine annealing, to no other end
            warmup_epochs=0,
            decay_norm_bias=False,  # FFCV: none on batch norms
        ),
        alpha=_ALPHA,
    )


def _v1(name: str, network: str) -> Recipe:
    return Recipe(
        name=name,
        epochs=90,  # paper
        batch_size=512,  # paper
        selection="last",  # ours
        data=_data(),
        model=Model(name=network),
        optimizer=Optimizer(
            name="momentum",  # V1
            lr=0.1,  # paper
            momentum=0.9,  # V1
            weight_decay=1e-4,  # V1
            schedule="step",  # paper
            step_epochs=30,  # paper
            gamma=0.1,  # V1
            warmup_epochs=0,  # V1
            decay_norm_bias=True,  # V1 decays every weight
        ),
        alpha=_ALPHA,
    )


def imagenet_resnet18() -> Recipe:
    """Table 4: ResNet-18 on ImageNet-1k (224×224), 200 epochs of SGD at batch 2,048, cosine from 0.85."""
    return _long("imagenet-resnet18", "resnet18")


def imagenet_resnet50() -> Recipe:
    """Tables 2, 3, 4 and 9: ResNet-50 on ImageNet-1k (224×224), 200 epochs of SGD at batch 2,048, cosine from 0.85."""
    return _long("imagenet-resnet50", "resnet50")


def imagenet_resnet101() -> Recipe:
    """Table 4: ResNet-101 on ImageNet-1k (224×224), 200 epochs of SGD at batch 2,048, cosine from 0.85."""
    return _long("imagenet-resnet101", "resnet101")


def imagenet_mobilenetv2() -> Recipe:
    """Table 4: MobileNetV2 on ImageNet-1k (224×224), 200 epochs of SGD at batch 2,048, cosine from 0.85."""
    return _long("imagenet-mobilenetv2", "mobilenetv2_100")


def imagenet_v1_resnet18() -> Recipe:
    """Table 7: ResNet-18 on ImageNet-1k after torchvision's first recipe: 90 epochs, batch 512, steps from 0.1."""
    return _v1("imagenet-v1-resnet18", "resnet18")


def imagenet_v1_resnet50() -> Recipe:
    """Table 7: ResNet-50 on ImageNet-1k after torchvision's first recipe: 90 epochs, batch 512, steps from 0.1."""
    return _v1("imagenet-v1-resnet50", "resnet50")


def imagenet_v1_resnet101() -> Recipe:
    """Table 7: ResNet-101 on ImageNet-1k after torchvision's first recipe: 90 epochs, batch 512, steps from 0.1."""
    return _v1("imagenet-v1-resnet101", "resnet101")


def imagenet_v1_mobilenetv2() -> Recipe:
    """Table 7: MobileNetV2 on ImageNet-1k after torchvision's first recipe, as the paper has it for all networks."""
    return _v1("imagenet-v1-mobilenetv2", "mobilenetv2_100")
