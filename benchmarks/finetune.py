"""Peak memory and time of a training step of a language model, plain and with the fused head.

    python benchmarks/finetune.py                  # about 6 minutes, written to benchmarks/results/
    python benchmarks/finetune.py --rounds 1 --out /tmp/finetune.json

A Llama of two small layers with a vocabulary of 32,000, and a Gemma 2 that caps its scores, on batches of 8 x 256
tokens, in float32 and under bfloat16 autocast, eager and on one thread: forward and backward, without an optimiser.
"scores" is ``compute_loss_func``, with the scores made. Each runs in a process of its own. Memory is the process's peak
in its first step beyond what the model and its gradients hold; time is the processor's, the median of the next steps.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from dense import hardware, resident
from torch import nn

import lossfit

ROWS, LENGTH, WORDS, HIDDEN = 8, 256, 32_000, 256
MODELS = ("llama", "gemma2")
DTYPES = ("float32", "bfloat16")
WAYS = ("plain", "scores", "fused", "fused, gamma")


def build(name: str) -> nn.Module:
    import transformers

    sizes = {"hidden_size": HIDDEN, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    common = {**sizes, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": WORDS, "max_position_embeddings": LENGTH}
    torch.manual_seed(0)
    if name == "llama":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**common))
    return transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**common))


def measure(name: str, dtype: str, way: str, rounds: int) -> dict[str, float]:
    """MiB of a step, and seconds of the next ones."""
    from lossfit.integrations.transformers import compute_loss_func, fuse

    model = build(name).train()
    function = compute_loss_func(lossfit.CrossEntropyLoss(), model)
    if way.startswith("fused"):
        fuse(model, lossfit.GammaCrossEntropyLoss(0.1) if "gamma" in way else lossfit.CrossEntropyLoss())
    ids = torch.randint(WORDS, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))

    def step(tokens: torch.Tensor) -> float:
        half = torch.autocast("cpu", torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()
        with half:
            loss = function(model(tokens), tokens) if way == "scores" else model(tokens, labels=tokens).loss
        loss.backward()
        return loss.item()

    step(ids[:1, :16])  # what is loaded on first use; the gradients stay
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmHWM")
    loss = step(ids)
    peak = (resident("VmHWM") - before) / 2**20
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        step(ids)
        seconds.append(time.process_time() - start)
    return {"seconds": statistics.median(seconds), "mib": peak, "loss": loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "finetune-cpu.json")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.measure:
        print(json.dumps(measure(*options.measure, options.rounds)))
        return
    import transformers

    results: list[dict[str, Any]] = []
    base: dict[str, float] = {}
    for name in MODELS:
        for dtype in DTYPES:
            print(f"\n{name}, {dtype}; the scores in float32 once: {ROWS * LENGTH * WORDS * 4 / 2**20:.0f} MiB")
            for way in WAYS:
                command = [sys.executable, __file__, "--rounds", str(options.rounds), "--measure", name, dtype, way]
                told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found = json.loads(told.splitlines()[-1])
                base = found if way == "plain" else base
                row = {
                    "model": name,
                    "dtype": dtype,
                    "way": way,
                    "peak_mib": round(found["mib"]),
                    "seconds": round(found["seconds"], 3),
                    "time_ratio": round(found["seconds"] / base["seconds"], 2),
                    "loss": found["loss"],
                }
                results.append(row)
                print(
                    f"  {way:14} {row['peak_mib']:6} MiB  time {row['time_ratio']:.2f} of plain  loss {row['loss']:.4f}"
                )
    settings = {"rows": ROWS, "length": LENGTH, "words": WORDS, "hidden": HIDDEN, "rounds": options.rounds}
    written = {"hardware": hardware(), "transformers": transformers.__version__, **settings, "results": results}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
