"""The paper's α schedule, interrupted after two epochs and resumed from a checkpoint: the same values follow."""

import tempfile
from pathlib import Path

import torch
from torch import nn

from maxsup import MaxSupCrossEntropyLoss
from maxsup.schedules import LinearAlpha

EPOCHS = 5
images, labels = torch.randn(256, 20), torch.randint(10, (256,))  # stand-ins for a data set


def train(checkpoint: Path, stop_after: int) -> None:
    model, criterion = nn.Linear(20, 10), MaxSupCrossEntropyLoss()
    schedule = LinearAlpha(criterion, start=0.1, end=0.2, total_steps=EPOCHS)
    parts = {"model": model, "schedule": schedule}
    if checkpoint.exists():
        for name, state in torch.load(checkpoint, weights_only=True).items():
            parts[name].load_state_dict(state)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(schedule.last_step, stop_after):
        print(f"epoch {epoch + 1}: alpha {schedule.get_last_alpha():.3f}")
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()
        schedule.step()  # after the epoch, as with a learning-rate scheduler
        torch.save({name: part.state_dict() for name, part in parts.items()}, checkpoint)


with tempfile.TemporaryDirectory() as folder:
    train(Path(folder) / "checkpoint.pt", stop_after=2)
    print("interrupted, and resumed")
    train(Path(folder) / "checkpoint.pt", stop_after=EPOCHS)
