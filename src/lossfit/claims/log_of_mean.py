"""-log E[p] against -E[p]."""

import torch

from lossfit.claims import Finding, claim


@claim(
    "accuracy",
    "Experiments hard to reproduce",
    "-log E[p] is another objective than -E[p] (better, says the paper; worse, says the article).",
)
def check() -> Finding:
    """The gradients of both on a full batch and on mini-batches of 8, for a linear model on random rows."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 5, dtype=torch.float64, generator=generator)
    y = torch.randint(3, (64,), generator=generator)
    weight = torch.randn(3, 5, dtype=torch.float64, generator=generator).requires_grad_()

    def gradients(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
        mean = (x[rows] @ weight.T).softmax(1).gather(1, y[rows, None]).mean()
        plain = torch.autograd.grad(-mean, weight, retain_graph=True)[0]
        return plain, torch.autograd.grad(-mean.log(), weight)[0], mean.item()

    plain, log, mean = gradients(torch.arange(64))
    apart = (log - plain / mean).abs().max().item()
    parts = [gradients(rows) for rows in torch.arange(64).split(8)]
    summed = sum(p[1] for p in parts)
    assert isinstance(summed, torch.Tensor)
    cosine = torch.nn.functional.cosine_similarity(summed.flatten(), plain.flatten(), dim=0).item()
    return Finding(
        "refuted" if apart < 1e-12 else "holds",
        [
            ("largest difference of grad(-log E[p]) and grad(-E[p]) / E[p]", "", f"{apart:.1e}"),
            ("E[p]", "", f"{mean:.4f}"),
            ("cosine of the gradients summed over mini-batches", "", f"{cosine:.4f}"),
        ],
        "On the full batch one is an increasing function of the other: the same minimisers, and gradients that "
        "differ by the factor 1 / E[p]. Mini-batches and the size of the steps make what difference there is.",
    )
