"""Lightning on scikit-learn's digits, α from 0.1 to 0.2, and a resume in the middle. Needs lightning."""

import logging
import tempfile

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from maxsup import MaxSupCrossEntropyLoss
from maxsup.integrations.lightning import AlphaCallback
from maxsup.schedules import LinearAlpha

EPOCHS = 5
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Digits(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10)
        )
        self.criterion = MaxSupCrossEntropyLoss()  # was: nn.CrossEntropyLoss(label_smoothing=0.1)

    def training_step(self, batch, index):
        images, labels = batch
        loss = self.criterion(self.network(images), labels)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=2e-3)

    def on_train_epoch_end(self):
        seen = self.trainer.callback_metrics
        names = ["maxsup/alpha", "loss", "maxsup/penalty", "maxsup/top1_gap", "maxsup/wrong_top1"]
        print(f"epoch {self.current_epoch + 1}: " + ", ".join(f"{name} {seen[name]:.4f}" for name in names))


class Shuffled(torch.utils.data.Sampler):
    """An order for each epoch that its number decides, so that a resumed run has the same."""

    def __init__(self, size):
        self.size, self.epoch = size, 0

    def set_epoch(self, epoch):  # which Lightning calls
        self.epoch = epoch

    def __iter__(self):
        return iter(torch.randperm(self.size, generator=torch.Generator().manual_seed(self.epoch)).tolist())

    def __len__(self):
        return self.size


def train(folder, checkpoint=None):
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    data = TensorDataset(images, torch.tensor(digits.target))
    model = Digits()
    alpha = AlphaCallback(LinearAlpha(model.criterion, start=0.1, end=0.2, total_steps=EPOCHS))
    keep = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", callbacks=[alpha, keep], logger=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, DataLoader(data, batch_size=64, sampler=Shuffled(len(data))), ckpt_path=checkpoint)


with tempfile.TemporaryDirectory() as folder:
    train(folder)
    print("resumed after epoch 2")
    train(folder, f"{folder}/epoch=1.ckpt")
