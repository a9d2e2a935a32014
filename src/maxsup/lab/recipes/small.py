"""Recipes for small data sets, minutes a run at most."""

from __future__ import annotations

from maxsup.lab.recipes.settings import Data, Model, Optimizer, Recipe


def digits_convnet() -> Recipe:
    """Scikit-learn's 1,797 handwritten digits (8×8), a small residual CNN; seconds a run, nothing to download."""
    return Recipe(
        name="digits-convnet",
        epochs=30,
        batch_size=64,
        data=Data(name="digits", pad_crop=1),
        optimizer=Optimizer(lr=0.05),
    )


def fashion_mnist_resnet18() -> Recipe:
    """Fashion-MNIST (28×28, 60,000 training images), timm's ResNet-18 with the 3×3 stem for small images."""
    return Recipe(
        name="fashion-mnist-resnet18",
        epochs=20,
        batch_size=256,
        data=Data(name="fashion-mnist", pad_crop=2, flip=True),
        model=Model(name="resnet18", small_stem=True),
    )


def fashion_scenes_resnet18() -> Recipe:
    """Scenes composed of Fashion-MNIST items (64×64, 20,000 training images, masks), timm's ResNet-18, 3×3 stem."""
    return Recipe(
        name="fashion-scenes-resnet18",
        epochs=20,
        batch_size=256,
        data=Data(name="fashion-scenes", pad_crop=4, flip=True),
        model=Model(name="resnet18", small_stem=True),
    )


def fashion_scenes_vit() -> Recipe:
    """The same scenes, a vision transformer with class token: DeiT-Tiny's width, 6 blocks, 8×8 patches."""
    return Recipe(
        name="fashion-scenes-vit",
        epochs=100,
        batch_size=256,
        data=Data(name="fashion-scenes", pad_crop=4, flip=True),
        model=Model(name="deit_tiny_patch16_224", image_size=64, patch_size=8, depth=6),
        optimizer=Optimizer(name="adamw", lr=1e-3, weight_decay=0.05, warmup_epochs=5),
    )
