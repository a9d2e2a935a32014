"""The paper's recipe for DeiT-Small on ImageNet (Tables 1, 5 and 8, Figures 4 and 5).

The paper (arXiv 2502.15798, §5.1.1) uses "the official implementation" of DeiT (Touvron et al. 2021) from scratch,
without distillation, Mixup and CutMix; the numbers are those of DeiT's Table 9 and its script's defaults.
"""

from __future__ import annotations

import dataclasses

from maxsup.lab.recipes.settings import Alpha, Data, Model, Optimizer, Recipe


def imagenet_deit_small() -> Recipe:
    """Tables 1, 5, 8: DeiT-Small on ImageNet-1k (224×224), 300 epochs of AdamW at batch 1,024, no Mixup or CutMix."""
    return Recipe(
        name="imagenet-deit-small",
        epochs=300,
        batch_size=1024,  # four GPUs with 256 each
        selection="last",  # ours: nothing is chosen by an accuracy
        data=Data(
            name="imagenet",
            image_size=224,
            random_resized_crop=True,
            flip=True,
            rand_augment="rand-m9-mstd0.5-inc1",
            random_erasing=0.25,
            repeats=3,
            interpolation="bicubic",
            eval_crop=0.875,
            normalize="imagenet",
            held_out=None,  # ours: the data set's own 10,000 of 1,281,167 training images, for calibration
        ),
        model=Model(name="deit_small_patch16_224", drop_path=0.1),
        optimizer=Optimizer(
            name="adamw",
            lr=1e-3,  # 5e-4 · batch / 512
            weight_decay=0.05,
            schedule="cosine",
            min_lr=1e-5,
            warmup_epochs=5,
            warmup_lr=1e-6,
            decay_norm_bias=False,
        ),
        alpha=Alpha(0.1, 0.2, "linear"),  # paper, §5.1.1; the studies of Tables 1 and 8 hold it at 0.1
    )


def imagenet_deit_small_mix() -> Recipe:
    """Figures 4 and 5: the same with DeiT's own Mixup (0.8) and CutMix (1.0), one of the two for each batch."""
    plain = imagenet_deit_small()
    mixed = dataclasses.replace(plain.data, mixup=0.8, cutmix=1.0)
    return dataclasses.replace(plain, name="imagenet-deit-small-mix", data=mixed)
