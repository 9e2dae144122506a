"""TRL's SFTTrainer with losses of this library, in real runs on a tiny model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lossfit

pytest.importorskip("trl")
import datasets
import transformers as tf
import trl
from tokenizers import Tokenizer, models, pre_tokenizers

from lossfit.integrations.transformers import fuse
from lossfit.integrations.trl import SFTTrainer

pytestmark = pytest.mark.filterwarnings("ignore")
WORDS = 40


def tokenizer() -> object:
    words = {word: i for i, word in enumerate(["<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(WORDS - 3))])}
    found = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    return tf.PreTrainedTokenizerFast(tokenizer_object=found, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def texts() -> object:
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(4, 12, (16,), generator=draw).tolist()
    return datasets.Dataset.from_dict(
        {"text": [" ".join(f"w{i}" for i in torch.randint(20, (n,), generator=draw).tolist()) for n in lengths]}
    )


def model() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    return tf.LlamaForCausalLM(
        tf.LlamaConfig(vocab_size=WORDS, **sizes, pad_token_id=0, bos_token_id=1, eos_token_id=1)
    )


def run(
    folder: Path, loss: nn.Module | None = None, loss_type: str = "chunked_nll", settings: Any = None, **changes: Any
) -> tuple[list[dict[str, float]], nn.Module, float]:
    """What is logged at every step, the model, and the loss of evaluation."""
    args = trl.SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_steps=3,
        logging_steps=1,
        learning_rate=0.5,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        loss_type=loss_type,
        **(settings or {}),
    )
    given = {
        "args": args,
        "train_dataset": texts(),
        "eval_dataset": texts(),
        "processing_class": tokenizer(),
        **changes,
    }
    made = model() if "model" not in given else given.pop("model")
    trainer = trl.SFTTrainer(made, **given) if loss is None else SFTTrainer(made, loss=loss, **given)
    trainer.remove_callback(tf.PrinterCallback)
    trainer.train()
    steps = [log for log in trainer.state.log_history if "loss" in log]
    assert len(steps) == 3
    return steps, trainer.model, trainer.evaluate()["eval_loss"]


def weights(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, float]], nn.Module, float]:
    return run(tmp_path_factory.mktemp("plain"), loss_type="nll")


@pytest.mark.parametrize("loss_type", ["chunked_nll", "nll"])
def test_cross_entropy_trains_and_logs_as_trl_does(plain: Any, loss_type: str, tmp_path: Path) -> None:
    steps, trained, evaluated = run(tmp_path, lossfit.CrossEntropyLoss(), loss_type)
    for name in ("loss", "entropy", "mean_token_accuracy", "num_tokens"):
        assert [s[name] for s in steps] == pytest.approx([s[name] for s in plain[0]], rel=1e-5), name
    assert evaluated == pytest.approx(plain[2], rel=1e-5)
    torch.testing.assert_close(weights(trained), weights(plain[1]), rtol=1e-5, atol=1e-6)


def test_gamma_cross_entropy_at_1_has_the_gradients_of_dft(plain: Any, tmp_path: Path) -> None:
    theirs, dft, _ = run(tmp_path, loss_type="dft")
    closed, trained, _ = run(tmp_path, lossfit.GammaCrossEntropyLoss(1.0))
    torch.testing.assert_close(weights(trained), weights(dft), rtol=1e-5, atol=1e-7)
    moved = (weights(dft) - weights(model())).abs().max().item()
    assert moved > 1e-3
    assert (weights(plain[1]) - weights(dft)).abs().max().item() > moved
    assert closed[0]["loss"] > 10 * theirs[0]["loss"]  # 1 - p against p (-log p)
    for loss in (lossfit.GammaCrossEntropyLoss(1.0, floor=1e-12), lossfit.SensitivityLoss(torch.ones_like)):
        detached, trained, _ = run(tmp_path, loss)
        assert [s["loss"] for s in detached] == pytest.approx([s["loss"] for s in theirs], rel=1e-5)
        torch.testing.assert_close(weights(trained), weights(dft), rtol=1e-5, atol=1e-7)


def test_a_fused_model_takes_the_new_loss(plain: Any, tmp_path: Path) -> None:
    steps, trained, _ = run(tmp_path, lossfit.CrossEntropyLoss(), model=fuse(model(), lossfit.FocalLoss()))
    assert [s["loss"] for s in steps] == pytest.approx([s["loss"] for s in plain[0]], rel=1e-5)
    torch.testing.assert_close(weights(trained), weights(plain[1]), rtol=1e-5, atol=1e-6)


def test_with_lora(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    found = []
    for loss in (None, lossfit.CrossEntropyLoss()):
        torch.manual_seed(1)
        config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], init_lora_weights=False)
        adapted = peft.get_peft_model(model(), config)
        found.append(run(tmp_path, loss, model=adapted))
    (expected, _, _), (got, trained, _) = found
    assert [s["loss"] for s in got] == pytest.approx([s["loss"] for s in expected], rel=1e-5)
    assert type(trained).__name__ == "PeftModelForCausalLM"


def test_what_is_refused(tmp_path: Path) -> None:
    loss = lossfit.FocalLoss()
    with pytest.raises(ValueError, match=r"one loss, but got `loss_type='dft'` beside `loss`; .*GammaCrossEntropyLoss"):
        run(tmp_path, loss, "dft")
    with pytest.raises(ValueError, match="one loss, but got `compute_loss_func` beside"):
        run(tmp_path, loss, compute_loss_func=print)
    with pytest.raises(ValueError, match="one loss, but got `label_smoothing_factor=0"):
        run(tmp_path, loss, settings={"label_smoothing_factor": 0.1})
    with pytest.raises(TypeError, match="SingleLabelLoss or a TokenLoss, but got CrossEntropyLoss"):
        run(tmp_path, nn.CrossEntropyLoss())
    with pytest.raises(ValueError, match=r"around its LlamaModel.*integrations\.trl\.SFTTrainer"):
        run(tmp_path, model=fuse(model(), loss))
