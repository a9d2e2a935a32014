"""Mixup and CutMix by timm: the loss takes their mixed labels as probabilities. Needs timm and scikit-learn."""

import torch
from sklearn.datasets import load_digits
from timm.data import Mixup
from torch import nn

from maxsup import MaxSupCrossEntropyLoss
from maxsup.integrations.timm import check_mixup

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
labels = torch.tensor(digits.target)
train, test = torch.randperm(len(labels))[:1792].split([1408, 384])

criterion = MaxSupCrossEntropyLoss(alpha=0.1)
# timm's Mixup smooths by 0.1 unless told not to, on top of what the loss does.
mixup = Mixup(mixup_alpha=0.2, cutmix_alpha=1.0, label_smoothing=0.0, num_classes=10)
check_mixup(mixup, criterion)

model = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
for epoch in range(8):
    for batch in train[torch.randperm(len(train))].split(64):
        mixed, targets = mixup(images[batch], labels[batch])  # (N, 1, 8, 8), and (N, 10) that sum to 1
        loss = criterion(model(mixed), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean()
    print(f"epoch {epoch + 1}: loss {loss.item():.4f}, test accuracy {accuracy:.4f}")
