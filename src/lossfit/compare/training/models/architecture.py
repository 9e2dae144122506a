"""Which network is trained: all that it takes to make it again."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lossfit.compare.errors import InputError
from lossfit.compare.training.models import user_module
from lossfit.compare.training.models.cnn import ResidualCNN
from lossfit.compare.training.models.modules import Modules, drawing
from lossfit.compare.training.models.stacked import Stacked
from lossfit.core.checks import check_choice

HIDDEN = 32
BUILT_IN = ("auto", "linear", "mlp", "cnn")
# Seconds of a step of the residual network, for each pixel and besides; the longest training, and the smallest side,
# that it is taken for unasked.
_STEP, _PIXEL, _AFFORDABLE, _SMALLEST = 0.003, 0.000018, 3.0, 8


@dataclass(frozen=True)
class Architecture:
    """A network for rows of numbers.

    Attributes:
        kind: "linear", "mlp", "cnn", or ``package.module:factory`` of the user's own.
        features, classes: of the data.
        hidden: units of the hidden layer of "mlp".
        image: channels, height and width, if a row begins with an image.
        folder: where the user's own module is looked for first; the current folder if empty.

    A factory is called with those of these arguments that it takes: ``features``, the length of a row; ``classes``;
    ``shape``, (channels, height, width) of images or (features,). Its module is called with (B, features) in float32,
    and returns scores (B, classes). Where rows are images and nothing else, it is called with (B, channels, height,
    width), unless the factory takes ``features`` and not ``shape``.
    """

    kind: str
    features: int
    classes: int
    hidden: int = 0
    image: tuple[int, int, int] | None = None
    folder: str = ""

    @property
    def stacked(self) -> bool:
        """Whether many are trained as one; others are trained one by one."""
        return self.kind in ("linear", "mlp")

    @property
    def _only_image(self) -> bool:
        return self.image is not None and self.features == self.image[0] * self.image[1] * self.image[2]

    def build(self, settings: int, generators: list[torch.Generator], device: str = "cpu") -> Stacked | Modules:
        """The networks to train, for some settings and for each split's generator."""
        if self.stacked:
            return Stacked(self.features, self.classes, settings, self.hidden, generators, device)
        if ":" in self.kind:
            return Modules(
                self.module, settings, generators, device, partial(user_module.scores, self.kind, self.classes)
            )
        return Modules(self.module, settings, generators, device)

    def module(self) -> nn.Module:
        """A new network by itself, of rows (B, features) to logits (B, classes). Load a model's state dict into it."""
        if self.kind == "linear":
            return nn.Sequential(nn.Linear(self.features, self.classes))
        if self.kind == "mlp":
            return nn.Sequential(nn.Linear(self.features, self.hidden), nn.ReLU(), nn.Linear(self.hidden, self.classes))
        if self.kind == "cnn":
            assert self.image is not None
            others = self.features - self.image[0] * self.image[1] * self.image[2]
            return ResidualCNN(self.image, others, self.classes)
        shape = self.image if self._only_image else (self.features,)
        offered = {"features": self.features, "classes": self.classes, "shape": shape}
        made, plain = user_module.make(self.kind, self.folder or str(Path.cwd()), offered)
        module = OfImages(made, self.image) if self._only_image and self.image and not plain else made
        if any(nn.parameter.is_lazy(p) for p in module.parameters()):
            user_module.output(self.kind, module.eval(), torch.zeros(2, self.features))
            module.train()
        return module

    def check(self, rows: Tensor) -> None:
        """Raise InputError if it is the user's own and cannot be trained; a few rows (B, features) are tried."""
        if ":" in self.kind:
            with drawing(0):
                user_module.check(self.kind, self.module, rows, self.classes)

    @property
    def parameters(self) -> int:
        """How many numbers are learnt."""
        with drawing(0):
            return sum(p.numel() for p in self.module().parameters() if p.requires_grad)

    @property
    def sentence(self) -> str:
        """What it is, in words: its layers, what goes in and comes out, and how many parameters it has."""
        words = {
            "linear": "a linear model",
            "mlp": f"a network with one hidden layer of {self.hidden} units",
            "cnn": "a small residual network",
        }.get(self.kind, f"your own {self.kind}")
        size = f"{self.features:,} features"
        if self.image is not None:
            channels, height, width = self.image
            size = f"images of {height} x {width} pixels in {channels} channel{'s' * (channels > 1)}"
            others = self.features - channels * height * width
            size += f" and {others:,} other features" if others else ""
        return f"{words}: {size} to {self.classes:,} classes, {self.parameters:,} parameters"

    def to_json(self) -> dict[str, Any]:
        """All but the folder, as JSON has it."""
        found = asdict(self)
        del found["folder"]
        return {**found, "image": None if self.image is None else list(self.image)}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Architecture:
        """The inverse of :meth:`to_json`.

        Raises:
            KeyError, ValueError: it is none.
        """
        kind, image = found["kind"], found["image"]
        if not isinstance(kind, str) or not (kind in ("linear", "mlp", "cnn") or ":" in kind):
            raise ValueError(
                f"Expected a network of kind linear, mlp, cnn or package.module:factory, but got {kind!r}."
            )
        if image is not None and not (isinstance(image, list) and len(image) == 3 and all(map(_is_count, image))):
            raise ValueError(f"Expected channels, height and width of images, but got {image!r}.")
        made = cls(
            kind,
            _count(found, "features"),
            _count(found, "classes"),
            _count(found, "hidden", 0),
            None if image is None else (image[0], image[1], image[2]),
        )
        if kind == "mlp" and not made.hidden:
            raise ValueError("Expected units in the hidden layer, but got 0.")
        if kind == "cnn" and (image is None or made.features < math.prod(image)):
            raise ValueError("Expected the size of the images, and a feature for each of their pixels.")
        return made


def _is_count(value: object, least: int = 1) -> bool:
    return type(value) is int and least <= value < 1 << 31


def _count(found: dict[str, Any], name: str, least: int = 1) -> int:
    if not _is_count(found[name], least):
        raise ValueError(f"Expected {name!r} to be a number of at least {least}, but got {found[name]!r}.")
    value: int = found[name]
    return value


class OfImages(nn.Module):
    """A network of images (B, channels, height, width), called with rows (B, height * width * channels)."""

    def __init__(self, network: nn.Module, image: tuple[int, int, int]) -> None:
        super().__init__()
        self.network, self.image = network, image

    def forward(self, rows: Tensor) -> Tensor:
        """What the network gives."""
        channels, height, width = self.image
        found: Tensor = self.network(rows.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2).contiguous())
        return found


def check_name(model: str) -> None:
    """Raise ValueError unless it is a --model, and InputError if it is the user's own and cannot be found."""
    if ":" in model:
        user_module.load(model, str(Path.cwd()))
    else:
        check_choice("--model", model, (*BUILT_IN, "package.module:factory"))


def resolve(model: str, image: tuple[int, int, int] | None, steps: int) -> tuple[str, str]:
    """The kind of network for --model, and a note of the choice where it was "auto" on images.

    Then the convolutional network is taken if the images are of 8 x 8 pixels or more and a training is expected to
    take 3 s at most: on an idle core a step was seen to take about 3 ms and 0.018 ms a pixel. What it takes on a busy
    one is in ``benchmarks/results/compare-cpu.json``.

    Args:
        model: one of "auto", "linear", "mlp", "cnn" or ``package.module:factory``.
        image: channels, height and width, if there are images.
        steps: of a training.

    Raises:
        InputError: a convolutional network for data without images.
    """
    if model == "cnn" and image is None:
        raise InputError("--model cnn needs images: a folder of them, or an .npz file with X of 3 or 4 dimensions.")
    if model != "auto" or image is None:
        return ("mlp" if model == "auto" else model), ""
    seconds = steps * (_STEP + _PIXEL * image[1] * image[2])
    told = f"a training of the residual network takes about {seconds:.1f} s on one thread"
    if min(image[1:]) < _SMALLEST:
        return "mlp", ""
    if seconds > _AFFORDABLE:
        return "mlp", f"The network has one hidden layer, since {told} (--model cnn takes it all the same)."
    return "cnn", f"The network is the residual one for images: {told} (--model mlp is faster)."


def choose(kind: str, features: int, classes: int, image: tuple[int, int, int] | None = None) -> Architecture:
    """The architecture of a kind, "linear", "mlp", "cnn" or ``package.module:factory``, for some data.

    Args:
        kind: what :func:`resolve` gives.
        features, classes: of the data.
        image: channels, height and width, if a row begins with an image.
    """
    folder = str(Path.cwd()) if ":" in kind else ""
    return Architecture(kind, features, classes, HIDDEN if kind == "mlp" else 0, image, folder)
