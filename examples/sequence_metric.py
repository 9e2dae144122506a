"""Does training on a sequence metric raise it over cross-entropy? Vowels restored, measured by chrF.

Tweets of the bundled data lose their vowels ("th wthr s nc"), and a small GRU that reads from left to right writes
them back: after every character it picks one of 26 strings of vowels, most often none. Texts are compared by chrF
(M. Popovic, "chrF: character n-gram F-score for automatic MT evaluation", 2015), where recall has twice the weight of
precision, while cross-entropy leads to the most probable string at each place.

Each seed trains one model by cross-entropy, and goes on from there with copies of it, for the same number of steps,
batches and learning rates: by cross-entropy, by REINFORCE on the chrF of 8 samples a text, and by minimum risk on
samples of the same kind. The first copy is also measured with a fixed amount, chosen on validation texts, taken off the
score of writing nothing: what tuning after training can do. The weights of the last step are measured, on test texts.
A step on samples takes several times as long as one of cross-entropy.

    pip install sacrebleu
    python examples/sequence_metric.py    # 3 seeds, under 4 minutes on one core
"""

from __future__ import annotations

import collections
import copy
import csv
import html
import re
import statistics
import time
from importlib import resources

import torch
from torch import Tensor, nn

import lossfit

try:
    from sacrebleu.metrics import CHRF
except ImportError as error:
    raise SystemExit("This example measures chrF by sacrebleu: pip install sacrebleu") from error

SEEDS, STEPS, MORE_STEPS = 3, 1500, 400
BATCH, SAMPLES, RATE, MORE_RATE = 32, 8, 5e-3, 2e-3
HIDDEN, STRINGS, CHARACTERS = 32, 26, 60
VALIDATION, TEST = 400, 600
BIASES = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]


class Texts:
    """The texts, what is left of them without vowels, and the vowels that go after each character that is left."""

    def __init__(self) -> None:
        file = resources.files("lossfit.compare.data") / "bundled" / "tweets.csv"
        with file.open(encoding="utf-8", newline="") as lines:
            cleaned = (clean(row["text"]) for row in csv.DictReader(lines))
            self.texts = [text for text in cleaned if len(text) >= 15]
        parts = [split(text) for text in self.texts]
        counts = collections.Counter(vowels for _, after in parts for vowels in after)
        self.strings = [vowels for vowels, _ in counts.most_common(STRINGS)]
        self.kept = [kept for kept, _ in parts]
        self.alphabet = sorted(set("".join(self.kept)))
        self.lengths = torch.tensor([len(kept) for kept in self.kept])
        self.input = torch.zeros(len(parts), int(self.lengths.max()), dtype=torch.int64)
        self.target = torch.zeros_like(self.input)
        for row, (kept, after) in enumerate(parts):
            self.input[row, : len(kept)] = torch.tensor([self.alphabet.index(c) for c in kept])
            self.target[row, : len(kept)] = torch.tensor([self._nearest(vowels) for vowels in after])
        order = torch.randperm(len(parts), generator=torch.Generator().manual_seed(0))
        self.test, self.validation, self.train = order.split([TEST, VALIDATION, len(parts) - TEST - VALIDATION])

    def _nearest(self, vowels: str) -> int:
        while vowels not in self.strings:
            vowels = vowels[:-1]
        return self.strings.index(vowels)

    def written(self, row: int, choices: list[int]) -> str:
        """The text with the strings that were chosen, without the mark at its beginning."""
        pairs = zip(self.kept[row], choices, strict=False)
        return "".join(character + self.strings[choice] for character, choice in pairs)[1:]


def clean(text: str) -> str:
    text = re.sub(r"[^a-z0-9 .,!?'@#:-]", "", html.unescape(text).lower())
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= CHARACTERS else text[:CHARACTERS].rpartition(" ")[0]


def split(text: str) -> tuple[str, list[str]]:
    """The characters that stay, after a mark for the beginning, and the vowels after each."""
    kept, after = "^", [""]
    for character in text:
        if character in "aeiou":
            after[-1] += character
        else:
            kept += character
            after.append("")
    return kept, after


class Restorer(nn.Module):
    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, HIDDEN)
        self.reader = nn.GRU(HIDDEN, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, STRINGS)

    def forward(self, characters: Tensor) -> Tensor:
        """Scores of the strings after each character, (B, T, strings)."""
        return self.head(self.reader(self.embedding(characters))[0])


def by_cross_entropy(texts: Texts, rows: Tensor, scores: Tensor) -> Tensor:
    return lossfit.functional.token_loss(scores, texts.target[rows, : scores.shape[1]], texts.lengths[rows])


def sampled(texts: Texts, rows: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """The log-probabilities and the chrF, in [0, 1], of samples for each text, (B, M)."""
    log_p = scores.log_softmax(-1)
    counts = torch.arange(scores.shape[1]) < texts.lengths[rows].unsqueeze(1)
    choices = torch.distributions.Categorical(logits=scores.detach()).sample((SAMPLES,)).transpose(0, 1)
    of_tokens = log_p.unsqueeze(1).expand(-1, SAMPLES, -1, -1).gather(-1, choices.unsqueeze(-1)).squeeze(-1)
    metric = CHRF()
    chrf = [
        [metric.sentence_score(texts.written(row, each), [texts.texts[row]]).score / 100 for each in samples]
        for row, samples in zip(rows.tolist(), choices.tolist(), strict=True)
    ]
    return (of_tokens * counts.unsqueeze(1)).sum(-1), torch.tensor(chrf)


def by_reinforce(texts: Texts, rows: Tensor, scores: Tensor) -> Tensor:
    return lossfit.functional.reinforce_loss(*sampled(texts, rows, scores), baseline="leave_one_out")


def by_minimum_risk(texts: Texts, rows: Tensor, scores: Tensor) -> Tensor:
    log_prob, chrf = sampled(texts, rows, scores)
    return lossfit.functional.minimum_risk_loss(log_prob, 1 - chrf, alpha=0.2)


def train(texts: Texts, model: Restorer, loss_function, steps: int, rate: float, seed: int) -> float:
    """Train with a learning rate that falls to 0, and return the seconds that it took."""
    torch.manual_seed(seed)
    start = time.perf_counter()
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        rows = texts.train[torch.randint(len(texts.train), (BATCH,))]
        loss = loss_function(texts, rows, model(texts.input[rows, : int(texts.lengths[rows].max())]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return time.perf_counter() - start


@torch.no_grad()
def measured(texts: Texts, model: Restorer, rows: Tensor, bias: float = 0.0) -> tuple[float, float]:
    """The chrF of all texts together and the share of right strings, both in percent, with a bias against no string."""
    scores = model(texts.input[rows])
    scores[..., texts.strings.index("")] -= bias
    choices = scores.argmax(-1)
    written = [texts.written(row, each) for row, each in zip(rows.tolist(), choices.tolist(), strict=True)]
    counts = torch.arange(scores.shape[1]) < texts.lengths[rows].unsqueeze(1)
    right = (choices == texts.target[rows])[counts].float().mean().item() * 100
    return CHRF().corpus_score(written, [[texts.texts[row] for row in rows.tolist()]]).score, right


def main() -> None:
    torch.set_num_threads(1)
    texts = Texts()
    print(f"{len(texts.train)} texts to train on, {len(texts.test)} to test, such as:")
    for row in texts.test[:2].tolist():
        print(f"  {texts.kept[row][1:]!r} was {texts.texts[row]!r}")
    results: dict[str, list[tuple[float, float]]] = collections.defaultdict(list)
    seconds: dict[str, list[float]] = collections.defaultdict(list)
    further = {"cross-entropy": by_cross_entropy, "REINFORCE": by_reinforce, "minimum risk": by_minimum_risk}
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        first = Restorer(len(texts.alphabet))
        train(texts, first, by_cross_entropy, STEPS, RATE, seed)
        results["before"].append(measured(texts, first, texts.test))
        for name, loss_function in further.items():
            model = copy.deepcopy(first)
            seconds[name].append(train(texts, model, loss_function, MORE_STEPS, MORE_RATE, seed + 100))
            results[name].append(measured(texts, model, texts.test))
            if name == "cross-entropy":
                bias = max(BIASES, key=lambda b, m=model: measured(texts, m, texts.validation, b)[0])
                results["  and a bias"].append(measured(texts, model, texts.test, bias))
    print(f"\nAfter {MORE_STEPS} more steps; mean and standard deviation over {SEEDS} seeds, differences within seeds:")
    print(f"{'':16} {'chrF':>14} {'to cross-entropy':>18} {'right strings %':>16} {'seconds':>8}")
    for name, found in results.items():
        chrf, right = zip(*found, strict=True)
        ahead = [mine - base for mine, (base, _) in zip(chrf, results["cross-entropy"], strict=True)]
        took = f"{statistics.mean(seconds[name]):8.0f}" if name in seconds else ""
        print(f"{name:16} {spread(chrf):>14} {spread(ahead):>18} {spread(right):>16} {took}")


def spread(values: tuple[float, ...] | list[float]) -> str:
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


if __name__ == "__main__":
    main()
