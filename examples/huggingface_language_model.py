"""Hugging Face's Trainer on a tiny language model that trains without its logits: the losses are those of the logits.

The text is on every machine with Python: bytes of the standard library's source code. Needs transformers and
accelerate; nothing is downloaded.
"""

import contextlib
import inspect
import tempfile
import textwrap

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, logging

from maxsup import MaxSupCrossEntropyLoss
from maxsup.integrations.transformers import AlphaCallback, TrainerLoss, fused_head
from maxsup.schedules import LinearAlpha

LENGTH, EPOCHS = 64, 3
logging.set_verbosity_error()


def texts():
    source = inspect.getsource(textwrap).encode()
    pieces = [list(source[at : at + LENGTH]) for at in range(0, len(source) - LENGTH, LENGTH)]
    return [{"input_ids": piece, "labels": piece} for piece in pieces]  # the loss shifts them


def train(folder, checkpoint=None, fused=False):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model, criterion = LlamaForCausalLM(config), MaxSupCrossEntropyLoss()
    schedule = LinearAlpha(criterion, start=0.05, end=0.1, total_steps=EPOCHS)
    args = TrainingArguments(
        folder, num_train_epochs=EPOCHS, per_device_train_batch_size=8, learning_rate=1e-2, logging_strategy="epoch",
        save_strategy="epoch", report_to=[], disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(
        model, args, train_dataset=texts(),
        compute_loss_func=TrainerLoss(criterion, model), callbacks=[AlphaCallback(schedule)],
    )  # fmt: skip
    with fused_head(model) if fused else contextlib.nullcontext():
        trainer.train(resume_from_checkpoint=checkpoint)
    done = int(checkpoint.rpartition("-")[2]) if checkpoint else 0
    for row in trainer.state.log_history:
        if "loss" in row and row["step"] > done:
            print(f"epoch {row['epoch']:.0f}: alpha {row['alpha']:.4f}, loss {row['loss']:.4f}")
    return trainer.state.global_step // EPOCHS


with tempfile.TemporaryDirectory() as folder:
    updates = train(folder)
    print("without logits")
    train(folder, fused=True)
    print("resumed after epoch 1")
    train(folder, f"{folder}/checkpoint-{updates}")
