"""Losses in real runs of transformers' Trainer, on tiny models with random weights, against the plain models."""

import copy
import json
import math
import os
import runpy
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).parents[1]))  # also as a rank

import lossfit
from helpers import join, run_ranks

tf = pytest.importorskip("transformers")
from lossfit.integrations.transformers import LossfitCallback, compute_loss_func, fuse, unfuse  # noqa: E402
from lossfit.integrations.transformers.checks import shift_of  # noqa: E402
from lossfit.integrations.transformers.scores import Call, Scores  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*(pin_memory|tie_word_embeddings|scheduler)"
)

WORDS, LABELS, LENGTH, ROWS = 61, 5, 12, 12
TOKENS = {"vocab_size": WORDS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BODY = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
DECODER = {**TOKENS, **BODY, "num_key_value_heads": 1, "max_position_embeddings": 32}
ENCODER = {**BODY, "vocab_size": WORDS, "max_position_embeddings": 32}
GPT2 = {**TOKENS, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
VIT = {**BODY, "image_size": 8, "patch_size": 4, "num_labels": LABELS}
T5 = {**TOKENS, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
BART = {
    **{f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in (("layers", 1), ("attention_heads", 2))},
    "vocab_size": WORDS,
    "d_model": 16,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
}

# The configuration, what is set, the class of the model.
FAMILIES = {
    "llama": ("LlamaConfig", DECODER, "LlamaForCausalLM"),
    "qwen2": ("Qwen2Config", {**DECODER, "tie_word_embeddings": True}, "Qwen2ForCausalLM"),
    "qwen3": ("Qwen3Config", {**DECODER, "head_dim": 8}, "Qwen3ForCausalLM"),
    "gemma2": ("Gemma2Config", {**DECODER, "head_dim": 8, "final_logit_softcapping": 0.5}, "Gemma2ForCausalLM"),
    "gemma3": ("Gemma3TextConfig", {**DECODER, "head_dim": 8, "final_logit_softcapping": 0.5}, "Gemma3ForCausalLM"),
    "mistral": ("MistralConfig", DECODER, "MistralForCausalLM"),
    "granite": ("GraniteConfig", {**DECODER, "logits_scaling": 0.25}, "GraniteForCausalLM"),
    "gpt2": ("GPT2Config", GPT2, "GPT2LMHeadModel"),
    "bert": ("BertConfig", ENCODER, "BertForMaskedLM"),
    "bert classes": ("BertConfig", {**ENCODER, "num_labels": LABELS}, "BertForSequenceClassification"),
    "bert tokens": ("BertConfig", {**ENCODER, "num_labels": LABELS}, "BertForTokenClassification"),
    "roberta classes": ("RobertaConfig", {**ENCODER, "num_labels": LABELS}, "RobertaForSequenceClassification"),
    "llama classes": ("LlamaConfig", {**DECODER, "num_labels": LABELS}, "LlamaForSequenceClassification"),
    "vit": ("ViTConfig", VIT, "ViTForImageClassification"),
    "t5": ("T5Config", T5, "T5ForConditionalGeneration"),
    "bart": ("BartConfig", BART, "BartForConditionalGeneration"),
}
OF_BERT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
NO_DROPOUT = {"llama": {}, "bert classes": OF_BERT, "bert tokens": OF_BERT, "t5": {"dropout_rate": 0.0}}
FUSED, FUNCTION = "fuse", "compute_loss_func"


OTHERS = ("granite", "roberta classes", "llama classes", "bart")


def build(family: str, **changes: object) -> nn.Module:
    config, settings, model = FAMILIES[family]
    torch.manual_seed(0)
    return getattr(tf, model)(getattr(tf, config)(**{**settings, **changes}))


def rows(family: str, count: int = ROWS, seed: int = 0) -> list[dict[str, Tensor]]:
    """Rows with so many labels that differ from row to row; some positions are padding."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for row in range(count):
        ids = torch.randint(3, WORDS, (LENGTH,), generator=draw)
        ends = LENGTH - row % 5
        mask = torch.arange(LENGTH) < ends
        ids[ends:] = 0
        one = {"input_ids": ids, "attention_mask": mask.long()}
        if family == "vit":
            one = {"pixel_values": torch.randn(3, 8, 8, generator=draw)}
        if family.endswith("classes") or family == "vit":
            one["labels"] = torch.tensor(row % LABELS)
        else:
            labels = ids % LABELS if family == "bert tokens" else ids.clone()
            one["labels"] = labels.masked_fill(~mask | (torch.arange(LENGTH) < row % 3), -100)
        if family == "t5":  # as DataCollatorForSeq2Seq makes them
            one["decoder_input_ids"] = functional.pad(one["labels"][:-1].clamp(min=0), (1, 0))
        found.append(one)
    return found


def batch(family: str, count: int = 4, seed: int = 0) -> dict[str, Tensor]:
    return tf.default_data_collator(rows(family, count, seed))


class Losses(tf.TrainerCallback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_log(self, args: object, state: object, control: object, logs: dict[str, float], **_: object) -> None:
        self.seen += [logs["loss"]] if "loss" in logs else []


def arguments(folder: Path | str, **settings: object) -> object:
    quiet = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "use_cpu": True, "bf16": False}
    steps = {"per_device_train_batch_size": 4, "max_steps": 3, "logging_steps": 1, "learning_rate": 1e-2}
    return tf.TrainingArguments(output_dir=str(folder), **{**quiet, **steps, **settings})


def train(
    family: str,
    way: str | None,
    loss: nn.Module | None,
    folder: Path | str,
    model: nn.Module | None = None,
    **settings: object,
) -> tuple[list[float], nn.Module, Any]:
    """A run of Trainer: the loss of every step, the model, the trainer."""
    model = build(family) if model is None else model
    if way == FUSED:
        fuse(model, loss)
    args = arguments(folder, **settings)
    function = compute_loss_func(loss, model, args) if way == FUNCTION else None
    seen = Losses()
    data = rows(family)
    trainer = tf.Trainer(
        model, args, train_dataset=data, eval_dataset=data[:4], compute_loss_func=function, callbacks=[seen]
    )
    trainer.remove_callback(tf.PrinterCallback)
    trainer.train()
    return seen.seen, model, trainer


def difference(first: nn.Module, second: nn.Module, of: Callable[[Tensor], Tensor | None] = lambda p: p) -> float:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    found = [(of(a), of(b)) for a, b in pairs]
    assert all((a is None) == (b is None) for a, b in found)
    return max((a - b).abs().max().item() for a, b in found if a is not None)


def grad(parameter: Tensor) -> Tensor | None:
    return parameter.grad


def both(plain: nn.Module, fused: nn.Module, inputs: dict[str, Any]) -> tuple[Any, Any]:
    """A forward and backward pass of both, with the same random numbers."""
    found = []
    for model in (plain, fused):
        torch.manual_seed(1)
        outputs = model.train()(**inputs)
        outputs.loss.backward()
        found.append(outputs)
    return found[0], found[1]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in OTHERS])
def test_training_is_that_of_the_plain_model(family: str, tmp_path: Path) -> None:
    plain, trained, _ = train(family, None, None, tmp_path)
    fused, same, _ = train(family, FUSED, lossfit.CrossEntropyLoss(), tmp_path)
    assert len(plain) == 3
    assert plain[2] != plain[0]
    assert fused == pytest.approx(plain, rel=1e-5)
    assert same.state_dict().keys() == trained.state_dict().keys()
    same.load_state_dict(trained.state_dict())
    inputs = batch(family)
    with torch.no_grad():
        expected, got = trained.eval()(**inputs), same.eval()(**inputs)
    assert torch.equal(got.loss, expected.loss)
    assert torch.equal(got.logits, expected.logits)


@pytest.mark.parametrize("family", OTHERS)
def test_a_step_is_that_of_the_plain_model(family: str) -> None:
    plain, fused = build(family), fuse(build(family), lossfit.CrossEntropyLoss())
    expected, got = both(plain, fused, batch(family))
    assert isinstance(got.logits, Scores)
    assert got.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    assert difference(plain, fused, grad) < 1e-5


GAMMA = lossfit.GammaCrossEntropyLoss(0.3, label_smoothing=0.1)


@pytest.mark.parametrize("family", ["gemma2", "bert tokens", "t5"])
def test_both_ways_train_alike(family: str, tmp_path: Path) -> None:
    on_scores, _, _ = train(family, FUNCTION, GAMMA, tmp_path)
    fused, _, _ = train(family, FUSED, GAMMA, tmp_path)
    assert fused == pytest.approx(on_scores, rel=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "bert", "bert classes", "bert tokens", "vit", "t5"])
def test_the_loss_is_that_by_hand(family: str) -> None:
    model, inputs = build(family, **NO_DROPOUT.get(family, {})).train(), batch(family)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    labels = inputs["labels"]
    outputs = model(**inputs)
    by_function = compute_loss_func(GAMMA, model)(outputs, labels).item()
    by_model = fuse(model, GAMMA)(**inputs).loss.item()
    logits = outputs.logits
    if family in ("llama", "gemma2", "gpt2"):
        logits, labels = logits[:, :-1], labels[:, 1:]
    p = logits[labels != -100].softmax(-1)
    each = -torch.log(0.3 + 0.7 * p) / 0.7
    own = each.gather(1, labels[labels != -100].unsqueeze(1)).squeeze(1)
    by_hand = (0.9 * own + 0.1 * each.mean(1)).mean().item()
    assert by_function == pytest.approx(by_hand, rel=1e-5)
    assert by_model == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("way", [FUSED, FUNCTION])
@pytest.mark.parametrize("family", ["llama", "bert classes", "t5"])
def test_accumulated_batches_train_like_one(family: str, way: str, tmp_path: Path) -> None:
    loss = lossfit.FocalLoss(1.0, weight=torch.linspace(0.5, 2.0, LABELS if family == "bert classes" else WORDS))
    runs = [
        train(family, way, loss, tmp_path, build(family, **NO_DROPOUT[family]), **sizes)
        for sizes in (
            {"per_device_train_batch_size": 4},
            {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        )
    ]
    (whole, model, _), (parts, accumulated, _) = runs
    assert parts == pytest.approx(whole, rel=1e-5)
    assert difference(model, accumulated) < 1e-5


def test_any_number_of_right_classes(tmp_path: Path) -> None:
    settings = {**NO_DROPOUT["bert classes"], "problem_type": "multi_label_classification"}
    draw = torch.Generator().manual_seed(0)
    data = [{**row, "labels": torch.randint(2, (LABELS,), generator=draw).float()} for row in rows("bert classes")]

    def run(loss: nn.Module | None, **sizes: object) -> list[float]:
        model, args, seen = build("bert classes", **settings), arguments(tmp_path, **sizes), Losses()
        function = None if loss is None else compute_loss_func(loss, model, args)
        trainer = tf.Trainer(model, args, train_dataset=data, compute_loss_func=function, callbacks=[seen])
        trainer.remove_callback(tf.PrinterCallback)
        trainer.train()
        return seen.seen

    assert run(lossfit.BCELoss()) == pytest.approx(run(None), rel=1e-5)
    whole = run(lossfit.ZLPRLoss())
    parts = run(lossfit.ZLPRLoss(), per_device_train_batch_size=2, gradient_accumulation_steps=2)
    assert parts == pytest.approx(whole, rel=1e-5)


def test_trainers_count_of_gpt2_is_used_as_it_is() -> None:
    # Trainer counts the labels at the first positions for GPT2LMHeadModel, which have no prediction.
    model, inputs = build("gpt2").eval(), batch("gpt2")
    logits, shifted = model(**inputs).logits, inputs["labels"][:, 1:]
    total = functional.cross_entropy(logits[:, :-1].flatten(0, 1), shifted.flatten(), reduction="sum")
    function = compute_loss_func(lossfit.CrossEntropyLoss(), model)
    assert function({"logits": logits}, inputs["labels"], torch.tensor(50)).item() == pytest.approx(total.item() / 50)
    assert function((logits,), inputs["labels"], 50).item() == pytest.approx(total.item() / 50)
    mean = total.item() / (shifted != -100).sum().item()
    assert function({"logits": logits}, inputs["labels"]).item() == pytest.approx(mean)


def test_token_loss_is_the_loss_of_its_tokens() -> None:
    model, inputs = build("llama").eval(), batch("llama")
    outputs = model(**inputs)
    inner = lossfit.FocalLoss(2.0, weight=torch.linspace(0.5, 2.0, WORDS))
    functions = [compute_loss_func(each, model) for each in (inner, lossfit.TokenLoss(inner))]
    for items in (None, 7):
        first, second = (f(outputs, inputs["labels"], items).item() for f in functions)
        assert second == pytest.approx(first, rel=1e-6)
    plain, fused = build("llama"), fuse(build("llama"), lossfit.TokenLoss(lossfit.CrossEntropyLoss()))
    expected, got = both(plain, fused, inputs)
    assert got.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("family", "shift"),
    [("llama", 1), ("gpt2", 1), ("gemma3", 1), ("bert", 0), ("bert tokens", 0), ("vit", 0), ("t5", 0), ("bart", 0)],
)
def test_the_shift_is_that_of_the_model(family: str, shift: int) -> None:
    assert shift_of(build(family)) == shift


class Sizes(TorchDispatchMode):
    """The memory of the largest tensor, in rows of so many float32 numbers."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes, self.rows = classes, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else [found]:
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.rows = max(self.rows, tensor.untyped_storage().nbytes() // 4 // self.classes)
        return found


def test_training_makes_no_matrix_of_scores() -> None:
    classes, tokens = 32_000, 1536
    model = fuse(build("llama", vocab_size=classes, num_hidden_layers=1), lossfit.CrossEntropyLoss())
    ids = torch.randint(classes, (tokens // 24, 24))
    with Sizes(classes) as sizes:
        model.train()(input_ids=ids, labels=ids).loss.backward()
    assert sizes.rows <= tokens // 2
    with Sizes(classes) as sizes:
        unfuse(model)(input_ids=ids, labels=ids)
    assert sizes.rows >= tokens


def test_the_stand_in_for_scores_is_them_afterwards() -> None:
    for family in ("gemma2", "granite", "bart"):
        plain, fused = build(family), fuse(build(family), lossfit.CrossEntropyLoss())
        expected, got = both(plain, fused, batch(family))
        z, stand_in = expected.logits.detach(), got.logits
        assert isinstance(stand_in, Scores)
        assert stand_in.shape == z.shape
        torch.testing.assert_close(stand_in.softmax(-1), z.softmax(-1))
        torch.testing.assert_close(torch.logsumexp(stand_in, -1), z.logsumexp(-1))
        assert torch.equal(stand_in.argmax(-1), z.argmax(-1))
        assert torch.equal(torch.argmax(stand_in[..., :-1, :], -1, keepdim=True), z[..., :-1, :].argmax(-1, True))


def test_places_in_the_stand_in() -> None:
    x, weight, bias = torch.randn(3, 4, 2), torch.randn(5, 2), torch.randn(5)
    call = Call(lossfit.CrossEntropyLoss(), "Model", None, 0.0, ())
    call.live = False
    scores, z = Scores(call, x, weight, bias), functional.linear(x, weight, bias)
    mask = torch.tensor([[True, False, True, True]] * 3)
    places: list[Any] = [0, -1, slice(1, 3), (0, 1), (slice(None), -1), (..., slice(1, None), slice(None)), mask]
    places += [(..., 2), (0, 1, 2), (slice(None), slice(None), slice(1, 3)), (None, 0), (torch.arange(3), 1), ...]
    for place in places:
        found = scores[place]
        found = found.tensor("") if isinstance(found, Scores) else found
        torch.testing.assert_close(found, z[place])
    for shape in [(-1, 5), (12, -1), (3, 2, 2, 5), (4, 15), (60,), (-1,)]:
        found = scores.view(*shape)
        assert isinstance(found, Scores) == (shape[-1] in (-1, 5) and len(shape) > 1)
        torch.testing.assert_close(found.tensor("") if isinstance(found, Scores) else found, z.view(*shape))
    parts = scores.split(2, dim=0)
    torch.testing.assert_close(torch.cat([p.tensor("") for p in parts]), z)
    torch.testing.assert_close(scores.split(2, -1)[1], z.split(2, -1)[1])
    torch.testing.assert_close((scores / 3 * 2).tanh().tensor(""), torch.tanh(z / 3 * 2))
    torch.testing.assert_close((2 * torch.tanh(scores) / 4).tensor(""), z.tanh() / 2)
    assert (scores.size(-1), len(scores), scores.dim(), scores.device.type) == (5, 3, 3, "cpu")
    assert scores.to(torch.float64).tensor("").dtype == torch.float64
    torch.testing.assert_close(1 - scores * z, 1 - z * z)
    torch.testing.assert_close(scores + torch.ones(3, 4, 1) - z, torch.ones_like(z))


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_saved_models_and_tied_weights_are_those_of_the_plain_one(family: str, tmp_path: Path) -> None:
    _, model, _ = train(family, FUSED, lossfit.FocalLoss(), tmp_path)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path / "saved")
    unfused = copy.deepcopy(model)
    unfuse(unfused).save_pretrained(tmp_path / "plain")
    files = [{f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("saved", "plain")]
    assert files[0] == files[1]
    loaded = type(model).from_pretrained(tmp_path / "saved")
    inputs = batch(family)
    assert torch.equal(loaded.eval()(**inputs).logits, model.eval()(**inputs).logits)
    assert torch.equal(
        loaded.generate(inputs["input_ids"][:1], max_new_tokens=4, do_sample=False),
        model.generate(inputs["input_ids"][:1], max_new_tokens=4, do_sample=False),
    )


def test_unfused_copied_and_fused_again() -> None:
    inputs = batch("llama")
    plain, model = build("llama"), fuse(build("llama"), lossfit.FocalLoss(2.0))
    twin = copy.deepcopy(model)
    focal = model.train()(**inputs).loss.item()
    expected = plain.train()(**inputs)
    assert focal < expected.loss.item()
    assert twin.train()(**inputs).loss.item() == focal
    assert fuse(twin, lossfit.CrossEntropyLoss())(**inputs).loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    again = unfuse(model)(**inputs)
    assert torch.equal(again.loss, expected.loss)
    assert torch.equal(again.logits, expected.logits)
    assert model.__dict__.keys() == plain.__dict__.keys()
    assert not model.model._forward_pre_hooks
    with pytest.raises(ValueError, match="`model` to be fused, but this LlamaForCausalLM is not"):
        unfuse(model)


@pytest.fixture
def half_precision() -> Iterator[Any]:
    """An accelerator of its own, since they share their state."""
    accelerate = pytest.importorskip("accelerate")
    accelerate.state.AcceleratorState._reset_state()
    yield accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    accelerate.state.AcceleratorState._reset_state()


def test_in_a_loop_with_accelerate(half_precision: Any) -> None:
    inputs = batch("llama")
    plain, model = build("llama").train(), fuse(build("llama").train(), lossfit.CrossEntropyLoss())
    prepared, optimizer = half_precision.prepare(model, torch.optim.SGD(model.parameters(), 0.1))
    outputs = prepared(**inputs)
    assert isinstance(outputs.logits, Scores)
    assert outputs.loss.item() == pytest.approx(plain(**inputs).loss.item(), rel=1e-2)
    half_precision.backward(outputs.loss)
    optimizer.step()
    assert isinstance(unfuse(model)(**inputs).logits, Tensor)  # accelerate's wrapper stays
    assert isinstance(fuse(model, lossfit.CrossEntropyLoss())(**inputs).logits, Scores)


def test_with_gradient_checkpointing_it_is_the_same() -> None:
    inputs = batch("llama")
    plain, fused = build("llama"), fuse(build("llama"), lossfit.CrossEntropyLoss())
    fused.gradient_checkpointing_enable({"use_reentrant": False})
    expected, got = both(plain, fused, inputs)
    assert got.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    assert difference(plain, fused, grad) < 1e-6


def lora(model: nn.Module, **settings: object) -> nn.Module:
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, **{"target_modules": ["q_proj", "down_proj"], **settings})
    model = peft.get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("saved", [[], ["lm_head"]])
@pytest.mark.parametrize("first", ["fuse", "lora"])
def test_with_lora_it_is_the_same(first: str, saved: list[str]) -> None:
    inputs = batch("llama")
    settings = {"modules_to_save": saved} if saved else {}
    plain = lora(build("llama"), **settings)
    loss = lossfit.CrossEntropyLoss()
    if first == "fuse":
        fused = lora(fuse(build("llama"), loss), **settings)
    else:
        fused = fuse(lora(build("llama"), **settings), loss)
    expected, got = both(plain, fused, inputs)
    assert isinstance(got.logits, Scores)
    assert got.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    assert difference(plain, fused, grad) < 1e-6
    trained = {name for name, p in fused.named_parameters() if p.grad is not None}
    assert any("lora_A" in name for name in trained)
    assert any("lm_head" in name for name in trained) == bool(saved)
    torch.testing.assert_close(unfuse(fused)(**inputs).loss, expected.loss)


def test_an_adapter_on_the_head_is_refused() -> None:
    inputs, loss = batch("llama"), lossfit.CrossEntropyLoss()
    adapted = lora(build("llama"), target_modules=["q_proj", "lm_head"])
    with pytest.raises(ValueError, match="without an adapter on its head, but LlamaForCausalLM has"):
        fuse(adapted, loss)
    assert compute_loss_func(loss, adapted)(adapted(**inputs), inputs["labels"]).item() > 0
    later = lora(fuse(build("llama"), loss), target_modules=["lm_head"])
    with pytest.raises(ValueError, match=r"straight to cross-entropy, but LlamaForCausalLM adds to them.*compute_loss"):
        later.train()(**inputs)


@pytest.mark.filterwarnings("ignore:All labels of a batch")
@pytest.mark.parametrize("family", ["llama", "bert classes", "t5"])
def test_where_no_label_counts_the_loss_and_its_gradients_are_0(family: str) -> None:
    inputs = batch(family)
    inputs["labels"] = torch.full_like(inputs["labels"], -100)
    for items in ({}, {"num_items_in_batch": torch.tensor(0)}, {"num_items_in_batch": 0}):
        model = fuse(build(family), lossfit.CrossEntropyLoss()).train()
        loss = model(**inputs, **items).loss
        loss.backward()
        assert loss.item() == 0
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())
        plain = build(family)
        labels = inputs["labels"]
        logits = plain(**{**inputs, "labels": labels.clamp(min=0)}).logits
        on_scores = compute_loss_func(lossfit.CrossEntropyLoss(), plain)({"logits": logits}, labels, *items.values())
        on_scores.backward()
        assert on_scores.item() == 0
        assert not any(p.grad.any() for p in plain.parameters() if p.grad is not None)


def test_labels_that_are_all_left_out_are_warned_of_once() -> None:
    inputs = batch("llama")
    none = {**inputs, "labels": torch.full_like(inputs["labels"], -100)}
    model = fuse(build("llama"), lossfit.CrossEntropyLoss()).train()
    compute = compute_loss_func(lossfit.CrossEntropyLoss(), build("llama"))
    logits = torch.zeros(*inputs["labels"].shape, WORDS)
    for call in (lambda given: model(**given), lambda given: compute({"logits": logits}, given["labels"])):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call(inputs)
        assert not [w for w in caught if "All labels" in str(w.message)]
        with pytest.warns(UserWarning, match="All labels of a batch are -100, so that nothing is learnt from it"):
            call(none)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call(none)
        assert not [w for w in caught if "All labels" in str(w.message)]


@pytest.mark.parametrize("accumulated", [1, 2])
def test_schedules_are_at_the_optimisers_step_also_after_resuming(tmp_path: Path, accumulated: int) -> None:
    def run(steps: int, **resume: object) -> list[float]:
        loss = lossfit.FocalLoss(lossfit.schedules.Linear(0.0, 1.0, steps=10))
        seen: list[float] = []
        loss.register_forward_pre_hook(lambda module, _: seen.append(module.gamma))
        model = build("bert classes")
        settings = {"save_strategy": "steps", "save_steps": 2, "gradient_accumulation_steps": accumulated}
        args = arguments(tmp_path, max_steps=steps, **settings)
        trainer = tf.Trainer(
            model,
            args,
            train_dataset=rows("bert classes", count=16),
            compute_loss_func=compute_loss_func(loss, model, args),
            callbacks=[LossfitCallback(loss)],
        )
        trainer.train(**resume)
        return seen

    assert run(2) == pytest.approx([0.1 * step for step in range(2) for _ in range(accumulated)])
    resumed = run(4, resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert resumed == pytest.approx([0.1 * step for step in (2, 3) for _ in range(accumulated)])


def test_the_callback_steps_what_the_model_holds_and_refuses_others() -> None:
    model = nn.ModuleDict({"margin": lossfit.AdditiveMargin(lossfit.schedules.Linear(0.0, 1.0, steps=10))})
    state = tf.TrainerState(global_step=7)
    LossfitCallback().on_step_end(None, state, None, model=model)
    assert model["margin"].m == pytest.approx(0.7)
    with pytest.raises(TypeError, match="Expected `modules` to be losses or margins, but got float"):
        LossfitCallback(0.5)


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "bert"])
def test_half_precision_is_close(family: str) -> None:
    inputs = batch(family)
    loss = lossfit.GammaCrossEntropyLoss(0.1)
    true = fuse(build(family).eval(), loss)
    torch.manual_seed(1)
    expected = true.train()(**inputs).loss.item()
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        got = true(**inputs)
    got.loss.backward()
    assert got.logits.dtype in (torch.bfloat16, torch.float32)
    assert got.logits.softmax(-1).isfinite().all()
    half = fuse(build(family).to(torch.bfloat16), loss).train()
    torch.manual_seed(1)
    of_half = half(**inputs).loss
    of_half.backward()
    for found in (got.loss, of_half):
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(expected, rel=1e-2)
        assert found.item() != expected
    for model in (true, half):
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_packed_sequences_and_positions_kept() -> None:
    plain, fused = build("llama"), fuse(build("llama"), lossfit.CrossEntropyLoss())
    ids = torch.randint(3, WORDS, (1, 12))
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 2]])
    packed = {"input_ids": ids, "position_ids": positions, "labels": ids.masked_fill(positions == 0, -100)}
    shifted = functional.pad(packed["labels"], (0, 1), value=-100)[:, 1:]
    kept = {"input_ids": ids, "labels": ids[:, -5:], "logits_to_keep": 5}
    cases = [packed, {**packed, "shift_labels": shifted}, kept, {**packed, "num_items_in_batch": torch.tensor(40)}]
    for case in cases:
        expected, got = both(plain, fused, case)
        assert got.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
        assert got.logits.shape == expected.logits.shape
    assert difference(plain, fused, grad) < 1e-5
    as_tuple = fused(**packed, return_dict=False)
    assert as_tuple[0].item() == pytest.approx(plain(**packed).loss.item(), rel=1e-6)


def test_z_loss_is_added() -> None:
    inputs = batch("gemma2")
    model = build("gemma2").train()
    logits = model(**inputs).logits[:, :-1].flatten(0, 1)
    labels = inputs["labels"][:, 1:].flatten()
    penalty = 0.3 * logits.logsumexp(-1)[labels != -100].square().mean()
    expected = functional.cross_entropy(logits, labels) + penalty
    got = fuse(model, lossfit.CrossEntropyLoss(), z_loss=0.3)(**inputs).loss
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_loss_moves_to_the_scores() -> None:
    loss = lossfit.CrossEntropyLoss(weight=torch.ones(3, device="meta"))
    function = compute_loss_func(loss, shift=0)
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):  # it tried
        function({"logits": torch.zeros(2, 3)}, torch.tensor([0, 1]))


def test_evaluation_by_trainer(tmp_path: Path) -> None:
    loss = lossfit.ExpectedAccuracyLoss()
    _, trained, _ = train("llama", None, None, tmp_path)
    found = {}
    for way in (None, FUSED, FUNCTION):
        model = copy.deepcopy(trained)
        _, _, trainer = train("llama", way, loss, tmp_path, model, max_steps=1, learning_rate=0.0, weight_decay=0.0)
        trainer.args.prediction_loss_only = way is not None
        found[way] = trainer.evaluate()["eval_loss"]
    assert found[FUSED] == found[None]
    inputs = tf.default_data_collator(rows("llama")[:4])
    p = trained.eval()(**inputs).logits[:, :-1].softmax(-1).gather(-1, inputs["labels"][:, 1:, None].clamp(min=0))
    expected = 1 - p.squeeze(-1)[inputs["labels"][:, 1:] != -100].mean()
    assert found[FUNCTION] == pytest.approx(expected.item(), rel=1e-5)


class WithoutHead(tf.BertPreTrainedModel):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = tf.BertModel(config)
        self.post_init()

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.bert(input_ids).last_hidden_state


class Deep(WithoutHead):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.classifier = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, LABELS))


class Odd(WithoutHead):
    """Does to its scores what no model does."""

    def __init__(self, config: Any, doing: str) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(16, LABELS)
        self.doing = doing

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
        z = self.classifier(self.bert(input_ids).last_hidden_state)
        flat, right = z.view(-1, LABELS), labels.flatten() % LABELS
        if self.doing == "temper":
            return functional.cross_entropy(flat.relu(), right)
        if self.doing == "smooth":
            return functional.cross_entropy(flat, right, label_smoothing=0.1)
        if self.doing == "columns":
            return functional.cross_entropy(z.transpose(1, 2), right.view(labels.shape))
        if self.doing == "cap":
            return functional.cross_entropy(torch.tanh(flat / 3.0) * 2.0, right)
        if self.doing == "twice":
            return functional.cross_entropy(flat, right) + functional.cross_entropy(flat, right)
        if self.doing == "halve":
            return functional.cross_entropy(flat[:, :3], right % 3)
        return input_ids.sum()


@pytest.mark.parametrize(
    ("doing", "told"),
    [
        ("temper", "does `relu` to them"),
        ("smooth", "weights, smoothing or a reduction"),
        ("columns", "does `transpose` to them"),
        ("cap", "other numbers than c tanh"),
        ("twice", "more than one cross-entropy"),
        ("halve", "takes some classes"),
        ("nothing", "takes no cross-entropy"),
    ],
)
def test_a_model_that_does_something_else_to_its_scores_is_refused(doing: str, told: str) -> None:
    model = fuse(Odd(tf.BertConfig(**ENCODER), doing), lossfit.CrossEntropyLoss()).train()
    inputs = batch("bert tokens")
    with pytest.raises(ValueError, match=f"straight to cross-entropy, but Odd .*{told}.*`compute_loss_func"):
        model(inputs["input_ids"], inputs["labels"].clamp(min=0))


LOSS = lossfit.CrossEntropyLoss()


def wrong() -> Iterator[tuple[Callable[[], object], type[Exception], str]]:
    yield lambda: fuse(WithoutHead(tf.BertConfig(**ENCODER)), LOSS), ValueError, "output head, but WithoutHead has none"
    yield lambda: fuse(Deep(tf.BertConfig(**ENCODER)), LOSS), TypeError, "one nn.Linear, but Deep has a Sequential"
    yield lambda: fuse(build("llama"), LOSS, head="top"), ValueError, "`head` to name a module of Llama.*'top'"
    yield lambda: fuse(build("llama"), LOSS, head="model"), TypeError, "one nn.Linear, but LlamaForCausalLM has a Llama"
    yield lambda: fuse(nn.Linear(2, 2), LOSS), TypeError, "`model` to be a model of transformers, but got Linear"
    yield lambda: fuse(build("llama"), LOSS, z_loss=-1.0), ValueError, "`z_loss` of at least 0"
    yield lambda: fuse(build("llama"), nn.CrossEntropyLoss()), TypeError, "SingleLabelLoss or a TokenLoss.*CrossEntropy"
    of_pairs = lossfit.ZLPRLoss()
    yield lambda: fuse(build("llama"), of_pairs), TypeError, "SingleLabelLoss or a TokenLoss, but got ZLPRLoss"
    for reduction in ("sum", "none"):
        loss = lossfit.CrossEntropyLoss(reduction=reduction)
        yield lambda loss=loss: fuse(build("llama"), loss), ValueError, f"reduction='mean', but got '{reduction}'"
    by_sequence = lossfit.TokenLoss(normalise="sequence")
    yield lambda: compute_loss_func(by_sequence, shift=1), ValueError, "normalise='token'"
    other = lossfit.CrossEntropyLoss(ignore_index=0)
    yield lambda: compute_loss_func(other, shift=1), ValueError, "ignore_index=-100, .* but got 0"
    short = lossfit.CrossEntropyLoss(weight=torch.ones(3))
    yield lambda: fuse(build("llama"), short), ValueError, r"`weight` to have one entry per class, \(61,\)"
    for problem in ("regression", "multi_label_classification"):
        several = {"num_labels": LABELS, "problem_type": problem}
        made = lambda several=several: build("bert classes", **several)  # noqa: E731
        yield lambda m=made: fuse(m(), LOSS), ValueError, f"one right class among several.*{problem}"
        yield lambda m=made: compute_loss_func(LOSS, m()), ValueError, f"one right class among several.*{problem}"
    one = {"num_labels": LABELS, "problem_type": "single_label_classification"}
    several = "any number of right classes.*single_label"
    yield lambda: compute_loss_func(of_pairs, build("bert classes", **one)), ValueError, several
    lists = lambda: compute_loss_func(of_pairs)({"logits": torch.zeros(2, 3)}, torch.ones(2, 3).long())  # noqa: E731
    yield lists, ValueError, r"floating point with the shape of the scores, \(2, 3\), but got torch.int64"
    yield lambda: compute_loss_func(of_pairs, shift=1), ValueError, "`shift` of 0.*1"
    of_batches = lossfit.for_metric("macro_f1")
    yield lambda: compute_loss_func(of_batches), TypeError, "a MultiLabelLoss, but got FBetaLoss"
    number = {"num_labels": 1}
    yield lambda: fuse(build("bert classes", **number), LOSS), ValueError, "one right class among several.*regression"
    yield lambda: compute_loss_func(LOSS), ValueError, "`shift` of 0 or 1, or a `model`.*None"
    yield lambda: compute_loss_func(LOSS, shift=2), ValueError, "`shift` of 0 or 1.*2"
    yield lambda: compute_loss_func(LOSS, WithoutHead(tf.BertConfig(**ENCODER))), ValueError, "`shift`.*WithoutHead"
    smooth = arguments("unused", label_smoothing_factor=0.1)
    yield lambda: compute_loss_func(LOSS, build("llama"), smooth), ValueError, "label_smoothing_factor` of 0.*0.1"
    function = compute_loss_func(LOSS, shift=1)
    z = torch.zeros(2, 3, 4)
    yield lambda: function({"logits": z}, None), ValueError, "`labels` in the batch, but got None"
    yield lambda: function({"logits": None}, torch.zeros(2, 3).long()), TypeError, "tensor `logits`, but got NoneType"
    yield lambda: function({"logits": z}, torch.zeros(2).long()), ValueError, r"shape \(2, 3\).*int64 of shape \(2,\)"
    yield lambda: function({"logits": z}, torch.zeros(2, 3)), ValueError, "class indices.*float32"


@pytest.mark.parametrize(("call", "error", "told"), list(wrong()))
def test_what_is_refused(call: Callable[[], object], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        call()


def test_a_loss_set_twice_is_refused(tmp_path: Path) -> None:
    smoothed = lossfit.CrossEntropyLoss(label_smoothing=0.1)
    with pytest.raises(ValueError, match="`labels` for the fused LlamaForCausalLM, but Trainer took them away"):
        train("llama", FUSED, smoothed, tmp_path, label_smoothing_factor=0.1)
    with pytest.raises(ValueError, match="`labels` for the fused LlamaForCausalLM, but Trainer took them away"):
        train("llama", FUNCTION, smoothed, tmp_path, fuse(build("llama"), LOSS))


def test_another_forward_around_the_body_is_refused() -> None:
    model, inputs = fuse(build("llama"), LOSS).train(), batch("llama")
    with pytest.raises(ValueError, match="forward of the fused model around its LlamaModel"):
        model.model(input_ids=inputs["input_ids"])
    assert isinstance(model(input_ids=inputs["input_ids"]).logits, Tensor)
    model.eval().model(input_ids=inputs["input_ids"])


def test_the_recipe_for_gamma_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "finetune_gamma.py"))
    small = {"SEEDS": 2, "STEPS": 2, "MORE_STEPS": 2, "GAMMAS": (0.0, 1.0), "DRAWN": 4, "HELD_OUT": 8, "BATCH": 4}
    for name, value in small.items():
        monkeypatch.setitem(example["main"].__globals__, name, value)
    level = tf.utils.logging.get_verbosity()
    example["main"]()
    tf.utils.logging.set_verbosity(level)
    told = capsys.readouterr().out.splitlines()
    table = {line[:12].strip(): line[12:].split() for line in told[3:6]}
    assert table.keys() == {"before", "gamma 0", "gamma 1"}
    assert all(len(cells) == 7 and all(math.isfinite(float(cell)) for cell in cells) for cells in table.values())
    assert table["gamma 0"] != table["gamma 1"] != table["before"]
    assert told[-1].startswith("gamma 1")
    assert told[-1].count("±") == 7


WAYS = [(FUNCTION, "bert tokens"), (FUSED, "llama")]
FOCAL = lossfit.FocalLoss(1.0)


@pytest.fixture(scope="module")
def trained_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_ranks(__file__, 2, tmp_path_factory.mktemp("ranks"), 150, "train")


@pytest.mark.slow
@pytest.mark.parametrize(("way", "family"), WAYS)
def test_two_processes_train_like_one(
    trained_ranks: list[dict[str, Any]], way: str, family: str, tmp_path: Path
) -> None:
    losses, model, _ = train(family, way, FOCAL, tmp_path, build(family, **NO_DROPOUT[family]))
    sums = [p.double().square().sum().item() for p in model.parameters()]
    for of_rank in trained_ranks:
        assert of_rank[way]["losses"] == pytest.approx(losses, rel=1e-5)
        assert of_rank[way]["sums"] == pytest.approx(sums, rel=1e-5, abs=1e-9)


def test_fully_sharded_gradients_are_those_of_one_process(tmp_path: Path) -> None:
    for of_rank in run_ranks(__file__, 2, tmp_path, 150, "shard"):
        assert max(of_rank["sharded"]) < 1e-6
        assert "the head's forward, but it was freed" in of_rank["head by itself"]


def sharded(rank: int) -> dict[str, object]:
    """The largest differences in gradients, of a tied and of an untied model; what is said of a head by itself."""
    from torch.distributed.fsdp import fully_shard

    differences, told = [], ""
    inputs = batch("qwen2", 4)
    for tied in (True, False):
        plain, fused = (build("qwen2", tie_word_embeddings=tied).train() for _ in range(2))
        halves = [{n: v[2 * r : 2 * r + 2] for n, v in inputs.items()} for r in range(2)]
        count = (inputs["labels"][:, 1:] != -100).sum()
        plain(**inputs, num_items_in_batch=count).loss.backward()
        fuse(fused, lossfit.CrossEntropyLoss())
        for layer in fused.model.layers:
            fully_shard(layer)
        fully_shard(fused)
        (fused(**halves[rank], num_items_in_batch=count).loss * 2).backward()
        differences += [
            (p.grad - q.grad.full_tensor()).abs().max().item()
            for p, q in zip(plain.parameters(), fused.parameters(), strict=True)
        ]
    apart = fuse(build("llama"), lossfit.CrossEntropyLoss()).train()
    fully_shard(apart.lm_head)
    fully_shard(apart)
    try:
        apart(**batch("llama"))
    except ValueError as error:
        told = str(error)
    return {"sharded": differences, "head by itself": told}


def run_rank(rank: int, world: int, folder: Path, what: str) -> None:
    join(rank, world, folder, 60)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    found: dict[str, Any] = {}
    for way, family in WAYS if what == "train" else ():
        losses, model, trainer = train(
            family, way, FOCAL, folder, build(family, **NO_DROPOUT[family]), per_device_train_batch_size=2
        )
        assert trainer.accelerator.num_processes == world
        found[way] = {"losses": losses, "sums": [p.double().square().sum().item() for p in model.parameters()]}
    found |= sharded(rank) if what == "shard" else {}
    (folder / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    run_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
