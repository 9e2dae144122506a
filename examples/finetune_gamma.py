"""What gamma changes in fine-tuning a language model: from likelihood (gamma = 0) to DFT (gamma = 1), per token.

A small Llama that writes character by character is trained on the bundled tweets that raters did not find positive, by
cross-entropy. Copies of it are fine-tuned on the positive ones by gamma cross-entropy, with Trainer and the fused head,
all with the same batches, steps and learning rate. At gamma = 1 its gradients are those of dynamic fine-tuning (Y. Wu
et al., 2025, arXiv 2508.05629).

Measured on positive tweets that were held out: perplexity per character, how often the likeliest character is the right
one, the calibration error of its probability, and the entropy of the predictions; on other tweets that were held out,
the perplexity: what was forgotten. Of texts drawn from the model: the share of words that occur in the tweets, and
how many different words there are among a thousand.

    pip install '.[transformers]'
    python examples/finetune_gamma.py    # 4 seeds, under 4 minutes on 2 cores
"""

from __future__ import annotations

import copy
import csv
import html
import math
import random
import re
import statistics
import tempfile
import warnings
from collections.abc import Sequence
from importlib import resources

import torch
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging

import lossfit
from lossfit.integrations.transformers import fuse

SEEDS, GAMMAS = 4, (0.0, 0.1, 0.5, 1.0)
T_QUANTILE = 3.18  # of the 95% interval of a mean over 4 seeds
STEPS, MORE_STEPS, BATCH, RATE, MORE_RATE = 300, 80, 32, 3e-3, 1e-3
LENGTH, HIDDEN, HELD_OUT, DRAWN = 72, 64, 300, 150
PAD, END = 0, 1


class Texts:
    """Tweets as character numbers, with an end; the positive ones and the others, each with some held out."""

    def __init__(self) -> None:
        file = resources.files("lossfit.compare.data") / "bundled" / "tweets.csv"
        with file.open(encoding="utf-8", newline="") as lines:
            found = [(clean(row["text"]), row) for row in csv.DictReader(lines)]
        found = [(text, row) for text, row in found if len(text) >= 15]
        random.Random(0).shuffle(found)
        votes = [tuple(int(row[mood]) for mood in ("negative", "neutral", "positive")) for _, row in found]
        self.characters = sorted({c for text, _ in found for c in text})
        positive = [text for (text, _), (*others, most) in zip(found, votes, strict=True) if most > max(others)]
        rest = [text for (text, _), (*others, most) in zip(found, votes, strict=True) if most <= max(others)]
        self.positive, self.positive_held_out = self._split(positive)
        self.rest, self.rest_held_out = self._split(rest)
        self.words = {word for text, _ in found for word in re.findall("[a-z']+", text)}

    def _split(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        rows = torch.full((len(texts), LENGTH), PAD)
        for row, text in zip(rows, texts, strict=True):
            row[: len(text) + 1] = torch.tensor([*(self.characters.index(c) + 2 for c in text), END])
        return rows[HELD_OUT:], rows[:HELD_OUT]

    def read(self, row: Sequence[int]) -> str:
        text = "".join(self.characters[c - 2] if c >= 2 else "\0" for c in row)
        return text.partition("\0")[0]


def clean(text: str) -> str:
    text = re.sub(r"[^a-z0-9 .,!?'@#:-]", "", html.unescape(text).lower())
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) < LENGTH else text[: LENGTH - 1].rpartition(" ")[0]


def new_model(texts: Texts) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(texts.characters) + 2,
            hidden_size=HIDDEN,
            intermediate_size=3 * HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            pad_token_id=PAD,
            bos_token_id=END,
            eos_token_id=END,
        )
    )


def train(model: nn.Module, rows: Tensor, steps: int, rate: float, seed: int) -> None:
    """With Trainer; the loss is the model's own."""
    data = [{"input_ids": row, "attention_mask": (row != PAD).long(), "labels": labels(row)} for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            learning_rate=rate,
            seed=seed,
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = Trainer(model, args, train_dataset=data)
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def labels(rows: Tensor) -> Tensor:
    return rows.masked_fill(rows == PAD, -100)


@torch.no_grad()
def scores(model: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N, C) of the characters that follow, and which did."""
    z = model.eval()(input_ids=rows, attention_mask=(rows != PAD).long()).logits[:, :-1]
    target = rows[:, 1:]
    return z[target != PAD].log_softmax(-1), target[target != PAD]


@torch.no_grad()
def measured(model: nn.Module, texts: Texts, seed: int) -> dict[str, float]:
    log_p, target = scores(model, texts.positive_held_out)
    p = log_p.exp()
    other_log_p, other_target = scores(model, texts.rest_held_out)
    set_seed(seed)
    starts = texts.positive_held_out[:DRAWN, :1]  # the first characters of texts that were held out
    drawn = model.generate(starts, do_sample=True, top_k=0, max_length=LENGTH, use_cache=True)
    words = [word for row in drawn.tolist() for word in re.findall("[a-z']+", texts.read(row))]
    return {
        "perplexity": math.exp(-log_p.gather(1, target[:, None]).mean().item()),
        "right %": 100 * (log_p.argmax(1) == target).float().mean().item(),
        "calibration error %": 100 * lossfit.calibration.calibration_error(p, target).item(),
        "entropy": -(p * log_p).sum(1).mean().item(),
        "forgotten": math.exp(-other_log_p.gather(1, other_target[:, None]).mean().item()),
        "known words %": 100 * statistics.mean(word in texts.words for word in words),
        "words in 1000": len(set(words[:1000])),
    }


def main() -> None:
    warnings.filterwarnings("ignore", message=".*pin_memory")
    logging.set_verbosity_error()
    texts = Texts()
    print(f"{len(texts.rest)} other tweets, then {len(texts.positive)} positive ones; {HELD_OUT} of each held out")
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(SEEDS):
        set_seed(seed)
        first = new_model(texts)
        train(first, texts.rest, STEPS, RATE, seed)
        found.setdefault("before", []).append(measured(first, texts, seed))
        for gamma in GAMMAS:
            model = fuse(copy.deepcopy(first), lossfit.GammaCrossEntropyLoss(gamma))
            train(model, texts.positive, MORE_STEPS, MORE_RATE, seed + 100)
            found.setdefault(f"gamma {gamma:g}", []).append(measured(model, texts, seed))
    show(found)


def show(found: dict[str, list[dict[str, float]]]) -> None:
    """Means over seeds, and differences to gamma = 0 within seeds with their 95% intervals."""
    names = list(found["before"][0])
    print(f"\n{'':12}" + "".join(f"{name:>21}" for name in names))
    for row, runs in found.items():
        print(f"{row:12}" + "".join(f"{statistics.mean(run[name] for run in runs):21.3f}" for name in names))
    print(f"\nto gamma 0{'':2}")
    for row, runs in list(found.items())[2:]:
        cells = []
        for name in names:
            ahead = [run[name] - base[name] for run, base in zip(runs, found["gamma 0"], strict=True)]
            half = T_QUANTILE * statistics.stdev(ahead) / len(ahead) ** 0.5
            cells.append(f"{statistics.mean(ahead):+10.3f} ± {half:8.3f}")
        print(f"{row:12}" + "".join(cells))


if __name__ == "__main__":
    main()
