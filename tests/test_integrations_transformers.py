"""Losses under Hugging Face's Trainer: against the models' own losses, whole batches and unbroken runs."""

import contextlib

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import maxsup
from maxsup.functional import max_sup_cross_entropy
from maxsup.schedules import LinearAlpha

transformers = pytest.importorskip("transformers", reason="Transformers is in the extra maxsup[integrations]")

from maxsup.integrations.transformers import AlphaCallback, TrainerLoss, fused_head  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # models of this size only lose by more
    yield
    torch.set_num_threads(threads)


VOCABULARY, LENGTH = 40, 12
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}


def language_model(tied=False):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        **SMALL, num_hidden_layers=1, tie_word_embeddings=tied, bos_token_id=None, eos_token_id=None
    )
    return transformers.LlamaForCausalLM(config)


def bert(kind, **options):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        **SMALL, num_hidden_layers=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **options
    )
    return kind(config)


def t5():
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, dropout_rate=0.0,
        decoder_start_token_id=0,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


def texts(count=32, seed=0):
    """Token sequences of one length of which the first 0 to 8 labels do not count."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for ids in torch.randint(VOCABULARY, (count, LENGTH), generator=generator):
        labels = ids.clone()
        labels[: int(torch.randint(9, (), generator=generator))] = -100
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def batch(count=4):
    rows = texts(count)
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def trainer(folder, model, loss, data, *, callbacks=(), **options):
    settings = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        **options,
    }
    args = transformers.TrainingArguments(str(folder), **settings)
    return transformers.Trainer(model, args, train_dataset=data, compute_loss_func=loss, callbacks=list(callbacks))


def history(runner, *names):
    return [tuple(row[name] for name in names) for row in runner.state.log_history if "loss" in row]


@pytest.mark.parametrize(
    ("build", "shift"),
    [
        (language_model, True),
        (lambda: bert(transformers.BertForMaskedLM), False),
        (lambda: bert(transformers.BertForTokenClassification, num_labels=VOCABULARY), False),
        (t5, False),
    ],
    ids=["causal", "masked", "tokens", "encoder-decoder"],
)
def test_at_alpha_0_it_is_the_models_own_loss(build, shift):
    model, inputs = build().eval(), batch()
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"].flip(1)
    loss = TrainerLoss(maxsup.MaxSupCrossEntropyLoss(0.0), model)
    assert loss.shift is shift
    own = model(**inputs).loss
    labels = inputs.pop("labels")
    outputs = model(**inputs)
    assert_close(loss(outputs, labels), own)
    counted = (labels[:, 1:] if shift else labels).ne(-100).sum()
    assert_close(loss(outputs, labels, num_items_in_batch=counted), own)
    assert_close(loss(tuple(outputs.values()), labels, num_items_in_batch=2 * counted), own / 2)


def test_a_language_models_loss_is_that_of_each_next_token():
    model, inputs = language_model(), batch()
    labels = inputs.pop("labels")
    outputs = model(**inputs)
    total = sum(
        max_sup_cross_entropy(outputs.logits[row, at], labels[row, at + 1], 0.3)
        for row in range(len(labels))
        for at in range(LENGTH - 1)
        if labels[row, at + 1] != -100
    )
    loss = TrainerLoss(maxsup.MaxSupCrossEntropyLoss(0.3), model)
    assert_close(loss(outputs, labels, torch.tensor(7.0)), total / 7)


def test_classifiers_of_sequences_and_other_losses():
    model = bert(transformers.BertForSequenceClassification, num_labels=3)
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, -100, 1])
    for criterion in (
        maxsup.LabelSmoothingCrossEntropyLoss(0.2, weight=torch.tensor([1.0, 2.0, 0.5])),
        maxsup.LogitPenaltyLoss(),
        maxsup.ConfidencePenaltyLoss(),
        maxsup.ZipfLabelSmoothingLoss(ranking="logits"),
    ):
        expected = criterion(logits, labels, num_items=4)
        assert_close(TrainerLoss(criterion, model)({"logits": logits}, labels, 4), expected)


def test_short_logits_have_a_float32_loss():
    model, inputs = language_model().bfloat16(), batch()
    labels = inputs.pop("labels")
    outputs = model(**inputs)
    loss = TrainerLoss(maxsup.MaxSupCrossEntropyLoss(), model)(outputs, labels)
    assert loss.dtype == torch.float32
    exact = max_sup_cross_entropy(outputs.logits[:, :-1].flatten(0, 1).double(), labels[:, 1:].flatten())
    assert_close(loss.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("fused", [False, True], ids=["logits", "fused"])
def test_accumulation_of_8_parts_is_one_batch(tmp_path, fused):
    # The parts have different numbers of labels, so that a mean of their means would differ.
    results = []
    for parts in (1, 8):
        model, criterion = language_model(), maxsup.MaxSupCrossEntropyLoss(0.2)
        runner = trainer(
            tmp_path, model, TrainerLoss(criterion, model), texts(),
            per_device_train_batch_size=8 // parts, gradient_accumulation_steps=parts, max_steps=3, max_grad_norm=1e9,
            optim="sgd",
        )  # fmt: skip
        with fused_head(model) if fused else contextlib.nullcontext():
            runner.train()
        results.append((history(runner, "loss", "grad_norm"), model.state_dict()))
    (whole, weights), (parts, other) = results
    assert len(whole) == 3
    assert (weights["lm_head.weight"] - language_model().lm_head.weight).abs().max() > 1e-3  # it trained
    assert_close(torch.tensor(parts), torch.tensor(whole), rtol=1e-5, atol=0)
    assert_close(other, weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_a_run_resumed_in_the_middle_of_an_epoch_has_the_same_alphas_and_losses(tmp_path, interval):
    def make():
        model, criterion = bert(transformers.BertForMaskedLM), maxsup.MaxSupCrossEntropyLoss()
        steps = 3 if interval == "epoch" else 12
        callback = AlphaCallback(LinearAlpha(criterion, 0.1, 0.2, total_steps=steps), interval=interval)
        return trainer(
            tmp_path, model, TrainerLoss(criterion, model), texts(), callbacks=[callback], num_train_epochs=3,
            per_device_train_batch_size=4, gradient_accumulation_steps=2, save_strategy="steps", save_steps=6,
        )  # fmt: skip

    whole = make()
    whole.train()
    rows = history(whole, "step", "alpha", "loss")
    expected = [0.1 + 0.1 * (t // 4 / 2 if interval == "epoch" else t / 11) for t in range(12)]
    assert [alpha for _, alpha, _ in rows] == pytest.approx(expected)
    resumed = make()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert history(resumed, "step", "alpha", "loss") == rows


def unfused_and_fused(tmp_path, build, **options):
    """Losses and weights of two runs."""
    results = []
    for context in (contextlib.nullcontext, fused_head):
        model = build()
        runner = trainer(
            tmp_path, model, TrainerLoss(maxsup.MaxSupCrossEntropyLoss(0.2), model), texts(), max_steps=2, optim="sgd",
            **options,
        )  # fmt: skip
        with context(model) if context is fused_head else context():
            runner.train()
        results.append((torch.tensor(history(runner, "loss")), model.state_dict(), runner))
    return results


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", ["float32", "autocast", "bfloat16"])
def test_the_fused_head_trains_as_the_logits_do(tmp_path, kind, tied):
    def build():
        model = language_model(tied)
        return model.bfloat16() if kind == "bfloat16" else model

    (losses, weights, _), (fused, other, runner) = unfused_and_fused(tmp_path, build, bf16=kind == "autocast")
    exact = {"rtol": 1e-5, "atol": 1e-6} if kind == "float32" else {"rtol": 1e-2, "atol": 1e-3}
    assert_close(fused, losses, **exact)
    assert_close(other, weights, **exact)
    head = runner.model.get_output_embeddings()
    assert "forward" not in head.__dict__
    evaluated = runner.evaluate({"own": texts(4, seed=1)})
    assert evaluated["eval_own_loss"] == pytest.approx(float(losses[-1]), rel=0.2)


def test_evaluation_within_the_fused_head_has_logits():
    model, inputs = language_model(), batch()
    labels = inputs.pop("labels")
    loss = TrainerLoss(maxsup.MaxSupCrossEntropyLoss(), model)
    with fused_head(model):
        trained = model(**inputs)
        assert trained.logits.shape == (4, LENGTH, 16)
        value = loss(trained, labels)
        with torch.no_grad():
            evaluated = model.eval()(**inputs)
        assert evaluated.logits.shape == (4, LENGTH, VOCABULARY)
        assert_close(loss(evaluated, labels), value.detach())


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # which PEFT reads
def test_lora_of_peft(tmp_path):
    peft = pytest.importorskip("peft", reason="PEFT is in the extra maxsup[dev]")

    def build(targets=("q_proj",)):
        torch.manual_seed(1)
        return peft.get_peft_model(language_model(), peft.LoraConfig(target_modules=list(targets), r=2))

    (losses, weights, _), (fused, other, _) = unfused_and_fused(tmp_path, build)
    assert_close(fused, losses, rtol=1e-5, atol=0)
    assert_close(other, weights, rtol=1e-5, atol=1e-6)
    assert TrainerLoss(maxsup.MaxSupCrossEntropyLoss(), build()).shift is True
    with (
        pytest.raises(TypeError, match=r"last layer must be a plain nn\.Linear, got Linear"),
        fused_head(build(["lm_head"])),
    ):
        pass


def test_models_that_change_their_logits_are_refused_by_the_fused_head():
    config = transformers.Gemma2Config(
        **SMALL, num_hidden_layers=1, num_key_value_heads=1, head_dim=8, final_logit_softcapping=30.0,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    capped = transformers.Gemma2ForCausalLM(config)
    inputs = batch()
    labels = inputs.pop("labels")
    loss = TrainerLoss(maxsup.MaxSupCrossEntropyLoss(), capped)
    with fused_head(capped), pytest.raises(ValueError, match="changes its logits after the last layer"):
        loss(capped(**inputs), labels)
    model = language_model()
    other = TrainerLoss(maxsup.LogitPenaltyLoss(), model)
    with fused_head(model), pytest.raises(TypeError, match="needs a MaxSupCrossEntropyLoss, got LogitPenaltyLoss"):
        other(model(**inputs), labels)
    model.get_output_embeddings().register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="hooks or a forward of its own"), fused_head(model):
        pass


def test_tasks_that_are_no_classification_are_refused():
    criterion = maxsup.MaxSupCrossEntropyLoss()
    for options, got in (({"num_labels": 1}, "regression"), ({"problem_type": "multi_label_classification"}, "multi")):
        with pytest.raises(ValueError, match=f"model must classify with one class each, got {got}"):
            TrainerLoss(criterion, bert(transformers.BertForSequenceClassification, **options))
    bart = transformers.BartConfig(
        vocab_size=9, d_model=8, decoder_layers=1, decoder_attention_heads=1, decoder_ffn_dim=8, is_decoder=True,
        forced_eos_token_id=None,
    )  # fmt: skip
    for model in (
        bert(transformers.BertForQuestionAnswering),
        transformers.BartForCausalLM(bart),  # named as the others, but its labels are not shifted
        nn.Linear(2, 2),
    ):
        with pytest.raises(ValueError, match="pass shift=True where"):
            TrainerLoss(criterion, model)
    assert TrainerLoss(criterion, nn.Linear(2, 2), shift=False).shift is False
    gpt = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1, bos_token_id=None, eos_token_id=None)
    )
    assert TrainerLoss(criterion, gpt).shift is True


def test_criteria_and_arguments_that_do_not_fit_are_named(tmp_path):
    model = bert(transformers.BertForSequenceClassification, num_labels=3)
    for criterion, error, message in (
        (nn.CrossEntropyLoss(), TypeError, "criterion must be a loss of maxsup, got CrossEntropyLoss"),
        (maxsup.OnlineLabelSmoothingLoss(3), TypeError, "must not be OnlineLabelSmoothingLoss"),
        (maxsup.ZipfLabelSmoothingLoss(), ValueError, "ranking='logits'"),
        (maxsup.MaxSupCrossEntropyLoss(reduction="sum"), ValueError, "reduction='mean', got 'sum'"),
        (maxsup.MaxSupCrossEntropyLoss(ignore_index=0), ValueError, "ignore_index=-100.*got 0"),
    ):
        with pytest.raises(error, match=message):
            TrainerLoss(criterion, model)
    loss, logits = TrainerLoss(maxsup.MaxSupCrossEntropyLoss(), model), torch.zeros(2, 3)
    with pytest.raises(TypeError, match="labels must be a tensor of class indices, got NoneType"):
        loss({"logits": logits}, None)
    with pytest.raises(TypeError, match=r"labels must be .*, got torch\.float32"):
        loss({"logits": logits}, logits)
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\), got \(3,\)"):
        loss({"logits": logits}, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="output_router_logits=False"):
        loss({"logits": logits, "aux_loss": torch.ones(())}, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="launch with torchrun"):
        loss({"logits": logits}, torch.zeros(2, dtype=torch.int64), torch.ones(2, 1))
    with pytest.raises(TypeError, match=r"schedule must be one of maxsup\.schedules, got float"):
        AlphaCallback(0.1)
    schedule = LinearAlpha(loss.criterion, 0.1, 0.2, total_steps=2)
    with pytest.raises(ValueError, match="interval must be one of epoch, step, got 'batch'"):
        AlphaCallback(schedule, interval="batch")
    runner = trainer(tmp_path, model, loss, [], callbacks=[AlphaCallback(schedule)], label_smoothing_factor=0.1)
    runner.train_dataset = [{"input_ids": torch.zeros(3, dtype=torch.int64), "labels": 0}] * 8
    with pytest.raises(ValueError, match=r"Trainer ignores label_smoothing_factor=0\.1"):
        runner.train()
