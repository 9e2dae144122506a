"""Some parts, in a process of their own: what ends it does not end the run."""

from __future__ import annotations

import argparse
import json
import os
import site
import time
import traceback
from pathlib import Path
from typing import Any

from gpu_parts.sizes import FULL, SMOKE

NO_DEVICE = 4
"""The status of a process that found no GPU."""


def save(found: dict[str, Any], path: Path) -> None:
    """Whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    os.replace(new, path)


def main(options: argparse.Namespace) -> int:
    began = time.monotonic()
    if options.peers is not None:
        site.addsitedir(str(options.peers))
    import torch

    if not options.smoke and not torch.cuda.is_available():
        return NO_DEVICE
    from gpu_parts.contest import Part
    from gpu_parts.device import Device
    from gpu_parts.language_model import language_model
    from gpu_parts.measurements import MEASUREMENTS

    torch.manual_seed(0)
    measurements = MEASUREMENTS | {"language_model": language_model}
    device = Device(options.smoke)
    found: dict[str, Any] = {"hardware": device.about(), "parts": {}}
    sizes = SMOKE if options.smoke else FULL
    for name in options.parts:
        left = options.seconds - (time.monotonic() - began)

        def write(part: dict[str, Any], name: str = name) -> None:
            found["parts"][name] = part
            save(found, options.out)

        print(f"\n== {name}", flush=True)
        part = Part(device, left, write, set(options.without), options.profile)
        try:
            measurements[name](part, sizes)
            part.found["status"] = "ok"
        except Exception as error:
            traceback.print_exc()
            part.found |= {"status": "failed", "why": f"{type(error).__name__}: {str(error)[:300]}"}
        part.flush()
        device.free()
    return 0
