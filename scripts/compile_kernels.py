"""Compile every kernel ahead of time for an H100 or H200, which takes no GPU, and show what ptxas says of it.

    python scripts/compile_kernels.py [bf16 fp16 fp32 fp64]

The types are those of the scores; all of them unless told. It ends with status 1 if a kernel keeps registers in memory
("spills").
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lossfit.core.numerics import accumulation_dtype
from lossfit.kernels import exact, gap, launch

TARGET = GPUTarget("cuda", 90, 32)
PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
SCORES, FLAGS = ("scores", "out"), ("valid", "here", "hit_out")
NUMBERS = ("stride", "out_stride", "classes", "rows", "blocks", "places")
SCORING = ("divisor", "shift")
OPTIONAL = ("valid", "here", "weight", "mean_out", "hit_out", "entropy_out", "entropy", "g_mean", "g_entropy", *SCORING)
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "fp64": torch.float64}


def compiled(kernel: Any, scores: str, constants: dict[str, Any], warps: int) -> str:
    """The kernel's PTX, for arguments that are aligned as PyTorch aligns them, and many classes."""
    numbers = "fp64" if scores == "fp64" else "fp32"
    signature, attributes = {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in NUMBERS:
            signature[name] = "i32"
        elif name == "target":
            signature[name] = "*i64"
        elif name in FLAGS:
            signature[name] = "*i1"
        else:
            signature[name] = f"*{scores if name in SCORES else numbers}"
        if signature[name].startswith("*") or name in ("stride", "out_stride", "classes"):
            attributes[(i,)] = [["tt.divisibility", 16]]
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, constexprs=places, attrs=attributes)
    return str(triton.compile(source, target=TARGET, options={"num_warps": warps}).asm["ptx"])


def usage(ptx: str) -> tuple[int, int]:
    """Registers of a thread, and bytes of them that are spilled."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [PTXAS, "-v", "-arch=sm_90a", path, "-o", path.with_suffix(".cubin")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", said)
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill", said)]
    assert registers is not None, said
    assert spills, said
    return int(registers[1]), sum(spills)


def variants(types: list[str]) -> list[tuple[str, Any, str, dict[str, Any], int]]:
    """Name, kernel, type of the scores, constants and warps."""
    found: list[tuple[str, Any, str, dict[str, Any], int]] = []
    for scores in types:
        dtype = TYPES[scores]
        many = torch.empty(1, 1 << 17, dtype=dtype, device="meta")
        for hard, (least, cap) in itertools.product((False, True), ((True, 0.0), (False, 0.0), (False, 30.0))):
            name = f"{'hard' if hard else 'soft'}, {'target and rivals' if least else 'every field'}"
            name += ", capped" if cap else ""
            absent = OPTIONAL if least else (*(("entropy_out", "g_entropy") if hard else ()), *(() if cap else SCORING))
            tiny = torch.finfo(accumulation_dtype(many)).tiny
            for kernel, more in ((gap.forward, {"TINY": tiny}), (gap.backward, {})):
                forward = kernel is gap.forward
                entropy = forward and "entropy_out" not in absent
                _, options = launch.plan(many, entropy=entropy, heavy=forward and cap > 0)
                warps = options.pop("num_warps")
                constants = {**options, **more, "HARD": hard, "CAP": cap}
                constants |= {key: None for key in absent if key in kernel.arg_names}
                found.append((f"gap {kernel.__name__}: {name}", kernel, scores, constants, warps))
    for numbers, dtype in (("fp32", tl.float32), ("fp64", tl.float64)):
        if numbers not in types:
            continue
        tile = {"PLACES": exact._PLACES, "BLOCK": exact._CLASSES}
        found.append(("exact: at places", exact.at_places, numbers, {"DTYPE": dtype, **tile}, 4))
        found.append(("exact: sums", exact.sums, numbers, {"DTYPE": dtype, "BLOCK": exact._WIDE}, 4))
        found.append(("exact: push", exact.push_kernel, numbers, {"DTYPE": dtype, "BLOCK": exact._WIDE}, 4))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", metavar="type", help=", ".join(TYPES))
    types = parser.parse_args().types or list(TYPES)
    unknown = set(types) - set(TYPES)
    if unknown:
        parser.error(f"Expected types among {', '.join(TYPES)}, but got {', '.join(sorted(unknown))}.")
    spilled = 0
    print(f"{'kernel':50} {'type':5} {'warps':>5} {'registers':>9} {'spilled bytes':>13}")
    for name, kernel, scores, constants, warps in variants(types):
        registers, spills = usage(compiled(kernel, scores, constants, warps))
        print(f"{name:50} {scores:5} {warps:5} {registers:9} {spills:13}")
        spilled += spills
    return 1 if spilled else 0


if __name__ == "__main__":
    sys.exit(main())
