"""Hugging Face's Trainer on a tiny text classifier, α from 0.1 to 0.2 an update, resumed in the middle.

The text is on every machine with Python: are 64 bytes of the standard library source code, or documentation? Needs
transformers and accelerate; nothing is downloaded.
"""

import inspect
import statistics
import tempfile
from pydoc_data.topics import topics

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, logging

from maxsup import MaxSupCrossEntropyLoss
from maxsup.integrations.transformers import AlphaCallback, TrainerLoss
from maxsup.schedules import LinearAlpha

LENGTH, UPDATES = 64, 80
logging.set_verbosity_error()


def texts():
    sources = inspect.getsource(statistics), " ".join(topics.values())
    return [
        {"input_ids": list(source.encode()[at : at + LENGTH]), "labels": label}
        for label, source in enumerate(sources)
        for at in range(0, 30_000, LENGTH)
    ]


def train(folder, checkpoint=None):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=256, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=LENGTH, num_labels=2, initializer_range=0.1, hidden_dropout_prob=0.0,
    )  # fmt: skip
    model, criterion = BertForSequenceClassification(config), MaxSupCrossEntropyLoss()
    schedule = LinearAlpha(criterion, start=0.1, end=0.2, total_steps=UPDATES)
    args = TrainingArguments(
        folder, max_steps=UPDATES, per_device_train_batch_size=16, gradient_accumulation_steps=2, learning_rate=1e-2,
        logging_steps=20, save_steps=40, report_to=[], disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(
        model, args, train_dataset=texts(),
        compute_loss_func=TrainerLoss(criterion, model),  # the two lines
        callbacks=[AlphaCallback(schedule, interval="step")],
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=checkpoint)
    done = int(checkpoint.rpartition("-")[2]) if checkpoint else 0
    for row in trainer.state.log_history:
        if "loss" in row and row["step"] > done:
            print(f"update {row['step']}: alpha {row['alpha']:.4f}, loss {row['loss']:.6f}")


with tempfile.TemporaryDirectory() as folder:
    train(folder)
    print("resumed after update 40")
    train(folder, f"{folder}/checkpoint-40")
