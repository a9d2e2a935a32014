"""The paper's recipes for CIFAR-100 (Table 4).

Sources of the numbers, named beside them: "paper" is arXiv 2502.15798, §5.1.1; "code" is the collection of CIFAR-100
networks that its settings follow (weiaicunzai's pytorch-cifar100); "ours" is what neither says.
"""

from __future__ import annotations

from maxsup.lab.recipes.settings import Alpha, Data, Model, Optimizer, Recipe


def _recipe(name: str, network: str) -> Recipe:
    return Recipe(
        name=name,
        epochs=200,  # paper
        batch_size=128,  # paper
        selection="last",  # ours: nothing is chosen by an accuracy
        data=Data(
            name="cifar100",
            pad_crop=4,  # code
            flip=True,  # code
            rotation=15.0,  # code
            held_out=1000,  # ours: ten of each class, for calibration; the paper trains on all 50,000
        ),
        model=Model(name=network, small_stem=True),  # code: strides fit for 32×32 images
        optimizer=Optimizer(
            name="sgd",  # paper: Nesterov
            lr=0.1,  # paper
            momentum=0.9,  # paper
            weight_decay=5e-4,  # paper
            schedule="multistep",  # paper
            milestones=(60, 120, 160),  # paper
            gamma=0.2,  # paper: "by a factor of 5"
            warmup_epochs=1,  # code
            decay_norm_bias=True,  # code decays every weight
        ),
        alpha=Alpha(0.1, 0.2, "linear"),  # paper
    )


def cifar100_resnet18() -> Recipe:
    """Table 4: ResNet-18 with the stem for small images on CIFAR-100, 200 epochs, 0.1 × 0.2 at 60, 120 and 160."""
    return _recipe("cifar100-resnet18", "resnet18")


def cifar100_resnet50() -> Recipe:
    """Table 4: ResNet-50 with the stem for small images on CIFAR-100, 200 epochs, 0.1 × 0.2 at 60, 120 and 160."""
    return _recipe("cifar100-resnet50", "resnet50")


def cifar100_resnet101() -> Recipe:
    """Table 4: ResNet-101 with the stem for small images on CIFAR-100, 200 epochs, 0.1 × 0.2 at 60, 120 and 160."""
    return _recipe("cifar100-resnet101", "resnet101")


def cifar100_mobilenetv2() -> Recipe:
    """Table 4: MobileNetV2 with strides for small images on CIFAR-100, 200 epochs, 0.1 × 0.2 at 60, 120 and 160."""
    return _recipe("cifar100-mobilenetv2", "mobilenetv2_100")
