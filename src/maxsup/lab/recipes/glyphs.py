"""Recipes for letters and digits of real typefaces (docs/glyphs.md).

Images are shifted at random and never mirrored: a mirrored b is a d.
"""

from __future__ import annotations

from maxsup.lab.recipes.settings import Data, Model, Optimizer, Recipe


def glyphs_resnet18() -> Recipe:
    """Letters and digits of real typefaces (32×32, 62 classes), timm's ResNet-18 with the 3×3 stem; made, see docs."""
    return Recipe(
        name="glyphs-resnet18",
        epochs=30,
        batch_size=256,
        data=Data(name="glyphs", pad_crop=2),
        model=Model(name="resnet18", small_stem=True),
    )


def glyphs_mobilenetv2() -> Recipe:
    """The same letters and digits, enlarged to 64×64, timm's MobileNetV2, whose last map is then 2×2."""
    return Recipe(
        name="glyphs-mobilenetv2",
        epochs=60,
        batch_size=256,
        data=Data(name="glyphs", image_size=64, pad_crop=4),
        model=Model(name="mobilenetv2_100"),
        optimizer=Optimizer(lr=0.1, weight_decay=1e-4, warmup_epochs=3),
    )


def glyphs_deit() -> Recipe:
    """The same letters and digits, a vision transformer from scratch: DeiT-Tiny's width, 6 blocks, 4×4 patches."""
    return Recipe(
        name="glyphs-deit",
        epochs=100,
        batch_size=256,
        data=Data(name="glyphs", pad_crop=2),
        model=Model(name="deit_tiny_patch16_224", image_size=32, patch_size=4, depth=6),
        optimizer=Optimizer(name="adamw", lr=1e-3, weight_decay=0.05, warmup_epochs=5),
    )
