"""Triton's interpreter, in a fraction of its time.

It prepares ``triton.language`` at every call of a function within a kernel: hundreds of times a launch, where once for
each module is enough.
"""

from importlib.util import find_spec
from typing import Any

import torch


def quicken() -> None:
    """Prepare once a launch. Without Triton, or on a GPU, there is nothing to do."""
    if find_spec("triton") is None or torch.cuda.is_available():
        return
    from triton.runtime import interpreter

    if hasattr(interpreter, "is_quick"):
        return
    interpreter.is_quick = True
    prepare, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    done: set[int] = set()

    def once(fn: Any) -> Any:
        key = id(fn.__globals__)
        if key in done:
            return interpreter._LangPatchScope()
        done.add(key)
        return prepare(fn)

    def launched(*args: Any, **kwargs: Any) -> Any:
        done.clear()
        try:
            return launch(*args, **kwargs)
        finally:
            done.clear()

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = once, launched
