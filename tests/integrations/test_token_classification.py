"""A chain on batches as the collator of transformers makes them: sub-word pieces and padding have the label -100."""

import itertools

import pytest
import torch
from torch import Tensor

from lossfit import LinearChainCRF

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

TAGS = 3
SENTENCES = [["we", "train", "crfs"], ["pieces", "of", "unaffable", "words"], ["one"]]
LABELS = [[0, 1, 2], [1, 0, 2, 1], [2]]


def batch() -> dict[str, Tensor]:
    """Tokenised, with a label for the first piece of each word alone, and collated."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "we", "train", "crf", "##s", "piece", "of", "un", "##aff", "##able"]
    core = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({p: i for i, p in enumerate([*pieces, "word", "one"])}, unk_token="[UNK]")
    )
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    core.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $0 [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]")
    rows = []
    for words, labels in zip(SENTENCES, LABELS, strict=True):
        encoded = tokenizer(words, is_split_into_words=True)
        of_word, before, own = encoded.word_ids(), None, []
        for word in of_word:
            own.append(-100 if word is None or word == before else labels[word])
            before = word
        rows.append({"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": own})
    collated: dict[str, Tensor] = transformers.DataCollatorForTokenClassification(tokenizer)(rows)
    return collated


def longhand(crf: LinearChainCRF, emissions: Tensor, tags: list[int]) -> Tensor:
    """The log-probability of tags, by listing all sequences."""

    def score(path: tuple[int, ...]) -> Tensor:
        total = crf.start[path[0]] + crf.end[path[-1]] + sum(emissions[t, k] for t, k in enumerate(path))
        return total + sum((crf.transitions[a, b] for a, b in itertools.pairwise(path)), torch.zeros(()))

    every = torch.stack([score(path) for path in itertools.product(range(TAGS), repeat=len(tags))])
    return score(tuple(tags)) - every.logsumexp(0)


def test_a_batch_of_the_collator() -> None:
    collated = batch()
    labels, mask = collated["labels"], collated["attention_mask"]
    assert (labels == -100).sum() > (mask == 0).sum() + 2 * len(labels)  # pieces, not the ends and the padding alone
    crf = LinearChainCRF(TAGS).double()
    emissions = torch.randn(*labels.shape, TAGS, dtype=torch.float64, requires_grad=True)
    value = crf(emissions, labels, mask)
    kept = [labels[i] != -100 for i in range(len(labels))]
    assert [labels[i, k].tolist() for i, k in enumerate(kept)] == LABELS
    log_p = torch.stack([longhand(crf, emissions[i, k], LABELS[i]) for i, k in enumerate(kept)])
    torch.testing.assert_close(value, -log_p.mean())
    (grad,) = torch.autograd.grad(value, emissions)
    assert (grad[labels == -100] == 0).all()
    assert [len(path) for path in crf.decode(emissions, labels != -100)] == [len(own) for own in LABELS]
