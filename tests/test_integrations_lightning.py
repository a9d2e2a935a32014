"""Lightning's trainer: the schedule's values, resumed runs, and what is logged."""

import pytest
import torch
from torch import nn

import maxsup
from maxsup.schedules import LinearAlpha

lightning = pytest.importorskip("lightning", reason="Lightning is in the extra maxsup[integrations]")

from lightning.pytorch.callbacks import Callback, ModelCheckpoint  # noqa: E402

from maxsup.integrations.lightning import AlphaCallback  # noqa: E402

pytestmark = [
    # Lightning's advice, and what it uses of PyTorch.
    pytest.mark.filterwarnings("ignore:.*(num_workers|persistent_workers|GPU available|log_every_n_steps).*"),
    pytest.mark.filterwarnings("ignore:.*(LeafSpec|treespec|isinstance.treespec).*"),
    pytest.mark.filterwarnings("ignore:.*checkpoint directory.*exists and is not empty.*"),
]


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Linear(6, 4)
        self.criterion = maxsup.MaxSupCrossEntropyLoss()

    def training_step(self, batch, index):
        return self.criterion(self.network(batch[0]), target=batch[1])

    def validation_step(self, batch, index):
        self.criterion(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Recorder(Callback):
    """What each training batch had and gave."""

    def __init__(self):
        self.rows = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append((float(pl_module.criterion.alpha), float(outputs["loss"]), metrics))


class Resumable(torch.utils.data.DataLoader):
    """A loader that goes on within an epoch, as Lightning needs for the same batches after a resume."""

    done = 0

    def __iter__(self):
        start = self.done % len(self)
        for index, batch in enumerate(super().__iter__()):
            if index >= start:
                self.done = index + 1
                yield batch

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.done = state["done"]


def loader():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(32, 6, generator=generator)
    labels = torch.randint(4, (32,), generator=generator)
    return Resumable(torch.utils.data.TensorDataset(images, labels), batch_size=4)


def fit(folder, schedule, *, interval="epoch", checkpoint=None, epochs=3, callbacks=(), **options):
    model, recorder = Model(), Recorder()
    callback = AlphaCallback(schedule(model.criterion), interval=interval)
    keep = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[callback, recorder, keep, *callbacks], **options,
    )  # fmt: skip
    trainer.fit(model, loader(), loader(), ckpt_path=checkpoint)
    return model, recorder.rows


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("step", [3, 6], ids=["within-an-epoch", "later"])
def test_a_resumed_run_has_the_same_alphas_and_losses(tmp_path, interval, step):
    # 8 batches an epoch, 2 of them an update.
    def schedule(loss):
        return LinearAlpha(loss, 0.1, 0.2, total_steps=3 if interval == "epoch" else 12)

    options = {"interval": interval, "accumulate_grad_batches": 2}
    model, rows = fit(tmp_path, schedule, **options)
    expected = [0.1 + 0.1 * (batch // 8 / 2 if interval == "epoch" else batch // 2 / 11) for batch in range(24)]
    assert [alpha for alpha, _, _ in rows] == pytest.approx(expected)
    resumed, again = fit(tmp_path, schedule, checkpoint=str(tmp_path / f"step={step}.ckpt"), **options)
    assert again == rows[2 * step :]
    assert torch.equal(resumed.network.weight, model.network.weight)


def test_a_checkpoint_of_an_epochs_end_goes_on_with_the_next_alpha(tmp_path):
    def schedule(loss):
        return LinearAlpha(loss, 0.1, 0.2, total_steps=3)

    ends = ModelCheckpoint(tmp_path, filename="end-{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    _, rows = fit(tmp_path, schedule, callbacks=[ends])
    resume = {"checkpoint": str(tmp_path / "end-epoch=0.ckpt"), "callbacks": [ends]}
    _, again = fit(tmp_path, schedule, **resume)
    assert again == rows[8:]
    assert again[0][0] == pytest.approx(0.15)


def test_what_is_logged_is_the_diagnostics_of_the_batch(tmp_path):
    model, rows = fit(tmp_path, lambda loss: LinearAlpha(loss, 0.1, 0.2, total_steps=8), interval="step", epochs=1)
    torch.manual_seed(0)
    fresh = Model()
    images, labels = next(iter(loader()))
    expected = maxsup.diagnostics(fresh.network(images), labels)
    _, _, logged = rows[0]
    assert logged == pytest.approx(
        {"maxsup/alpha": 0.1, **{f"maxsup/{name}": float(value) for name, value in expected.items()}}
    )
    assert rows[-1][2]["maxsup/alpha"] == pytest.approx(0.2)
    assert not model.criterion._forward_hooks  # left as it was


def test_the_hook_goes_after_an_error(tmp_path):
    class Failing(Model):
        def training_step(self, batch, index):
            super().training_step(batch, index)
            raise RuntimeError("stop")

    model = Failing()
    callback = AlphaCallback(LinearAlpha(model.criterion, 0.1, 0.2, total_steps=2))
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, callbacks=[callback],
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="stop"):
        trainer.fit(model, loader(), loader())
    assert not model.criterion._forward_hooks


def test_a_schedule_of_another_loss_is_refused(tmp_path):
    other = maxsup.MaxSupCrossEntropyLoss()
    with pytest.raises(ValueError, match="MaxSupCrossEntropyLoss is no attribute of Model"):
        fit(tmp_path, lambda loss: LinearAlpha(other, 0.1, 0.2, total_steps=3))
    with pytest.raises(TypeError, match=r"schedule must be one of maxsup\.schedules, got float"):
        AlphaCallback(0.1)
    with pytest.raises(ValueError, match="interval must be one of epoch, step, got 'batch'"):
        AlphaCallback(LinearAlpha(other, 0.1, 0.2, total_steps=3), interval="batch")
