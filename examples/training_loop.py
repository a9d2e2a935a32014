"""A plain PyTorch loop on scikit-learn's digits; the loss is the one line that differs."""

import torch
from sklearn.datasets import load_digits
from torch import nn

from maxsup import MaxSupCrossEntropyLoss

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
labels = torch.tensor(digits.target)
order = torch.randperm(len(labels))
train, test = order[:1400], order[1400:]

model = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 16, 64), nn.ReLU(),
    nn.Linear(64, 10),
)  # fmt: skip
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
criterion = MaxSupCrossEntropyLoss(alpha=0.1)  # was: nn.CrossEntropyLoss(label_smoothing=0.1)

for epoch in range(8):
    for batch in train[torch.randperm(len(train))].split(64):
        loss = criterion(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean()
    print(f"epoch {epoch + 1}: loss {loss.item():.4f}, test accuracy {accuracy:.4f}")
