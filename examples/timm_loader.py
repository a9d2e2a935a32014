"""timm's loader, Mixup and EMA, α from 0.1 to 0.2, and a resume in the middle. Needs timm and scikit-learn."""

import random
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from timm.data import Mixup, create_dataset, create_loader
from timm.models import create_model
from timm.utils import ModelEmaV3

from maxsup import MaxSupCrossEntropyLoss, diagnostics
from maxsup.integrations.timm import check_mixup
from maxsup.schedules import LinearAlpha

EPOCHS, SIZE = 4, 32


def loader(root: Path, split: str, training: bool):
    return create_loader(
        create_dataset("", root, split=split), (3, SIZE, SIZE), 64, is_training=training, use_prefetcher=False,
        num_workers=0, hflip=0.0, scale=(0.8, 1.0), color_jitter=0.0, crop_pct=1.0, pin_memory=False,
    )  # fmt: skip


def train(root: Path, checkpoint: Path | None = None) -> None:
    torch.manual_seed(0)
    model = create_model("resnet10t", num_classes=10)
    ema = ModelEmaV3(model, decay=0.9)
    criterion = MaxSupCrossEntropyLoss()
    schedule = LinearAlpha(criterion, start=0.1, end=0.2, total_steps=EPOCHS)
    mixup = Mixup(mixup_alpha=0.2, cutmix_alpha=1.0, prob=0.5, label_smoothing=0.0, num_classes=10)
    check_mixup(mixup, criterion)  # Mixup smooths by 0.1 unless told otherwise: twice would be an error here
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    parts = {"model": model, "ema": ema, "optimizer": optimizer, "schedule": schedule}
    if checkpoint is not None:
        for name, state in torch.load(checkpoint, weights_only=True).items():
            parts[name].load_state_dict(state)
    for epoch in range(schedule.last_step, EPOCHS):
        for seed in (torch.manual_seed, np.random.seed, random.seed):  # the order, Mixup and the augmentation
            seed(epoch)
        model.train()
        for images, labels in loader(root, "train", training=True):
            mixed, targets = mixup(images, labels)
            logits = model(mixed)
            loss = criterion(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            ema.update(model)
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in diagnostics(logits, targets).items())
        print(
            f"epoch {epoch + 1}: alpha {criterion.alpha:.4f}, loss {loss:.6f}, {numbers}, EMA {accuracy(root, ema):.4f}"
        )
        schedule.step()
        torch.save({name: part.state_dict() for name, part in parts.items()}, root / f"epoch-{epoch + 1}.pt")


@torch.no_grad()
def accuracy(root: Path, model: torch.nn.Module) -> float:
    model.eval()
    right = [model(images).argmax(1) == labels for images, labels in loader(root, "validation", training=False)]
    return torch.cat(right).float().mean().item()


with tempfile.TemporaryDirectory() as folder:
    root = Path(folder)
    digits = load_digits()
    for index, (image, label) in enumerate(zip(digits.images[:1000], digits.target, strict=False)):
        directory = root / ("train" if index < 768 else "validation") / str(label)
        directory.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((image * 15).astype("uint8")).resize((SIZE, SIZE)).convert("RGB")
        picture.save(directory / f"{index}.png")
    train(root)
    print("resumed after epoch 2")
    train(root, root / "epoch-2.pt")
