"""A small residual network for images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHANNELS = (8, 16, 32)


class Block(nn.Module):
    """Two convolutions of 3 x 3, whose result is added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(channels // 8, channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, height, width) to the same."""
        inner = self.second(self.norms[0](self.first(x)).relu())
        found: Tensor = (x + self.norms[1](inner)).relu()
        return found


class ResidualCNN(nn.Module):
    """Stages of a convolution of stride 2 and a residual block, the mean over all positions, and a linear layer.

    A stage halves height and width, and there are as many as leave 2 x 2 positions or more, at most 3. Norms are over
    groups of 8 channels of one image, so that a row's scores depend on this row alone.

    Args:
        image: channels, height and width.
        others: features of other columns, which come after the pixels of a row and go to the linear layer.
        classes: of the data.
    """

    def __init__(self, image: tuple[int, int, int], others: int, classes: int) -> None:
        super().__init__()
        self.image = image
        before, least = image[0], min(image[1:])
        layers: list[nn.Module] = []
        for stage, channels in enumerate(CHANNELS):
            if stage and least >> (stage + 1) < 2:
                break
            layers += [
                nn.Conv2d(before, channels, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(channels // 8, channels),
                nn.ReLU(),
                Block(channels),
            ]
            before = channels
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(before + others, classes)

    def forward(self, rows: Tensor) -> Tensor:
        """Logits (B, C) of rows (B, D): the pixels, by height, width and channel, and then other columns."""
        channels, height, width = self.image
        pixels = height * width * channels
        images = rows[:, :pixels].unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)
        found: Tensor = self.head(torch.cat([self.body(images).mean((2, 3)), rows[:, pixels:]], 1))
        return found
